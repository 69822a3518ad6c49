"""Compiles the programs of a run for devices that need not be there, and says what they take."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avjax.config import Config
from avjax.errors import InputError, one_line
from avjax.evaluation.frames import WindowPredictor
from avjax.models.audio_visual import FEATURES
from avjax.system import System, sharding, steps
from avjax.training.optimizer import make_optimizer
from avjax.training.plan import make_stages


@dataclasses.dataclass(frozen=True)
class Rates:
  """Holds the best that the maker of an accelerator promises.

  memory: bytes that it has.
  bandwidth: bytes/s from and to them.
  float32, bfloat16: FLOP/s of products of these types at JAX's default precision, which is one pass
    of bfloat16 for both on a TPU, and TF32 for float32 on a GPU.
  network: bytes/s that it sends to others while all of them add up an array.
  """

  memory: float
  bandwidth: float
  float32: float
  bfloat16: float
  network: float


# {kind of a device, as JAX calls it: Rates}, from the pages of Cloud TPU
# (docs.cloud.google.com/tpu/docs/v4, v5e, v5p, v6e) and NVIDIA's data sheets. `network` is the
# all-reduce bandwidth of a pod by its chips, or half of what a v5p or a GPU exchanges both ways.
KINDS = {
  'TPU v4': Rates(32e9, 1200e9, 275e12, 275e12, 270e9),
  'TPU v5 lite': Rates(16e9, 819e9, 197e12, 197e12, 200e9),
  'TPU v5': Rates(95e9, 2765e9, 459e12, 459e12, 600e9),
  'TPU v6 lite': Rates(32e9, 1640e9, 918e12, 918e12, 400e9),
  'NVIDIA H100 80GB HBM3': Rates(80e9, 3350e9, 494e12, 989e12, 450e9),
  'NVIDIA H200': Rates(141e9, 4800e9, 494e12, 989e12, 450e9),
}
# The largest slices of v5e and v6e have 256 chips on a plane, those of v4 and v5p thousands.
TOPOLOGY = re.compile(r'(v5e|v6e):([1-9]\d?x[1-9]\d?)|(v4|v5p):([1-9]\d?x[1-9]\d?x[1-9]\d?)')
MOST_OF_A_PLANE = 256
# What libtpu is told: it is not to look for a TPU, nor to ask a server about it.
NO_TPU = {
  'TPU_SKIP_MDS_QUERY': '1',
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
  'TPU_MIN_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
}
COLLECTIVES = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'


@dataclasses.dataclass(frozen=True)
class Devices:
  """Describes the devices of a run.

  kind: what JAX calls them.
  count: how many there are.
  hosts: how many machines they are in.
  memory: bytes that each has.
  """

  kind: str
  count: int
  hosts: int
  memory: float

  @property
  def rates(self) -> Rates | None:
    """The Rates of each, where they are known."""
    return KINDS.get(self.kind)


def describe(mesh: Mesh) -> Devices:
  """Describes the devices of a mesh, which may be of `tpu_slice`."""
  devices = list(mesh.devices.flat)
  kind = devices[0].device_kind
  limits = devices[0].memory_stats() if devices[0] in jax.devices() else None
  if limits:
    memory = limits['bytes_limit']
  elif kind in KINDS:
    memory = KINDS[kind].memory
  else:  # processors share the memory of their machine
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / jax.local_device_count()
  hosts = len({device.process_index for device in devices})
  return Devices(kind, len(devices), hosts, memory)


def tpu_slice(topology: str) -> Mesh:
  """Returns the devices of a TPU slice that a word such as v5e:4x4 names.

  It needs libtpu, and no TPU. Raises InputError without libtpu, or for what is not a slice.
  """
  found = TOPOLOGY.fullmatch(topology)
  sides = [int(side) for side in (found[2] or found[4]).split('x')] if found else []
  if not found or (found[1] and math.prod(sides) > MOST_OF_A_PLANE):
    raise InputError(
      f'--topology {one_line(topology)} is none that is known: it is v5e or v6e with two sides, '
      'such as v5e:4x4, of at most 256 chips, or v4 or v5p with three, such as v5p:2x2x1'
    )
  for name, value in NO_TPU.items():
    os.environ.setdefault(name, value)
  # A host has four chips; a device of v4 is a whole chip, as it is by default on the others.
  host = [min(side, most) for side, most in zip([*sides, 1][:3], (2, 2, 1), strict=True)]
  whole = {'chip_config_name': 'megacore'} if found[3] else {}
  try:
    description = topologies.get_topology_desc(
      topology, platform='tpu', chips_per_host_bounds=host, **whole
    )
  except Exception as error:  # JAX raises what its plugins raise
    if 'not installed' in str(error):
      raise InputError(
        "--topology needs the compiler for TPUs: pip install 'avjax[tpu]'"
      ) from error
    raise InputError(f'--topology {topology} is no slice: {one_line(error)}') from error
  return sharding.make_mesh(description.devices)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Holds the sizes of the records of a run.

  training, validation: how many records there are.
  rows: log-mel rows of a record, at most.
  record: bytes of a record.
  """

  training: int
  validation: int
  rows: int
  record: int


