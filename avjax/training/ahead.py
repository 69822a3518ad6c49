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
from avjax.data.records import Layout, fields
from avjax.errors import InputError, one_line
from avjax.evaluation.frames import WindowPredictor
from avjax.system import System, sharding, steps
from avjax.training.optimizer import make_optimizer
from avjax.training.plan import make_stages


@dataclasses.dataclass(frozen=True)
class Chip:
  """Holds what a maker says of an accelerator.

  flops: bfloat16 FLOP/s. memory: bytes. bandwidth: bytes/s of the memory. network: bytes/s that it
  exchanges with its neighbours. of_host: chips that one host has.
  """

  flops: float
  memory: float
  bandwidth: float
  network: float
  of_host: int


# {kind of a device, as JAX calls it: Chip}, from the pages of Cloud TPU.
CHIPS = {
  'TPU v4': Chip(275e12, 32e9, 1228e9, 300e9, 4),
  'TPU v5 lite': Chip(197e12, 16e9, 819e9, 200e9, 4),
  'TPU v5': Chip(459e12, 95e9, 2765e9, 600e9, 4),
  'TPU v6 lite': Chip(918e12, 32e9, 1638e9, 400e9, 4),
}
TOPOLOGY = re.compile(r'(v4|v5e|v5p|v6e):(\d{1,3}x\d{1,3}(?:x\d{1,3})?)')
COLLECTIVES = 'all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute'
BYTES = {'pred': 1, 's8': 1, 'u8': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 's32': 4, 'u32': 4}


@dataclasses.dataclass
class Program:
  """Holds what a compiler says of a program, for each device.

  All but `seconds` and `replicated` are of one run of it.

  state: bytes of the arguments that stay, such as parameters and moments.
  inputs: bytes of the batch.
  temporary: bytes of memory while it runs.
  flops, accessed: FLOP, and bytes that are read and written.
  collectives: {kind: (how many, bytes)}.
  seconds: what compiling it took.
  replicated: whether all results but predictions are whole on every device.
  """

  state: float
  inputs: float
  temporary: float
  flops: float
  accessed: float
  collectives: dict[str, tuple[int, int]]
  seconds: float
  replicated: bool

  @property
  def memory(self) -> float:
    """Bytes that a device needs."""
    return self.state + self.inputs + self.temporary

  def step_seconds(self, chip: Chip, devices: int) -> float:
    """Returns the least seconds of a run of the program, by its roofline.

    Products at the full rate or memory at its full rate, whichever takes longer, and then the
    collectives, in a ring over the devices.
    """
    exchanged = sum(size for _, size in self.collectives.values())
    ring = 2 * (devices - 1) / devices * exchanged / chip.network
    return max(self.flops / chip.flops, self.accessed / chip.bandwidth) + ring


class DoesNotFit(Exception):
  """Reports that a program needs more memory than a device has."""


def tpu_devices(topology: str) -> list[Any]:
  """Returns the devices of a TPU slice that is described by words such as v5e:4x4.

  It needs libtpu, and no TPU. Raises InputError for other words.
  """
  found = TOPOLOGY.fullmatch(topology)
  if not found:
    raise InputError(
      f'--topology {one_line(topology)} is none that is known: give v4, v5e, v5p or v6e and the '
      'chips a side, such as v5e:4x4 or v5p:2x2x1'
    )
  # libtpu looks for a TPU, and asks a server about it, unless it is told all this.
  told = {
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'TPU_WORKER_ID': '0',
    'TPU_ACCELERATOR_TYPE': 'v5litepod-4',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'TPU_MIN_LOG_LEVEL': '3',
  }
  for name, value in told.items():
    os.environ.setdefault(name, value)
  kind, sides = found[1], [int(side) for side in found[2].split('x')]
  host = tuple(min(side, most) for side, most in zip([*sides, 1][:3], (2, 2, 1), strict=True))
  whole_chips = {'chip_config_name': 'megacore'} if kind in ('v4', 'v5p') else {}
  try:
    description = topologies.get_topology_desc(
      topology, platform='tpu', chips_per_host_bounds=host, **whole_chips
    )
  except Exception as error:  # JAX raises what its plugins raise
    raise InputError(
      f"--topology {topology} cannot be compiled for: {one_line(error)}; pip install 'avjax[tpu]' "
      'brings the compiler, and the sides are those of a slice that exists'
    ) from error
  return list(description.devices)


