"""The weights that a run starts from: the files that `config.init` names."""

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from avjax.errors import InputError
from avjax.models.audio_visual import FEATURES
from avjax.weights import files as weight_files
from avjax.weights.convert import INVALID, is_valid

ORIGIN = ('architecture', 'source', 'source_sha256', 'licence')  # what a file of weights says of itself


def initialize(config, variables):
  """Puts the files that config.init names in place of random variables.

  Returns (variables, {part: metadata of its file}). InputError unless a file is undamaged, says where it comes from, is
  of the architecture that the config has, and has every leaf of its part in the right shape, in float32 and with values
  that weights can have. The one exception is the projection after resnet50, which its file does not have.
  """
  given = {part: path for part, path in config.init.items() if path}
  if 'model' in given and len(given) > 1:
    raise InputError('config.init.model is the whole model: give no config.init.visual or config.init.audio with it')
  architectures = {'model': 'model', 'visual': config.model.visual.tower, 'audio': config.model.audio.tower}
  flat, origins = traverse_util.flatten_dict(variables, sep='/'), {}
  for part, path in given.items():
    arrays, metadata = weight_files.load(path)
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
    differs += [f'{name} is {x.dtype}, not float32' if x.dtype != np.float32 else f'{name} has {INVALID}'
                for name, x in sorted(arrays.items()) if x.dtype != np.float32 or not is_valid(name, x)]
    if differs:
      raise InputError(f'{path} does not fit the model of the config: {len(differs)} of {len(wanted)} arrays differ '
                       f'({"; ".join(differs[:2])})')
    flat.update((name, jnp.asarray(x)) for name, x in arrays.items())
    origins[part] = metadata
  collections = dict.fromkeys(variables, {})  # a model may have no statistics, which flattening drops
  return collections | traverse_util.unflatten_dict(flat, sep='/'), origins


def describe_origins(config, origins):
  """Yields lines for the log: what each tower that the config has starts from."""
  names = {'model': 'whole model', 'visual': 'face tower', 'audio': 'audio tower'}
  for part in ('model',) if 'model' in origins else ('visual', 'audio'):
    tower, origin = config.model[part].tower if part != 'model' else '', origins.get(part)
    start = f'{origin["architecture"]} from {origin["source"]}, SHA-256 {origin["source_sha256"][:8]}' if origin else 'random weights'
    if tower != 'none':
      yield f'{names[part]}: {tower} of the records' if tower.startswith(FEATURES) else f'{names[part]}: {start}'