@dataclasses.dataclass(frozen=True)
class Job:
  """Holds a program that a run needs.

  function: jitted.
  arguments: what it is called with, as jax.ShapeDtypeStruct with their places, so that it is the
    program that a run compiles. The first is whole on every device: a state, or variables.
  runs: how often an epoch runs it.
  trains: whether it is a training step.
  """

  name: str
  function: Any
  arguments: tuple[Any, ...]
  runs: int = 0
  trains: bool = False

  @property
  def state(self) -> int:
    """Bytes of the first argument, which do not grow with the batch."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(self.arguments[0]))


def jobs(config: Config, mesh: Mesh, sizes: Sizes, film_block: int) -> Iterator[Job]:
  """Yields every program of training, validation and the prediction of a film, as Job.

  Args:
    config: of the run.
    mesh: the devices of training. Validation has those of one of their hosts, as each host does,
      and a film the first of them.
    sizes: of its records.
    film_block: frames of a film that go through the towers at once.
  """
  system = System.from_config(config)
  whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('data',)))
  clips = sharding.padded_size(config.batch_size, mesh)
  batch = put(batch_shapes(system, clips, sizes.rows), split)
  key = jax.eval_shape(lambda: jax.random.key(0))  # may be anywhere, as in a run
  rate = jax.ShapeDtypeStruct((), np.float32, sharding=whole)
  stages = make_stages(config, steps.parameter_paths(system.shapes['params']))
  for number, stage in enumerate(stages, 1):
    optimizer = make_optimizer(stage, config.optimizer)
    state = jax.eval_shape(lambda x, y=optimizer: steps.make_state(x, y), system.shapes)
    yield Job(
      f'stage {number}',
      system.make_train_step(stage, optimizer),
      (put(state, whole), batch, key, rate),
      math.ceil(sizes.training / config.batch_size),
      trains=True,
    )
  devices = list(mesh.devices.flat)
  host = [device for device in devices if device.process_index == devices[0].process_index]
  own, hosts = sharding.make_mesh(host), len(devices) // len(host)
  block = WindowPredictor(system, None, own, clips // hosts).block_shape
  frames, windows = sizes.validation * config.data.stride, sizes.validation
  counts = math.ceil(frames / (math.prod(block) * hosts)), math.ceil(windows / clips)
  yield from prediction_jobs('evaluation', system, own, block, clips // hosts, counts)
  if not any(name.startswith(FEATURES) for name in system.inputs.fields):
    first = sharding.make_mesh(devices[:1])
    yield from prediction_jobs('film', system, first, (1, film_block), 1, (0, 0))


def prediction_jobs(name, system: System, mesh: Mesh, block, windows: int, runs) -> Iterator[Job]:
  """Yields the towers for a block (rows, frames), and what is behind them for so many windows."""
  whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('data',)))
  variables = put(system.shapes, whole)
  frames = system.inputs.blank_block(*block)
  yield Job(f'{name}, towers', system.encode_step, (variables, put(frames, split)), runs[0])

  def of_windows(x):
    return jax.ShapeDtypeStruct((windows, system.inputs.length, *x.shape[2:]), x.dtype)

  features = jax.eval_shape(system.encode, system.shapes, frames)
  inputs = jax.tree.map(of_windows, (*features, frames['real']))
  arguments = variables, *put(inputs, split)
  yield Job(f'{name}, windows', system.decode_step, arguments, runs[1])


def put(tree, place: NamedSharding):
  """Returns the shapes and types of arrays, at this place."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)