def programs(config: Config, mesh: Mesh, rows: int) -> Iterator[tuple[str, Any, Any]]:
  """Yields (name, jitted function, its arguments as shapes) of every program of a run.

  rows: log-mel rows of a record, at most.
  """
  system = System.from_config(config)
  whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ('data',)))

  def place(tree, layout):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree)

  batch = place(batch_shapes(system, sharding.padded_size(config.batch_size, mesh), rows), split)
  variables = place(system.shapes, whole)
  key = place(jax.eval_shape(lambda: jax.random.key(0)), whole)
  rate = jax.ShapeDtypeStruct((), np.float32, sharding=whole)
  stages = make_stages(config, steps.parameter_paths(system.shapes['params']))
  for i, stage in enumerate(stages):
    transform = make_optimizer(stage, config.optimizer)
    state = jax.eval_shape(lambda x, t=transform: steps.make_state(x, t), system.shapes)
    yield (
      f'stage {i + 1}',
      system.make_train_step(stage, transform),
      (place(state, whole), batch, key, rate),
    )
  evaluator = WindowPredictor(system, variables, mesh, config.batch_size)
  block = place(system.inputs.blank_block(*evaluator.block_shape), split)
  yield 'evaluation, towers', system.encode_step, (variables, block)
  features = jax.eval_shape(system.encode, system.shapes, system.inputs.blank_block(1, 1))
  windows = [
    x
    and jax.ShapeDtypeStruct(
      (evaluator.batch_size, system.inputs.length, x.shape[-1]), x.dtype, sharding=split
    )
    for x in features
  ]
  mask = jax.ShapeDtypeStruct((evaluator.batch_size, system.inputs.length), bool, sharding=split)
  yield 'evaluation, windows', system.decode_step, (variables, *windows, mask)


def record_bytes(config: Config, rows: int) -> int:
  """Returns the bytes of a record with so many log-mel rows."""
  layout = Layout(config.data.length, config.data.stride, config.data.face)
  return sum(
    math.prod(rows if size is None else size for size in shape) * np.dtype(dtype).itemsize
    for shape, dtype in fields(layout).values()
  )


def batch_shapes(system: System, clips: int, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of what `System.select` returns for so many records."""
  length, sizes = system.inputs.length, {'clips': clips, 'rows': rows}
  shapes = {
    name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype)
    for name, (shape, dtype, _) in system.inputs.specs().items()
  }
  labels = jax.ShapeDtypeStruct((clips, length, len(system.targets)), np.float32)
  return shapes | {'labels': labels, 'annotated': jax.ShapeDtypeStruct((clips, length), bool)}


def compile_program(function, arguments) -> Program:
  """Compiles a jitted function for the devices of its arguments, which are shapes.

  Raises DoesNotFit where their memory is too small.
  """
  begin = time.perf_counter()
  try:
    compiled = function.lower(*arguments).compile()
  except jax.errors.JaxRuntimeError as error:
    used = re.search(r'Used [\d.]+\w of [\d.]+\w \w+', str(error))
    if not used:
      raise
    raise DoesNotFit(used[0]) from error
  seconds = time.perf_counter() - begin
  memory, work = compiled.memory_analysis(), compiled.cost_analysis()
  inputs = sum(bytes_of_a_device(x) for x in jax.tree.leaves(arguments[1:]))
  layouts = [x.spec for x in jax.tree.leaves(compiled.output_shardings)]
  return Program(
    state=memory.argument_size_in_bytes - inputs,
    inputs=inputs,
    temporary=memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
    flops=work['flops'],
    accessed=work['bytes accessed'],
    collectives=collectives(compiled.as_text()),
    seconds=seconds,
    replicated=all(layout == PartitionSpec() for layout in layouts),
  )


def bytes_of_a_device(x: jax.ShapeDtypeStruct) -> int:
  """Returns the bytes that one device has of an array."""
  if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
    return 8
  return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def collectives(text: str) -> dict[str, tuple[int, int]]:
  """Returns {kind: (how many, bytes)} of the collectives of a compiled program."""
  found: dict[str, tuple[int, int]] = {}
  pattern = rf'^\s*(?:ROOT )?%\S+ = (.*?) ({COLLECTIVES})(?:-start)?\('
  for shapes, kind in re.findall(pattern, text, re.MULTILINE):
    size = sum(
      BYTES.get(dtype, 4) * math.prod(int(n) for n in sides.split(',') if n)
      for dtype, sides in re.findall(r'\b([a-z]+\d*)\[([\d,]*)\]', shapes)
    )
    count, total = found.get(kind, (0, 0))
    found[kind] = count + 1, total + size
  return found
