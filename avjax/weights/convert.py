"""Converts published weights to our names and layout, and lists every mismatch."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.errors import InputError
from avjax.models.layers import nothing_trainable
from avjax.models.towers.ir50 import IR50
from avjax.models.towers.resnet50 import ResNet50
from avjax.models.towers.vggish import VGGish
from avjax.system import System
from avjax.system.values import INVALID, is_valid
from avjax.weights.name_maps import Published

Shapes = dict[str, tuple[int, ...]]  # {'params/...' or 'batch_stats/...': shape}


@dataclasses.dataclass
class Converted:
  """Holds what `convert` returns.

  arrays: {our path: float32 array}; mismatches: a line for each, empty if all agrees; left_out:
  names in the file that are not used.
  """

  arrays: dict[str, np.ndarray]
  mismatches: list[str]
  left_out: list[str]


def shapes_of(architecture: str) -> Shapes:
  """Returns the shapes of a published tower: ir50, resnet50 or vggish."""
  tower, frame = {
    'ir50': (IR50(), (40, 40, 3)),
    'resnet50': (ResNet50(), (40, 40, 3)),
    'vggish': (VGGish(), (WINDOW_ROWS, MEL_BANDS)),
  }[architecture]

  def init():
    return tower.init(jax.random.key(0), jnp.zeros((1, *frame)), nothing_trainable)

  return flat_shapes(jax.eval_shape(init))


def shapes_of_model(config: ConfigDict) -> Shapes:
  """Returns the shapes of the whole model that a config describes."""
  return flat_shapes(System.from_config(config).shapes)


def flat_shapes(variables: dict) -> Shapes:
  """Returns the shape of every leaf of nested variables, by its path."""
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()}


def convert(source: dict[str, np.ndarray], shapes: Shapes, published: Published) -> Converted:
  """Lays out the arrays of a published file as ours.

  Everything that does not agree is collected: names that are missing or unknown, shapes, types,
  values that weights cannot have.

  Args:
    source: {name in the file: array}.
    shapes: what our model has.
    published: how the file names and lays out what our model has.
  """
  source = {weight_norm_name(name): x for name, x in source.items()}
  entries = {path: published.entry(path.split('/', 1)[1], shape) for path, shape in shapes.items()}
  entries = {path: entry for path, entry in entries.items() if entry}
  wanted = {entry.name for entry in entries.values()}
  prefix = find_prefix(source, published.first, wanted)
  inside = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}

  arrays, mismatches = {}, []
  for path, entry in entries.items():
    x = inside.get(entry.name)
    if x is None:
      mismatches.append(f'missing     {entry.name}, {list(entry.shape)}')
    elif x.shape != entry.shape:
      mismatches.append(f'shape       {entry.name} is {list(x.shape)}, wanted {list(entry.shape)}')
    elif not jnp.issubdtype(x.dtype, jnp.floating):  # unlike NumPy's, it counts bfloat16
      mismatches.append(f'type        {entry.name} is {x.dtype}, wanted floating point')
    else:
      with np.errstate(over='ignore'):
        x = x.astype(np.float32)
      if is_valid(path, x):
        arrays[path] = entry.ours(x)
      else:
        mismatches.append(f'value       {entry.name} has {INVALID}')
  left_out = []
  for name, x in inside.items():
    if name in wanted:
      continue
    if re.fullmatch(published.left_out, name):
      left_out.append(name)
    else:
      mismatches.append(f'unexpected  {name!r}, {list(x.shape)}')
  outside = [name for name in source if not name.startswith(prefix)]
  return Converted(arrays, mismatches, left_out + outside)


def weight_norm_name(name: str) -> str:
  """Returns the older name, weight_g or weight_v, of an array of PyTorch's weight norm."""
  name = re.sub(r'parametrizations\.weight\.original0$', 'weight_g', name)
  return re.sub(r'parametrizations\.weight\.original1$', 'weight_v', name)


def find_prefix(source: Iterable[str], first: str, wanted: set[str]) -> str:
  """Finds the prefix of the names in a file: '', 'module.', 'state_dict.spatial.visual.', ...

  Args:
    source: names in the file.
    first: a name that the file must have.
    wanted: all names that it should have; the prefix with most of them is taken.
  """
  source = set(source)
  candidates = {
    name.removesuffix(first) for name in source if name == first or name.endswith('.' + first)
  }
  found = {prefix: sum(prefix + name in source for name in wanted) for prefix in candidates}
  best = [prefix for prefix in candidates if found[prefix] == max(found.values())]
  if not best:
    examples = ', '.join(map(repr, sorted(source)[:3]))
    shown = f' ({examples}, ...)' if source else ''
    raise InputError(f'no {first!r} among its {len(source)} arrays{shown}: another architecture?')
  if len(best) > 1:
    raise InputError(
      f'it holds {len(best)} such models, under '
      f'{", ".join(map(repr, sorted(best)))}; keep one of them'
    )
  return best[0]


def format_names(names: list[str]) -> list[str]:
  """Formats names from a file for people, a line each; the many num_batches_tracked are counted."""
  counters = [name for name in names if name.endswith('num_batches_tracked')]
  counted = [f'{len(counters)} x num_batches_tracked'] if counters else []
  return [*map(repr, sorted(set(names) - set(counters))), *counted]
