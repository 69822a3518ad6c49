"""Measures what it takes to save a run of full size; writes docs/saving.json and a block of a page.

python -m benchmarks.saving --output FOLDER

Saves the state of the last stage of configs/grjca.py and its best variables three times in FOLDER,
as a run does after an epoch that has improved. It takes half a minute on an idle machine, and 4 GB
of FOLDER, which it removes.
"""

import argparse
import contextlib
import functools
import json
import math
import os
import pathlib
import shutil
import statistics
import time

import jax
import numpy as np

from avjax import errors
from avjax.command_line import load_config
from avjax.runs.checkpoint import Checkpoints
from avjax.system import System, steps
from avjax.training import plan
from avjax.training.optimizer import make_optimizer
from benchmarks import performance
from benchmarks.pages import fill

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE, FIGURES = DOCS / 'training.md', DOCS / 'saving.json'


def full_state():
  """Returns a State of the last stage of full size, with random numbers that do not compress."""
  config, rng = load_config(['--config=configs/grjca.py']), np.random.default_rng(0)
  shapes = System.from_config(config).shapes
  stage = plan.make_stages(config, steps.parameter_paths(shapes['params']))[-1]
  optimizer = make_optimizer(stage, config.optimizer)
  state = jax.eval_shape(lambda x: steps.make_state(x, optimizer), shapes)
  return jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32).astype(x.dtype), state)


def seconds_of(save):
  """Returns the seconds that a function takes: (by the clock, of the processors)."""
  begin, before = time.perf_counter(), time.process_time()
  save()
  return time.perf_counter() - begin, time.process_time() - before


def measure(folder):
  """Returns what docs/saving.json holds; the epochs are those of the committed figures of steps."""
  state = full_state()
  kinds, clock, busy = {'best': state.variables, 'last': state}, [], []
  with contextlib.closing(Checkpoints(folder)) as checkpoints:
    for number in range(1, 4):
      times = [
        seconds_of(
          functools.partial(checkpoints.save, getattr(checkpoints, kind), number, tree, {})
        )
        for kind, tree in kinds.items()
      ]
      clock.append(sum(seconds for seconds, _ in times))
      busy.append(sum(seconds for _, seconds in times))
      print(f'{clock[-1]:.1f} s, of processors {busy[-1]:.1f} s', flush=True)
  gpu, scale = (json.loads((DOCS / name).read_text()) for name in ('gpu.json', 'scale.json'))
  step = performance.newest_cases(gpu)['avjax bfloat16 train 3']['median_ms']
  chips = scale['grjca v5e:4x4 12x']
  last = chips['programs']['stage 3']
  records = chips['records']['training']
  return {
    'bytes': {kind: sum(x.nbytes for x in jax.tree.leaves(tree)) for kind, tree in kinds.items()},
    'seconds': round(statistics.median(clock), 1),
    'processor_seconds': round(statistics.median(busy), 1),
    'load': round(os.getloadavg()[0], 1),
    'cores': os.cpu_count(),
    'epoch_seconds': {
      'one GPU': round(math.ceil(records / 12) * step / 1e3, 1),
      '16 chips of a v5e': round(last['runs'] * last['seconds'], 1),
    },
  }


def block(found):
  """Formats what a save is, in Markdown."""
  size = {kind: f'{count / 1e9:.2f} GB' for kind, count in found['bytes'].items()}
  busy = found['processor_seconds']
  epochs = ' and '.join(
    f'{busy / seconds:.0%} of the {seconds:.0f} s of an epoch on {where}'
    for where, seconds in found['epoch_seconds'].items()
  )
  return (
    f'In full size the state of the last stage has {size["last"]}, the best variables have '
    f'{size["best"]}. Checksums and writing of both keep a processor busy for {busy:.0f} s, '
    f'{epochs}; a slow disk adds to that.'
  )


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.saving', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  folder = parser.parse_args().output / 'saving'
  try:
    found = measure(folder)
  finally:
    shutil.rmtree(folder, ignore_errors=True)
  FIGURES.write_text(json.dumps(found, indent=1) + '\n')
  PAGE.write_text(fill(PAGE.read_text(), 'saving', block(found)))


if __name__ == '__main__':
  errors.run_command(main)
