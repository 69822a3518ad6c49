"""Asks whether gating helps when face and voice disagree, on features whose truth is known.

python -m benchmarks.disagreement tune     chooses rates on validation clips, and writes
                                           docs/disagreement_tuning.json
python -m benchmarks.disagreement test     trains and tests everything with these rates, and writes
                                           docs/disagreement.json
python -m benchmarks.disagreement page     writes docs/evidence.md and its figure from these, from
                                           what full_path.py found, and from the first registry's
                                           docs/disagreement_first.json

systems.py registers what is compared. It and the rates are committed before the test is opened.
full_path.py, a command of its own, trains towers and all on drawn faces and made voices.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import time

import numpy as np

from avjax import errors
from avjax.errors import InputError
from benchmarks.disagreement import page, picture, running
from benchmarks.disagreement.systems import ENTRIES, MIDDLE, SEEDS, SETTINGS, TUNING_SEEDS
from data_prep import parallel


def about(begin):
  """Describes a run: versions, machine and seconds."""
  return {
    'versions': {
      name: importlib.metadata.version(name) for name in ('jax', 'flax', 'optax', 'numpy')
    },
    'python': platform.python_version(),
    'cores': parallel.core_count(),
    'seconds': round(time.perf_counter() - begin),
  }


def write(path, found):
  path.write_text(json.dumps(found, indent=1) + '\n')


def in_turn(function, worlds):
  """Yields (name, function(worlds, name)) of each entry, computed by a process for each core.

  Together they are half as fast again as one process that takes all cores.
  """
  os.environ['NPROC'] = '1'  # the cores that XLA takes, of which a process learns when it starts
  with parallel.spawned_pool(parallel.core_count(), parallel.prepare_worker) as pool:
    try:
      yield from zip(ENTRIES, pool.map(functools.partial(function, worlds), ENTRIES), strict=True)
    finally:
      pool.shutdown(wait=False, cancel_futures=True)  # after an error nothing else begins


def tuned():
  """Returns what the tuning found; raises InputError unless that is of every entry as it is."""
  found = page.read(page.TUNING)['entries']
  for name, entry in ENTRIES.items():
    trials = name in found and tuple((rate, factor) for rate, factor, _ in found[name]['trials'])
    if trials != entry.trials:
      raise InputError(
        f'{page.TUNING} lacks trials of {name}: run python -m benchmarks.disagreement tune'
      )
  return found


def tune():
  """Tunes every entry at MIDDLE."""
  begin, found = time.perf_counter(), {}
  worlds = running.make_worlds([(MIDDLE, TUNING_SEEDS)])
  for name, row in in_turn(running.tune, worlds):
    found[name] = row
    print(f'{name:24}', row, flush=True)
    write(page.TUNING, {'seeds': [*TUNING_SEEDS], 'entries': found, **about(begin)})


def test():
  """Tests every entry."""
  begin, best = time.perf_counter(), {name: page.best_trial(row) for name, row in tuned().items()}
  worlds = running.make_worlds([(setting, SEEDS) for setting in SETTINGS])
  print(f'worlds {time.perf_counter() - begin:.0f} s', flush=True)
  found, single = {}, {}
  for name, rows in in_turn(functools.partial(running.test, best), worlds):
    for setting, (row, prediction) in rows.items():
      named = page.key(setting.rho, setting.kappa)
      found.setdefault(name, {})[named] = row
      mean = np.mean([row['valence'], row['arousal']]).round(3)
      print(f'{name:24} {named}', mean, row['seconds'], flush=True)
      if name in ('visual', 'audio'):
        single.setdefault(setting, []).append(prediction)
  for setting, pair in single.items():
    truth = running.cut(running.labels(worlds[setting], 'test'), 0, running.LENGTH)
    named = page.key(setting.rho, setting.kappa)
    found.setdefault('mean of both', {})[named] = running.measure(sum(pair) / 2, truth)
  settings = [dataclasses.asdict(setting) for setting in SETTINGS]
  write(page.FIGURES, {'seeds': [*SEEDS], 'settings': settings, 'entries': found, **about(begin)})


def show():
  """Writes the page and its figure."""
  page.write()
  picture.draw()


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.disagreement',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  steps = {'tune': tune, 'test': test, 'page': show}
  parser.add_argument('step', choices=steps)
  steps[parser.parse_args().step]()


if __name__ == '__main__':
  errors.run_command(main)
