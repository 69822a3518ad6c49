"""Trains systems on drawn faces and made voices that may disagree, through towers.

python -m benchmarks.disagreement.full_path --output FOLDER

Writes docs/disagreement_full_path.json, for the page of python -m benchmarks.disagreement page. The
sets are of data_prep.mini, from the same description of feelings and lies as the world of features.
Scores are those of the validation partition, which has other people than training, and on which the
best epoch is chosen, too. Runs that are finished in FOLDER are not repeated.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import subprocess
import sys
import time

from avjax import errors
from benchmarks.disagreement import page
from benchmarks.evidence import ROOT, build, folder, train

SYSTEMS = ('concatenation', 'rjca', 'grjca', 'joint_context')
RHOS = (0, 0.6)
SEEDS = (0, 1)  # of training; the set of seed s has the seed 40 + s


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.disagreement.full_path', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  output = parser.parse_args().output
  begin, records = time.perf_counter(), {}
  for rho in RHOS:
    for seed in SEEDS:
      place = folder(output, f'rho {rho} seed {seed}')
      records[rho, seed] = place / 'records'
      words = ('--preset', 'balanced', '--rho', str(rho), '--seed', str(40 + seed))
      mini = (sys.executable, '-m', 'data_prep.mini', '--output', str(place / 'affwild2'))
      subprocess.run([*mini, *words], cwd=ROOT, check=True)
      build(place / 'affwild2', place / 'records')

  def score(job):
    system, rho, seed = job
    workdir = folder(output, f'rho {rho} seed {seed}') / system
    return train(system, seed, records[rho, seed], workdir)

  jobs = [(system, rho, seed) for system in SYSTEMS for rho in RHOS for seed in SEEDS]
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rows = {
      f'{system}, rho {rho:g}, seed {seed}': row
      for (system, rho, seed), row in zip(jobs, pool.map(score, jobs), strict=True)
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
