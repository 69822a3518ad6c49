"""Fits the weights of a model to windows of another length, and to other targets.

Two parts of a model depend on these. The fusion may have weights that mix frames, L x L or with one
axis of L. Shorter windows use their leading block, so the leading block is what is kept. The head
has outputs for each target, and those of the targets that both models predict are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from avjax.targets import count_outputs, split_outputs

Arrays = dict[str, np.ndarray]

# Of a head: an array whose last axis has the outputs, and one of a layer that each output has for
# itself, such as params/head/hidden1/kernel.
OUTPUTS = re.compile(r'params/head/output\d*/\w+')
OF_ONE = re.compile(r'(\w+/head/[a-z]+)(\d+)(/\w+)')


def adapt(
  arrays: Arrays,
  wanted: Mapping[str, tuple[int, ...]],
  lengths: tuple[int, int],
  targets: tuple[Sequence[str], Sequence[str]],
) -> tuple[Arrays, list[str]]:
  """Fits the arrays of a model to the same model with another length and other targets.

  Args:
    arrays: {path: array} of the model that there is.
    wanted: {path: shape} of the model that is wanted.
    lengths, targets: of the first and of the second.

  Returns ({path: array}, lines that say which arrays are cut, extended or made anew). Where a part
  of an array is to be drawn, it is a np.ma.MaskedArray that masks this part; an array that is to be
  drawn as a whole is left out. `complete` puts in what is drawn.
  """
  places = kept_outputs(*targets)
  has_layer_for_each = any(name.startswith('params/head/output1/') for name in (*arrays, *wanted))
  found, over_time, kept, new = {}, [], [], []
  for name, shape in wanted.items():
    path, x = name.split('/', 1)[1], arrays.get(name)
    if not path.startswith('head/'):
      found[name] = leading_block(arrays[name], shape)
      over_time += [path] if found[name].shape != arrays[name].shape else []
      continue
    layer = OF_ONE.fullmatch(name) if has_layer_for_each else None
    if layer:
      x = arrays.get(f'{layer[1]}{places[int(layer[2])]}{layer[3]}')  # there is none of output -1
    elif x is not None and OUTPUTS.fullmatch(name):
      x = take_outputs(x, places)
    if x is None or x.shape != shape:
      new.append(path)
      continue
    found[name] = x
    if layer or OUTPUTS.fullmatch(name):
      kept.append(path)
      new += [path] if np.ma.isMaskedArray(x) else []
  return found, describe(lengths, targets, over_time, kept, new)


def kept_outputs(old: Sequence[str], new: Sequence[str]) -> list[int]:
  """Returns for each output of the new targets its place among those of the old ones, or -1."""
  split = split_outputs(old, np.arange(count_outputs(old)))
  places = {target.name: outputs.tolist() for target, outputs in split}
  return [
    place
    for target, outputs in split_outputs(new, np.full(count_outputs(new), -1))
    for place in places.get(target.name, outputs.tolist())
  ]


def leading_block(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  """Returns x cut to a shape, and masked beyond x where the shape is larger."""
  kept = tuple(map(slice, np.minimum(x.shape, shape)))
  if x[kept].shape == shape:
    return x[kept]
  found = np.ma.masked_all(shape, x.dtype)
  found[kept] = x[kept]
  return found


def take_outputs(x: np.ndarray, places: Sequence[int]) -> np.ndarray | None:
  """Returns the outputs at these places of the last axis of x, masked at -1; None if all are."""
  is_new = np.array(places) < 0
  if is_new.all():
    return None
  found = x[..., list(places)]
  return np.ma.MaskedArray(found, np.broadcast_to(is_new, found.shape)) if is_new.any() else found


def describe(
  lengths: tuple[int, int],
  targets: tuple[Sequence[str], Sequence[str]],
  over_time: list[str],
  kept: list[str],
  new: list[str],
) -> list[str]:
  """Returns what `adapt` did, in lines.

  lengths, targets: as `adapt` takes them. over_time: the paths of the arrays that are cut or
  extended; kept, new: those of the head's outputs that are kept, and that are made anew.
  """
  lines, (old_length, length), (old, wanted) = [], lengths, targets
  if over_time:
    how = 'the leading block of' if length < old_length else 'values beyond the old ones in'
    verb = 'is kept' if length < old_length else 'are drawn from the seed'
    lines.append(
      f'windows of {length} frames, not {old_length}: {how} {", ".join(over_time)} {verb}'
    )
  if tuple(old) != tuple(wanted):
    same, fresh = ([name for name in wanted if (name in old) == both] for both in (True, False))
    parts = [
      f'{", ".join(paths)} {verb} for {" and ".join(names)}'
      for paths, verb, names in ((kept, 'kept', same), (new, 'made anew', fresh))
      if paths
    ]
    lines.append(f'{" and ".join(wanted)}, not {" and ".join(old)}: {"; ".join(parts)}')
  return lines


def complete(given, drawn):
  """Puts drawn values where `given` has none.

  Args:
    given: an array; a MaskedArray, whose masked values are put in; or a jax.ShapeDtypeStruct.
    drawn: an array of the same shape.
  """
  if isinstance(given, jax.ShapeDtypeStruct):
    return drawn
  if isinstance(given, np.ma.MaskedArray):
    return jnp.where(np.ma.getmaskarray(given), drawn, given.data)
  return given
