"""Times steps of full size on an accelerator: those of avjax, and PyTorch's beside them.

python -m benchmarks.gpu --output FOLDER [--seconds 480] [--only CASE ...] [--small]

Each case is printed as it ends, and FOLDER/gpu.json holds those that have ended. Data and weights
are random and on the device before a step begins. It needs no TensorFlow, no clu and no network;
without PyTorch, its cases are left out. --small, for a dry run on a CPU, takes one window of 8
frames.

PyTorch's model has the same towers and TCNs, and a head of two layers in place of the fusion, which
is a hundredth of the work.
"""

import argparse
import gc
import json
import os
import pathlib
import statistics
import time

# Two programs share the memory of the card, and neither may take all of it at its start.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import numpy as np

from avjax import errors
from avjax.system import System, compilation, start, steps
from avjax.training import optimizer
from avjax.training.plan import make_stages
from configs import grjca

RATE, ROWS_PER_FRAME = 1e-5, 100 / 30
REPEATS = 8  # steps of a case after the first, each waited for
LAST = 40  # seconds that must be left for a case to begin
# In the order of their worth, if time runs out. Training cases end in their stage.
CASES = (
  'avjax bfloat16 train 3',
  'torch compiled train 3',
  'avjax bfloat16 train 1',
  'torch compiled train 1',
  'avjax bfloat16 predict',
  'torch compiled predict',
  'torch predecessors train 3',
  'avjax bfloat16 train 2',
  'torch compiled train 2',
  'avjax float32 train 3',
  'avjax float32 predict',
)


def random_batch(config, clips):
  """Returns a batch of records with random content, as `System.select` takes it."""
  rng, length, face = np.random.default_rng(0), config.data.length, config.data.face
  rows = int(length * ROWS_PER_FRAME) + 100
  starts = np.floor(np.arange(length) * ROWS_PER_FRAME).astype(np.int32)
  return {
    'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
    'log_mel': rng.normal(-3, 2, (clips, rows, 64)).astype(np.float16),
    'starts': np.tile(starts, (clips, 1)),
    'real': np.ones((clips, length), bool),
    'va': rng.uniform(-1, 1, (clips, length, 2)).astype(np.float32),
    'annotated': np.ones((clips, length), bool),
  }


def timed(step, wait):
  """Returns (seconds of the first step, median and least milliseconds of the next)."""
  begin = time.perf_counter()
  wait(step())
  first, found = time.perf_counter() - begin, []
  for _ in range(REPEATS):
    begin = time.perf_counter()
    wait(step())
    found.append(1e3 * (time.perf_counter() - begin))
  return first, statistics.median(found), min(found)


def avjax_case(config, clips, towers, what):
  """Times a step of avjax; what: 'predict', or 'train' and a stage from 1."""
  config.precision.towers = towers
  system = System.from_config(config)
  batch = jax.device_put(system.select(random_batch(config, clips)))
  variables = system.init(0)
  if what[0] == 'predict':
    fields = {name: batch[name] for name in system.inputs.fields}
    lowered = compilation.jit(system.predict).lower(variables, fields)

    def step():
      return program(variables, fields)
  else:
    stages = make_stages(config, steps.parameter_paths(variables['params']))
    chosen = stages[int(what[1]) - 1]
    transform = optimizer.make_optimizer(chosen, config.optimizer)
    state = [steps.make_state(variables, transform)]
    del variables  # the state is donated
    rest = batch, jax.random.key(0), jax.device_put(np.float32(RATE))
    lowered = system.make_train_step(chosen, transform).lower(state[0], *rest)

    def step():
      state[0], metrics = program(state[0], *rest)
      return metrics

  begin = time.perf_counter()
  program = lowered.compile()
  compiled = time.perf_counter() - begin
  _, median, least = timed(step, jax.block_until_ready)
  memory = program.memory_analysis()
  # {} or None where the compiler does not count.
  work = (program.cost_analysis() or {}).get('flops', float('nan'))
  return {
    'first_s': compiled,
    'median_ms': median,
    'min_ms': least,
    'temporary_gib': memory.temp_size_in_bytes / 2**30 if memory else float('nan'),
    'tflop': work / 1e12,
  }


def torch_case(config, clips, way, what):
  """Times a step of PyTorch, tuned ('compiled') or in the predecessors' way ('predecessors')."""
  import torch

  from benchmarks import torch_peer

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  step = torch_peer.make_step(config, clips, device, way == 'compiled', what)

  def wait(_):
    if device == 'cuda':
      torch.cuda.synchronize()

  if device == 'cuda':
    torch.cuda.reset_peak_memory_stats()
  first, median, least = timed(step, wait)
  peak = torch.cuda.max_memory_allocated() / 2**30 if device == 'cuda' else float('nan')
  found = {'first_s': first, 'median_ms': median, 'min_ms': least, 'peak_gib': peak}
  del step
  torch._dynamo.reset()
  if device == 'cuda':
    torch.cuda.empty_cache()
  return found


def product_rate():
  """Returns the TFLOP/s of a bfloat16 product of two 8192 x 8192 matrices."""
  side = 8192
  a = jax.random.normal(jax.random.key(1), (side, side), jax.numpy.bfloat16)
  _, _, least = timed(lambda: product(a), jax.block_until_ready)
  return 2 * side**3 / least / 1e9


@jax.jit
def product(a):
  return a @ a


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.gpu', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  parser.add_argument('--seconds', type=float, default=480)
  parser.add_argument('--clips', type=int, default=12)
  parser.add_argument('--only', nargs='+', choices=CASES, default=CASES)
  parser.add_argument('--small', action='store_true')
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  end = time.perf_counter() + arguments.seconds
  start.start()
  clips = 1 if arguments.small else arguments.clips
  found = {
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'clips': clips,
    'small': arguments.small,
    'cases': {},
  }
  if not arguments.small:
    found['bfloat16_tflops'] = product_rate()
  for case in arguments.only:
    program, way, *what = case.split()
    if time.perf_counter() > end - LAST:
      print(f'no time is left for {case}', flush=True)
      continue
    config = grjca.get_config()
    config.data.length = 8 if arguments.small else config.data.length
    run = avjax_case if program == 'avjax' else torch_case
    try:
      row = run(config, clips, way, what)
    except (ModuleNotFoundError, RuntimeError) as error:  # no PyTorch, or not enough memory
      print(f'{case}: {errors.one_line(error)[:200]}', flush=True)
      continue
    row = {name: round(value, 3) for name, value in row.items() if value == value}
    print(f'{case:28s}', *(f'{name} {value}' for name, value in row.items()), flush=True)
    found['cases'][case] = row
    (arguments.output / 'gpu.json').write_text(json.dumps(found, indent=1) + '\n')
    jax.clear_caches()
    gc.collect()


if __name__ == '__main__':
  errors.run_command(main)
