"""Measures the speed of avjax on this machine's processor: `make bench`.

python -m benchmarks.bench --source AFFWILD2 --output FOLDER [--only PART ...]

It writes docs/performance.json, and docs/performance.md and its picture from it. What is compared
runs in turns, since the speed of a shared machine changes; the median of the turns counts. AFFWILD2
is what data_prep.mini has written. It takes about ten minutes on two idle cores. Where PyTorch is
not installed, it is left out.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import statistics
import time

import jax
import numpy as np

from avjax import errors
from avjax.inference.stream import BLOCK_FRAMES
from avjax.system import System, start
from benchmarks import folded, performance, predict, reading, trace
from benchmarks.batches import random_batch, training_step
from configs import audio, grjca, visual

ROOT = pathlib.Path(__file__).parents[1]
TURNS = 5
SIDE = 2048  # of the matrices whose product measures the processor
COPIED = 1 << 28  # bytes of the copy that measures the memory
STAGES = (1, 2, 3)
WAYS = ('eager', 'compiled')  # of PyTorch


def in_turns(runs, turns=TURNS):
  """Returns {name: median seconds} of functions that run in turns, each once before that."""
  found = {name: [] for name in runs}
  for turn in range(turns + 1):
    for name, run in runs.items():
      begin = time.perf_counter()
      run()
      if turn:
        found[name].append(time.perf_counter() - begin)
  return {name: statistics.median(seconds) for name, seconds in found.items()}


def machine():
  """Returns what the processor is, and how fast it multiplies matrices and copies memory."""
  a = jax.random.normal(jax.random.key(0), (SIDE, SIDE))
  product, block = jax.jit(lambda a: a @ a), np.zeros(COPIED // 4, np.float32)
  seconds = in_turns(
    {'product': lambda: jax.block_until_ready(product(a)), 'copy': lambda: block.copy()}
  )
  lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  return {
    'processor': next(line.split(': ')[1] for line in lines if line.startswith('model name')),
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'jax': jax.__version__,
    'gflops': 2 * SIDE**3 / seconds['product'] / 1e9,
    'gb_a_second': 2 * COPIED / seconds['copy'] / 1e9,  # read and written
  }


def programs():
  """Times the parts of a prediction of full size: each tower for a block of frames, and the rest.

  The visual tower is there a second time, with its norms in its convolutions.

  Returns {name: ms, gflop and mb of a call, as the compiler counts the last two}.
  """
  calls = {}  # {name: (function, its arguments)}
  for name, made in (('visual tower', visual), ('audio tower', audio)):
    config = made.get_config()
    config.data.length = BLOCK_FRAMES
    system = System.from_config(config)
    batch = random_batch(config, 1)
    arguments = system.init(0), {name: batch[name] for name in system.inputs.fields}
    calls[name] = system.encode, arguments
    if made is visual:
      calls['visual tower, norms folded'] = folded.forward(system), arguments
  system = System.from_config(grjca.get_config())
  length, settings = system.inputs.length, system.model.settings
  widths = settings['visual']['ir50']['features'], settings['audio']['features']
  rng = np.random.default_rng(0)
  windows = [rng.normal(size=(1, length, width)).astype(np.float32) for width in widths]
  arguments = system.init(0), *windows, np.ones((1, length), bool)
  calls['temporal part and fusion'] = system.decode, arguments
  compiled, runs = {}, {}
  for name, (function, arguments) in calls.items():
    program, arguments = jax.jit(function).lower(*arguments).compile(), jax.device_put(arguments)
    compiled[name] = program
    runs[name] = lambda program=program, rest=arguments: jax.block_until_ready(program(*rest))
  seconds = in_turns(runs)
  return {name: counted(program, seconds[name]) for name, program in compiled.items()}


def counted(program, seconds):
  """Returns milliseconds, GFLOP and MB of a program."""
  work = program.cost_analysis()
  return {
    'ms': 1e3 * seconds,
    'gflop': work['flops'] / 1e9,
    'mb': work['bytes accessed'] / 1e6,
  }


def training():
  """Times a step of the demo in each stage, beside PyTorch's.

  Returns {stage: {'avjax': what `counted` returns, and 'parts', where its time goes; way of
  PyTorch: ms}}.
  """
  config, found = grjca.get_config('mini'), {}
  system = System.from_config(config)
  for stage in STAGES:
    lowered, run_step = training_step(system, config, stage, config.batch_size)
    step = lowered.compile()

    def run(step=step, run_step=run_step):
      jax.block_until_ready(run_step(step))

    runs = {'avjax': run}
    if importlib.util.find_spec('torch'):
      from benchmarks import torch_peer

      what = ['train', str(stage)]
      runs |= {
        way: torch_peer.make_step(config, config.batch_size, 'cpu', way, what) for way in WAYS
      }
    seconds = in_turns(runs)
    row = {way: {'ms': 1e3 * seconds[way]} for way in runs}
    row['avjax'] = counted(step, seconds['avjax']) | {'parts': trace.milliseconds(step, run)}
    found[str(stage)] = row
    print(f'stage {stage}', row, flush=True)
  return found


def prediction(source, output):
  """Times the command of prediction with a model of full size, with each engine.

  Returns {engine: {'frames_a_second': of the whole command, 'stages': of each stage}}.
  """
  clip = min(path for path in (source / 'videos').rglob('*') if path.is_file())
  shutil.rmtree(output / 'out', ignore_errors=True)  # of a run that was cut off
  (output / 'out').mkdir()
  found = predict.measure_engines(clip, predict.full_size(output / 'full'), output / 'out')
  return {
    engine: {
      'frames_a_second': row['frames'] / row['wall_seconds'],
      'stages': row['frames_per_second'],
    }
    for engine, row in found.items()
  }


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.bench', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--source', required=True, type=pathlib.Path)
  parser.add_argument('--output', required=True, type=pathlib.Path)
  parts = ('machine', 'programs', 'training', 'reading', 'prediction')
  parser.add_argument('--only', nargs='+', choices=parts, default=parts)
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  start.start()
  measures = {
    'machine': machine,
    'programs': programs,
    'training': training,
    'reading': lambda: reading.measure(arguments.output / 'reading'),
    'prediction': lambda: prediction(arguments.source, arguments.output),
  }
  figures = performance.FIGURES
  found = json.loads(figures.read_text()) if figures.exists() else {}
  for part in arguments.only:
    found[part] = measures[part]()
    figures.write_text(json.dumps(performance.rounded(found), indent=1) + '\n')
    print(part, json.dumps(performance.rounded(found[part])), flush=True)
  performance.write()


if __name__ == '__main__':
  errors.run_command(main)
