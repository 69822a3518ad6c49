"""Turns the prediction of a system into a program of jax.export; makes inputs to try it with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax import export as jax_export

from avjax.data.records import WINDOW_ROWS
from avjax.system import System
from avjax.system.inputs import Inputs

PLATFORMS = ('cpu', 'cuda', 'tpu')


def export_program(system: System, variables: Any) -> jax_export.Exported:
  """Exports the prediction of a system as a program of (weights, *fields of `system.inputs`).

  weights is flat, {'params/visual/...': array}, as in the safetensors file. The numbers of windows
  (`clips`) and of log-mel rows are symbolic.
  """
  specs = system.inputs.specs()

  def predict(flat, *values):
    batch = dict(zip(specs, values, strict=True))
    return system.predict(traverse_util.unflatten_dict(flat, sep='/'), batch)

  sizes = ['clips', 'rows'] if 'log_mel' in specs else ['clips']
  bounds = [f'rows >= {WINDOW_ROWS}'] if 'log_mel' in specs else []
  symbols = jax_export.symbolic_shape(', '.join(sizes), constraints=bounds)
  symbols = dict(zip(sizes, symbols, strict=True))
  arguments = [
    jax.ShapeDtypeStruct([symbols.get(size, size) for size in shape], dtype)
    for shape, dtype, _ in specs.values()
  ]
  weights = jax.eval_shape(lambda: traverse_util.flatten_dict(variables, sep='/'))
  with nameless_sources():
    return jax_export.export(jax.jit(predict), platforms=PLATFORMS)(weights, *arguments)


@contextlib.contextmanager
def nameless_sources() -> Iterator[None]:
  """Keeps the paths of this machine's Python files out of a program.

  JAX records them with every operation.
  """
  settings = {
    'jax_traceback_in_locations_limit': 0,
    'jax_hlo_source_file_canonicalization_regex': '.*',
  }
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def example_shapes(inputs: Inputs, clips: int = 2) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns {field: shape and dtype} of what `example_inputs` makes."""
  sizes = {'clips': clips, 'rows': WINDOW_ROWS + inputs.length}
  return {
    name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype)
    for name, (shape, dtype, _) in inputs.specs().items()
  }


def example_inputs(inputs: Inputs, clips: int = 2) -> dict[str, np.ndarray]:
  """Returns inputs to try an exported model with: `clips` windows, the same on every machine."""
  rng, length, values = np.random.RandomState(0), inputs.length, {}
  for name, array in example_shapes(inputs, clips).items():
    if name == 'faces':
      value = rng.randint(0, 256, array.shape)
    elif name == 'starts':
      value = np.tile(np.arange(length), (clips, 1))
    elif name == 'real':
      lengths = np.array([[length], [max(length // 2, 1)]])[:clips]
      value = np.arange(length) < lengths
    else:
      value = rng.uniform(-4.6, 2, array.shape)
    values[name] = value.astype(array.dtype)
  return values
