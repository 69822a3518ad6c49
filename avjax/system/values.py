"""Checks the values of a model's arrays, which a file from elsewhere may have changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from avjax.errors import InputError

INVALID = 'values that are not finite in float32, or a negative variance'


def is_valid(path: str, x: np.ndarray) -> bool:
  """Tells whether a float32 array has values that the leaf of our model at `path` can have."""
  return bool(np.isfinite(x).all() and not (path.endswith('/var') and (x < 0).any()))


def misfits(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
  """Lists what differs between the arrays of a file and the shapes that a model wants.

  Each array that it wants must be there, in the right shape, in float32 and with values that
  weights can have; there must be no others.
  """
  differs = []
  for name, shape in sorted(wanted.items()):
    found = list(arrays[name].shape) if name in arrays else 'missing'
    if found != list(shape):
      differs.append(f'{name} is {found}, not {list(shape)}')
  differs += [f'{name!r} is not in the model' for name in sorted(arrays.keys() - wanted.keys())]
  for name, x in sorted(arrays.items()):
    if x.dtype != np.float32:
      differs.append(f'{name} is {x.dtype}, not float32')
    elif not is_valid(name, x):
      differs.append(f'{name} has {INVALID}')
  return differs


def check_fit(where: str, arrays: Mapping[str, np.ndarray], shapes: dict) -> None:
  """Raises InputError unless arrays, {path: array}, are those of the model with these shapes.

  where: the file or folder that they come from. shapes: nested, as `System.shapes`.
  """
  flat: dict[str, Any] = traverse_util.flatten_dict(shapes, sep='/')
  wanted = {name: leaf.shape for name, leaf in flat.items()}
  differs = misfits(arrays, wanted)
  if differs:
    raise InputError(
      f'{where} does not hold the model of its config: {len(differs)} of {len(wanted)} arrays '
      f'differ ({"; ".join(differs[:2])}); get it again from those who made it'
    )


def check_outputs(where: str, output: Mapping[str, Any]) -> None:
  """Raises InputError where what a model predicts is not finite.

  output: {name: array}. where: the folder of the model.
  """
  wrong = [name for name, x in output.items() if not np.isfinite(x).all()]
  if wrong:
    raise InputError(
      f'{where} predicts values that are not finite ({", ".join(wrong)}): its weights are damaged; '
      'get it again from those who made it'
    )
