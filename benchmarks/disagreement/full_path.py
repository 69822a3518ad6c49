"""Trains systems on drawn faces and made voices that may disagree, through towers.

python -m benchmarks.disagreement.full_path --output FOLDER

Writes docs/disagreement_full_path.json, for the page of python -m benchmarks.disagreement page. The
sets are of data_prep.mini, from the same description of feelings and lies as the world of features.
The best epoch is chosen on the validation partition; the test is of another set, with other people.
Runs that are finished in FOLDER are not repeated.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import time

from avjax import errors
from benchmarks.disagreement import page
from benchmarks.evidence import build, folder, row, run, train

SYSTEMS = ('concatenation', 'rjca', 'grjca', 'joint_context')
RHOS = (0, 0.6)
SEEDS = (0, 1)  # of training
SETS = {'training': 40, 'test': 140}  # the set of a seed has the seed that is this many more
# The splits of a test set: the first four of six parts are the test. A set without the others is
# none, and their labels are not looked at.
TEST_SPLITS = {'chunk4': 'train', 'chunk5': 'validation'}


def make_records(place, seed, rho, *layout):
  """Makes a mini set, and records of it in place/records; returns these."""
  if not (place / 'records').exists():
    options = ('--preset', 'balanced', '--rho', rho, '--seed', seed)
    run('data_prep.mini', '--output', place / 'set', *options, *layout)
    if layout:
      choose_test(place / 'set' / 'splits.csv')
    build(place / 'set', place / 'records', *layout)
  return place / 'records'


def choose_test(splits):
  """Writes the splits of a test set into its list of clips."""
  head, *lines = splits.read_text().splitlines()
  rows = (line.split(',') for line in lines)
  parts = (f'{name},{TEST_SPLITS.get(split, "test")},{subject}' for name, split, subject in rows)
  splits.write_text('\n'.join([head, *parts]) + '\n')


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.disagreement.full_path', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  output = parser.parse_args().output
  begin, records, tests = time.perf_counter(), {}, {}
  for rho in RHOS:
    for seed in SEEDS:
      place = folder(output, f'rho {rho} seed {seed}')
      records[rho, seed] = make_records(place, SETS['training'] + seed, rho)
      test = (SETS['test'] + seed, rho, '--layout', 'plain')
      tests[rho, seed] = make_records(place / 'test', *test)

  def score(job):
    system, rho, seed = job
    workdir = folder(output, f'rho {rho} seed {seed}') / system
    validation = train(system, seed, records[rho, seed], workdir)
    run('avjax.evaluate', workdir, '--split', 'test', '--data_dir', tests[rho, seed])
    found = row(json.loads((workdir / 'results_test.json').read_text()))
    return {'validation': validation, 'test': found}

  jobs = [(system, rho, seed) for system in SYSTEMS for rho in RHOS for seed in SEEDS]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rows = {
      f'{system}, rho {rho:g}, seed {seed}': found
      for (system, rho, seed), found in zip(jobs, pool.map(score, jobs), strict=True)
    }
  found = {
    'rows': rows,
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'seconds': round(time.perf_counter() - begin),
  }
  page.FULL_PATH.write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  errors.run_command(main)