def batch_shapes(system: System, clips: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of what `System.select` returns for so many records."""
  length, sizes = system.inputs.length, {'clips': clips, 'rows': rows}
  shapes = {
    name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype)
    for name, (shape, dtype, _) in system.inputs.specs().items()
  }
  labels = jax.ShapeDtypeStruct((clips, length, len(system.targets)), np.float32)
  return {**shapes, 'labels': labels, 'annotated': jax.ShapeDtypeStruct((clips, length), np.bool_)}


def measure(job: Job, devices: Devices, precision: str) -> dict[str, Any]:
  """Compiles a program; returns what the compiler says of one run of it on each device.

  precision: 'float32' or 'bfloat16', of the towers, which have nearly all products.

  Returns:
    state, memory: bytes of its first argument, of which it may use only a part, and of all that it
      needs.
    runs, trains: as of the Job.
    fits: whether it fits in the memory of a device. Where the compiler finds that it does not,
      nothing else is known.
    flops, accessed: FLOP, and bytes that are read and written.
    collectives: {kind: (how many, bytes)}.
    seconds: what `roofline` returns; None where the rates of the devices are not known.
    compile_seconds: what compiling took.
    replicated: whether all that it returns is whole on every device.
  """
  begin = time.perf_counter()
  row: dict[str, Any] = {'state': job.state, 'runs': job.runs, 'trains': job.trains}
  try:
    compiled = job.function.lower(*job.arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    memory = needed(str(error), job.state)
    if memory is None:
      raise
    return {**row, 'memory': memory, 'fits': False}
  compile_seconds = time.perf_counter() - begin
  used, work = compiled.memory_analysis(), compiled.cost_analysis()
  memory = (
    used.argument_size_in_bytes
    + used.output_size_in_bytes
    - used.alias_size_in_bytes
    + used.temp_size_in_bytes
  )
  layouts = jax.tree.leaves(compiled.output_shardings)
  row |= {
    'memory': memory,
    'fits': memory <= devices.memory,
    'flops': work['flops'],
    'accessed': work['bytes accessed'],
    'collectives': collectives(compiled.as_text()),
  }
  return {
    **row,
    'seconds': roofline(row, devices, precision),
    'compile_seconds': compile_seconds,
    'replicated': all(layout.is_fully_replicated for layout in layouts),
  }


def needed(message: str, state: int) -> float | None:
  """Returns the bytes that a program would need, by a compiler's message that it has too few.

  state: of the program, which a message about its temporary arrays leaves out. None for a message
  about something else.
  """
  found = re.search(r'Used ([\d.]+)([KMGT]) of [\d.]+[KMGT] hbm', message)
  beside = 0
  if not found:
    found = re.search(r'temporaries \(([\d.]+)([KMGT])\) exceeds', message)
    beside = state
  return found and float(found[1]) * 2 ** {'K': 10, 'M': 20, 'G': 30, 'T': 40}[found[2]] + beside


def collectives(text: str) -> dict[str, tuple[int, int]]:
  """Returns {kind: (how many, bytes)} of the collectives in the text of a compiled program."""
  found: dict[str, tuple[int, int]] = {}
  pattern = rf'^\s*(?:ROOT )?%\S+ = (.*?) ({COLLECTIVES})(?:-start)?\('
  for shapes, kind in re.findall(pattern, text, re.MULTILINE):
    size = sum(  # f32[64,3]{1,0:T(8,128)} has 32 bits a number; pred, the only type without, has 8
      int(bits or 8) // 8 * math.prod(int(side) for side in sides.split(',') if side)
      for bits, sides in re.findall(r'\b[a-z]+(\d*)\[([\d,]*)\]', shapes)
    )
    count, total = found.get(kind, (0, 0))
    found[kind] = count + 1, total + size
  return found


def roofline(row: dict[str, Any], devices: Devices, precision: str) -> float | None:
  """Returns the seconds of one run of a compiled program, at least; None if no rates are known.

  That is all its FLOP at the full rate of products, or all its bytes at the full rate of the
  memory, whichever takes longer, and then its collectives, in a ring over all devices, while
  nothing else is done.

  row: has the 'flops', 'accessed' and 'collectives' of `measure`. The rest is as there.
  """
  if not devices.rates:
    return None
  rates, count = devices.rates, devices.count
  exchanged = sum(size for _, size in row['collectives'].values())
  ring = 2 * (count - 1) / count * exchanged / rates.network
  return max(row['flops'] / getattr(rates, precision), row['accessed'] / rates.bandwidth) + ring
