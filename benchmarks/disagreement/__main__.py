"""Asks whether gating helps when face and voice disagree, on features whose truth is known.

python -m benchmarks.disagreement tune     chooses rates on validation clips, and writes
                                           docs/disagreement_tuning.json
python -m benchmarks.disagreement test     trains and tests everything with these rates, and writes
                                           docs/disagreement.json
python -m benchmarks.disagreement page     writes docs/evidence.md and its figure from both

systems.py registers what is compared. It and the rates are committed before the test is opened.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import platform
import time

import jax
import numpy as np

from avjax import errors
from avjax.errors import InputError
from avjax.system import start
from benchmarks.disagreement import page, running
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


def tune():
  """Tunes every entry at MIDDLE."""
  begin, found = time.perf_counter(), {}
  worlds = running.make_worlds([(MIDDLE, TUNING_SEEDS)])
  for name, entry in ENTRIES.items():
    found[name] = running.Runner(entry).tune(worlds)
    print(f'{name:24}', found[name], flush=True)
    jax.clear_caches()
    write(page.TUNING, {'seeds': [*TUNING_SEEDS], 'entries': found, **about(begin)})


def test():
  """Tests every entry; raises InputError unless all of them have been tuned."""
  begin = time.perf_counter()
  tuned = json.loads(page.TUNING.read_text())['entries']
  for name in ENTRIES:
    if name not in tuned:
      raise InputError(f'{page.TUNING} lacks {name}: run python -m benchmarks.disagreement tune')
  worlds = running.make_worlds([(setting, SEEDS) for setting in SETTINGS])
  print(f'worlds {time.perf_counter() - begin:.0f} s', flush=True)
  found, single = {}, {}
  for name, entry in ENTRIES.items():
    rate, factor, _ = page.best_trial(tuned[name])
    runner = running.Runner(entry)
    for setting in SETTINGS if entry.everywhere else (MIDDLE,):
      named = page.key(setting.rho, setting.kappa)
      row, prediction = runner.test(worlds[setting], (rate, factor))
      found.setdefault(name, {})[named] = row
      print(
        f'{name:24} {named}',
        np.mean([row['valence'], row['arousal']]).round(3),
        row['seconds'],
        flush=True,
      )
      if name in ('visual', 'audio'):
        single.setdefault(setting, []).append(prediction)
    jax.clear_caches()
  for setting, pair in single.items():
    truth = running.cut(running.labels(worlds[setting], 'test'), 0, running.LENGTH)
    named = page.key(setting.rho, setting.kappa)
    found.setdefault('mean of both', {})[named] = running.measure(sum(pair) / 2, truth)
  settings = [dataclasses.asdict(setting) for setting in SETTINGS]
  write(page.FIGURES, {'seeds': [*SEEDS], 'settings': settings, 'entries': found, **about(begin)})


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.disagreement',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  steps = {'tune': tune, 'test': test, 'page': page.write}
  parser.add_argument('step', choices=steps)
  step = parser.parse_args().step
  start.start()
  steps[step]()


if __name__ == '__main__':
  errors.run_command(main)
