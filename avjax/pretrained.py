"""Published weights in: python -m avjax.pretrained ir50 --source res50_ir_0.887.pth --output ir50.safetensors

Also the weights that a run starts from, `config.init`.
"""

import argparse
import collections
import dataclasses
import logging
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging as absl_logging
from flax import traverse_util

import avjax
from avjax import main as command_line
from avjax import published, step, weights
from avjax.models.audio_visual import FEATURES
from avjax.models.layers import evaluation
from avjax.models.resnet import IR50, ResNet50
from avjax.models.vggish import VGGish
from data_prep import errors
from data_prep.errors import InputError
from data_prep.records import MEL_BANDS, WINDOW_ROWS

logger = logging.getLogger('avjax')


@dataclasses.dataclass
class Converted:
  """arrays: {path of ours: float32 array}; mismatches: lines, none if all is well; left_out: names in the file not used."""
  arrays: dict
  mismatches: list
  left_out: list


def shapes_of(architecture):
  """{'params/...' and 'batch_stats/...': shape} of a published tower: ir50, resnet50 or vggish."""
  if architecture == 'vggish':
    variables = jax.eval_shape(lambda: VGGish().init(jax.random.key(0), jnp.zeros((1, WINDOW_ROWS, MEL_BANDS))))
  else:
    tower = {'ir50': IR50, 'resnet50': ResNet50}[architecture]()
    variables = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, 40, 40, 3)), evaluation))
  return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables, sep='/').items()}


def shapes_of_model(config):
  """The same of the whole model that a config describes."""
  variables = jax.eval_shape(lambda: step.init_variables(config, step.make_model(config), 0))
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
      if sound(path, x):
        arrays[path] = entry.ours(x)
      else:
        mismatches.append(f'value       {entry.name} has {UNSOUND}')
  rest = [name for name in inside if name not in wanted]
  mismatches += [f'unexpected  {name!r}, {list(inside[name].shape)}' for name in rest if not re.fullmatch(system.left_out, name)]
  outside = [name for name in source if not name.startswith(prefix)]
  return Converted(arrays, mismatches, [name for name in rest if re.fullmatch(system.left_out, name)] + outside)


UNSOUND = 'values that are not finite in float32, or a negative variance'


def sound(path, x):
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


def listed(names):
  """Names from a file for people, a line each; the many num_batches_tracked are counted."""
  counters = [name for name in names if name.endswith('num_batches_tracked')]
  return [*map(repr, sorted(set(names) - set(counters))), *([f'{len(counters)} x num_batches_tracked'] if counters else [])]


# The weights that a run starts from.

ORIGIN = ('architecture', 'source', 'source_sha256', 'licence')  # what a file of weights says of itself


def initialize(config, variables):
  """Puts the files that config.init names in place of random variables. Returns (variables, {part: metadata of its file}).

  Strict: InputError unless a file is sound, says where it comes from, is of the architecture that the config has, and has
  every leaf of its part in the right shape, in float32 and with values that weights can have. The one exception is the
  projection that follows resnet50, which its file does not have.
  """
  given = {part: path for part, path in config.init.items() if path}
  if 'model' in given and len(given) > 1:
    raise InputError('config.init.model is the whole model: give no config.init.visual or config.init.audio with it')
  architectures = {'model': 'model', 'visual': config.model.visual.tower, 'audio': config.model.audio.tower}
  flat, origins = traverse_util.flatten_dict(variables, sep='/'), {}
  for part, path in given.items():
    arrays, metadata = weights.load(path)
    lacking = [name for name in ORIGIN if name not in metadata]
    if lacking:
      raise InputError(f'{path} does not say its {", ".join(lacking)}; convert it again by python -m avjax.pretrained')
    if metadata['architecture'] != architectures[part]:
      raise InputError(f'{path} holds {metadata["architecture"]}, but config.init.{part} takes {architectures[part]}')
    if part != 'model':
      arrays = {name.replace('/', f'/{part}/', 1): x for name, x in arrays.items()}
    wanted = {name for name in flat if part == 'model' or name.split('/')[1] == part}
    if architectures[part] == 'resnet50':
      wanted = {name for name in wanted if not name.startswith('params/visual/output/')}
    differs = [f'{name} is {list(arrays[name].shape) if name in arrays else "missing"}, not {list(flat[name].shape)}'
               for name in sorted(wanted) if name not in arrays or arrays[name].shape != flat[name].shape]
    differs += [f'{name!r} is not in the model' for name in sorted(arrays.keys() - wanted)]
    differs += [f'{name} is {x.dtype}, not float32' if x.dtype != np.float32 else f'{name} has {UNSOUND}'
                for name, x in sorted(arrays.items()) if x.dtype != np.float32 or not sound(name, x)]
    if differs:
      raise InputError(f'{path} does not fit the model of the config: {len(differs)} of {len(wanted)} arrays differ '
                       f'({"; ".join(differs[:2])})')
    flat.update((name, jnp.asarray(x)) for name, x in arrays.items())
    origins[part] = metadata
  return dict.fromkeys(variables, {}) | traverse_util.unflatten_dict(flat, sep='/'), origins  # a model may have no statistics


