"""Converting published weights: their arrays under our names and in our layout, with every mismatch listed."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.errors import InputError
from avjax.models.layers import nothing_trainable
from avjax.models.towers.ir50 import IR50
from avjax.models.towers.resnet50 import ResNet50
from avjax.models.towers.vggish import VGGish
from avjax.system import System


@dataclasses.dataclass
class Converted:
  """What `convert` returns.

  arrays: {our path: float32 array}; mismatches: a line for each, none if all is well; left_out: names that are not used.
  """

  arrays: dict
  mismatches: list
  left_out: list


def shapes_of(architecture):
  """Returns {'params/...' and 'batch_stats/...': shape} of a published tower: ir50, resnet50 or vggish."""
  tower, frame = {'ir50': (IR50(), (40, 40, 3)), 'resnet50': (ResNet50(), (40, 40, 3)),
                  'vggish': (VGGish(), (WINDOW_ROWS, MEL_BANDS))}[architecture]
  return flat_shapes(jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, *frame)), nothing_trainable)))


def shapes_of_model(config):
  """Returns the same for the whole model that a config describes."""
  return flat_shapes(System.from_config(config).shapes)


def flat_shapes(variables):
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()}


def convert(source, shapes, system):
  """Lays out what `source` ({name: array}) holds as ours, {path: shape}, by the names of a `published.Published`.

  Everything that does not agree is collected: names that are missing or unknown, shapes, types, values that no weights have.
  """
  source = {re.sub(r'parametrizations\.weight\.original0$', 'weight_g',
                   re.sub(r'parametrizations\.weight\.original1$', 'weight_v', name)): x for name, x in source.items()}
  entries = {path: system.entry(path.split('/', 1)[1], shape) for path, shape in shapes.items()}
  entries = {path: entry for path, entry in entries.items() if entry}
  wanted = {entry.name for entry in entries.values()}
  prefix = find_prefix(source, system.first, wanted)
  inside = {name.removeprefix(prefix): x for name, x in source.items() if name.startswith(prefix)}

  arrays, mismatches = {}, []
  for path, entry in entries.items():
    x = inside.get(entry.name)
    if x is None:
      mismatches.append(f'missing     {entry.name}, {list(entry.shape)}')
    elif x.shape != entry.shape:
      mismatches.append(f'shape       {entry.name} is {list(x.shape)}, wanted {list(entry.shape)}')
    elif not jnp.issubdtype(x.dtype, jnp.floating):  # which knows bfloat16
      mismatches.append(f'type        {entry.name} is {x.dtype}, wanted floating point')
    else:
      with np.errstate(over='ignore'):
        x = x.astype(np.float32)
      if is_valid(path, x):
        arrays[path] = entry.ours(x)
      else:
        mismatches.append(f'value       {entry.name} has {INVALID}')
  rest = [name for name in inside if name not in wanted]
  mismatches += [f'unexpected  {name!r}, {list(inside[name].shape)}' for name in rest if not re.fullmatch(system.left_out, name)]
  outside = [name for name in source if not name.startswith(prefix)]
  return Converted(arrays, mismatches, [name for name in rest if re.fullmatch(system.left_out, name)] + outside)
INVALID = 'values that are not finite in float32, or a negative variance'


def is_valid(path, x):
  """Whether the values of a float32 array are such as the weights or statistics at `path` can have."""
  return np.isfinite(x).all() and not (path.endswith('/var') and (x < 0).any())


def find_prefix(source, first, wanted):
  """What stands before the names in a file: '', 'module.', 'backbone.', 'state_dict.spatial.visual.backbone.', ..."""
  candidates = {name.removesuffix(first) for name in source if name == first or name.endswith('.' + first)}
  found = {prefix: sum(prefix + name in source for name in wanted) for prefix in candidates}
  best = [prefix for prefix in candidates if found[prefix] == max(found.values())]
  if not best:
    examples = ', '.join(map(repr, sorted(source)[:3]))
    raise InputError(f'no {first!r} among its {len(source)} arrays{f" ({examples}, ...)" if source else ""}: '
                     'another architecture?')
  if len(best) > 1:
    raise InputError(f'it holds {len(best)} such models, under {", ".join(map(repr, sorted(best)))}; keep one of them')
  return best[0]


def format_names(names):
  """Names from a file for people, a line each; the many num_batches_tracked are counted."""
  counters = [name for name in names if name.endswith('num_batches_tracked')]
  return [*map(repr, sorted(set(names) - set(counters))), *([f'{len(counters)} x num_batches_tracked'] if counters else [])]
