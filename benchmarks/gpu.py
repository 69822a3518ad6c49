"""Times steps of full size on an accelerator: those of avjax, and PyTorch's beside them.

python -m benchmarks.gpu --output FOLDER [--seconds 480] [--only CASE ...] [--trace] [--small]

Each case is printed as it ends, and FOLDER/gpu.json, a run, holds those that have ended. It goes to
the end of `runs` in docs/gpu.json by hand, and from there into docs/performance.md (python -m
benchmarks.performance), which takes each case from the newest run that has it. The rest of that
file is kept by hand, too: `tflop`, the work of each kind of step, `tried` and `sketch`.

Data and weights are random and on the device before a step begins. It needs no TensorFlow, no clu
and no network; without PyTorch, its cases are left out. --small, for a dry run on a CPU, takes one
window of 8 frames.

A case of avjax that gpu.json has already is only compiled again, as at the second start of a
command. --trace adds the milliseconds of each part of the model, and compiles once more for it.

PyTorch's model has the same towers and TCNs, and a head of two layers in place of the fusion, which
is a hundredth of the work.
"""

import argparse
import contextlib
import gc
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import statistics
import time
from unittest import mock

# Two programs share the memory of the card, and neither may take all of it at its start.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax

from avjax import errors
from avjax.system import System, start
from benchmarks import folded, performance, trace
from benchmarks.batches import random_batch, training_step
from configs import audio, grjca, visual

REPEATS = 8  # steps of a case after the first, each waited for
LAST = 40  # seconds that must be left for a case to begin; most are for its compilation
# In the order of their worth, if time runs out. Training cases end in their stage; `visual` and
# `audio` are one tower each, and `folded` is the visual one with its norms in its convolutions.
# `tensorfloat32` has bfloat16 towers, and products of ten bits behind them.
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
  'avjax tensorfloat32 train 1',
  'torch eager train 3',
  'avjax bfloat16 visual',
  'avjax bfloat16 folded',
  'avjax bfloat16 audio',
  'avjax float32 train 3',
  'avjax float32 predict',
)

SYSTEMS = {'visual': visual, 'folded': visual, 'audio': audio}  # of cases that are not GRJCA


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


def lower(config, clips, way, what):
  """Returns (a lowered program of avjax, a function that runs what it is compiled to once).

  way: one of 'bfloat16', 'float32' and 'tensorfloat32'. what: 'train' and a stage from 1, or one of
  the other cases.
  """
  config.precision.towers = 'float32' if way == 'float32' else 'bfloat16'
  system = System.from_config(config)
  # The model asks for 'highest' behind its towers.
  default = mock.patch('jax.default_matmul_precision', lambda _: contextlib.nullcontext())
  with default if way == 'tensorfloat32' else contextlib.nullcontext():
    if what[0] == 'train':
      return training_step(system, config, int(what[1]), clips)
    batch, variables = random_batch(config, clips), system.init(0)
    fields = jax.device_put({name: batch[name] for name in system.inputs.fields})
    forward = {'predict': system.predict, 'folded': folded.forward(system)}
    lowered = jax.jit(forward.get(what[0], system.encode)).lower(variables, fields)
  return lowered, lambda program: program(variables, fields)


def avjax_case(config, clips, way, what, trace_too):
  """Times a step of avjax; way and what: as in `lower`."""
  lowered, run = lower(config, clips, way, what)
  begin = time.perf_counter()
  program = lowered.compile()
  compiled = time.perf_counter() - begin
  _, median, least = timed(lambda: run(program), jax.block_until_ready)
  memory = program.memory_analysis()
  return {
    'first_s': compiled,
    'median_ms': median,
    'min_ms': least,
    'temporary_gib': memory.temp_size_in_bytes / 2**30 if memory else float('nan'),
    **({'parts_ms': parts(lowered, run)} if trace_too else {}),
  }


def parts(lowered, run):
  """Returns the milliseconds of each part of the model in a step.

  XLA gives a GPU many small operations as one graph, which a trace does not look into, so another
  program is traced, without graphs.
  """
  options = {'xla_gpu_enable_command_buffer': ''} if jax.default_backend() == 'gpu' else None
  program = lowered.compile(options)
  jax.block_until_ready(run(program))
  return trace.milliseconds(program, lambda: jax.block_until_ready(run(program)))


def torch_case(config, clips, way, what):
  """Times a step of PyTorch in one of the ways of `torch_peer.make_step`."""
  import torch

  from benchmarks import torch_peer

  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  step = torch_peer.make_step(config, clips, device, way, what)

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


def torch_version():
  """Returns PyTorch's version, or None where there is none."""
  return importlib.metadata.version('torch') if importlib.util.find_spec('torch') else None


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
  parser.add_argument('--trace', action='store_true')
  parser.add_argument('--small', action='store_true')
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  end = time.perf_counter() + arguments.seconds
  start.start()
  clips = 1 if arguments.small else arguments.clips
  path = arguments.output / 'gpu.json'
  found = {
    'device': jax.devices()[0].device_kind,
    'jax': jax.__version__,
    'torch': torch_version(),
    'clips': clips,
    'small': arguments.small,
    'cases': {},
  }
  if path.exists():
    found = json.loads(path.read_text())
  elif not arguments.small:
    found['bfloat16_tflops'] = product_rate()
  for case in arguments.only:
    program, way, *what = case.split()
    if time.perf_counter() > end - LAST:
      print(f'no time is left for {case}', flush=True)
      continue
    config = SYSTEMS.get(what[0], grjca).get_config()
    config.data.length = 8 if arguments.small else config.data.length
    known = found['cases'].get(case)
    if known and program == 'avjax':
      lowered, _ = lower(config, clips, way, what)
      begin = time.perf_counter()
      lowered.compile()
      row = {**known, 'second_s': time.perf_counter() - begin}
    else:
      try:
        if program == 'avjax':
          row = avjax_case(config, clips, way, what, arguments.trace)
        else:
          row = torch_case(config, clips, way, what)
      except (ModuleNotFoundError, RuntimeError) as error:  # no PyTorch, or not enough memory
        print(f'{case}: {errors.one_line(error)[:200]}', flush=True)
        continue
    row = performance.rounded({name: value for name, value in row.items() if value == value})
    print(f'{case:28s}', *(f'{name} {value}' for name, value in row.items()), flush=True)
    found['cases'][case] = row
    path.write_text(json.dumps(found, indent=1) + '\n')
    jax.clear_caches()
    gc.collect()


if __name__ == '__main__':
  errors.run_command(main)