def describe(config, origins):
  """Lines for the log: what each tower that the config has starts from."""
  names = {'model': 'whole model', 'visual': 'face tower', 'audio': 'audio tower'}
  for part in ('model',) if 'model' in origins else ('visual', 'audio'):
    tower, origin = config.model[part].tower if part != 'model' else '', origins.get(part)
    start = f'{origin["architecture"]} from {origin["source"]}, SHA-256 {origin["source_sha256"][:8]}' if origin else 'random weights'
    if tower != 'none':
      yield f'{names[part]}: {tower} of the records' if tower.startswith(FEATURES) else f'{names[part]}: {start}'


# The command.

def main(argv):
  """Converts weights that others have published into a safetensors file for config.init."""
  parser = argparse.ArgumentParser(prog='python -m avjax.pretrained', description=main.__doc__)
  parser.add_argument('architecture', choices=('ir50', 'resnet50', 'vggish', 'model'),
                      help="a tower, or `model`: a whole model that was trained with the predecessors' code, which takes "
                           'its sizes from --config and --config.KEY=VALUE')
  parser.add_argument('--source', required=True, help='.pth, .pt or .safetensors file, or TensorFlow checkpoint')
  parser.add_argument('--output', required=True, help='.safetensors file to write')
  parser.add_argument('--config', help='of a whole model: configs/rjca_author.py or configs/lfan.py')
  parser.add_argument('--licence', help='of the weights, to be kept with them; by default what is known of the architecture')
  arguments, overrides = parser.parse_known_args(argv[1:])
  absl_logging.set_verbosity(absl_logging.ERROR)
  if (arguments.architecture == 'model') != bool(arguments.config):
    raise InputError('`model` needs --config, such as configs/lfan.py; a tower takes none')
  unknown = [word for word in overrides if not (arguments.config and word.startswith(command_line.OVERRIDE))]
  if unknown:
    raise InputError(f'unexpected argument {unknown[0]!r}')
  output = pathlib.Path(arguments.output)
  weights.check_free(output)

  if arguments.architecture == 'model':
    config = command_line.read_flags(['pretrained', f'--config={arguments.config}', *overrides])[0].config
    system, shapes = published.of_model(config), shapes_of_model(config)
    source = weights.read_published(arguments.source)
  else:
    source = weights.read_published(arguments.source)
    tensorflow = arguments.architecture == 'vggish' and any(name.startswith('vggish/') for name in source)
    system = published.TOWERS[arguments.architecture + ('_tensorflow' if tensorflow else '')]
    shapes = shapes_of(arguments.architecture)
  try:
    converted = convert(source, shapes, system)
  except InputError as error:
    raise InputError(f'{arguments.source} does not hold {arguments.architecture}: {error}') from error
  if converted.mismatches:
    print('\n'.join(sorted(converted.mismatches)))
    kinds = collections.Counter(line.split()[0] for line in sorted(converted.mismatches))
    raise InputError(f'{arguments.source} does not hold {arguments.architecture}: '
                     f'{", ".join(f"{n} {kind}" for kind, n in kinds.items())}; each is listed above')
  metadata = {'architecture': arguments.architecture, 'source': pathlib.Path(arguments.source).name,
              'source_sha256': weights.sha256_of_file(arguments.source), 'licence': arguments.licence or system.licence,
              'avjax': avjax.__version__}
  weights.save(output, converted.arrays, metadata)
  weights.load(output)  # what was written can be read
  count = sum(x.size for x in converted.arrays.values())
  print(f'{output}: {arguments.architecture}, {len(converted.arrays)} arrays, {count:,} numbers')
  for name in ('source', 'source_sha256', 'licence'):
    print(f'{name:<14}{metadata[name]}')
  for name in listed(converted.left_out):
    print(f'left out      {name}')
  fresh = len(shapes) - len(converted.arrays)
  if fresh:
    print(f'not in it     {fresh} arrays of the projection to 512 features, which start from random values')


if __name__ == '__main__':
  errors.run(main, sys.argv)
