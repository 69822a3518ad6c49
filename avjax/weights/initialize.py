"""Replaces random weights by pretrained ones, from the files that `config.init` names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
from flax import traverse_util
from ml_collections import ConfigDict

from avjax.errors import InputError
from avjax.models.audio_visual import FEATURES
from avjax.system.values import misfits
from avjax.weights import files as weight_files

# Metadata of a file of weights that say where it comes from.
ORIGIN = ('architecture', 'source', 'source_sha256', 'licence')


def initialize(config: ConfigDict, variables: dict) -> tuple[dict, dict[str, dict[str, str]]]:
  """Replaces random variables by those in the files that config.init names.

  Returns (variables, {part: metadata of its file}). Raises InputError unless a file is undamaged,
  says where it comes from, is of the architecture that the config has, and fits (`misfits`).
  """
  given = {part: path for part, path in config.init.items() if path}
  if 'model' in given and len(given) > 1:
    raise InputError(
      'config.init.model is the whole model: '
      'give no config.init.visual or config.init.audio with it'
    )
  architectures = {
    'model': 'model',
    'visual': config.model.visual.tower,
    'audio': config.model.audio.tower,
  }
  flat, origins = traverse_util.flatten_dict(variables, sep='/'), {}
  for part, path in given.items():
    arrays, metadata = weight_files.load(path)
    lacking = [name for name in ORIGIN if name not in metadata]
    if lacking:
      raise InputError(
        f'{path} does not say its {", ".join(lacking)}; '
        'convert it again by python -m avjax.pretrained'
      )
    if metadata['architecture'] != architectures[part]:
      raise InputError(
        f'{path} holds {metadata["architecture"]}, '
        f'but config.init.{part} takes {architectures[part]}'
      )
    if part != 'model':
      arrays = {name.replace('/', f'/{part}/', 1): x for name, x in arrays.items()}
    wanted = {
      name: leaf.shape
      for name, leaf in flat.items()
      if part == 'model' or name.split('/')[1] == part
    }
    if architectures[part] == 'resnet50':  # the projection after it is not in its file
      wanted = {
        name: shape
        for name, shape in wanted.items()
        if not name.startswith('params/visual/output/')
      }
    differs = misfits(arrays, wanted)
    if differs:
      raise InputError(
        f'{path} does not fit the model of the config: {len(differs)} of '
        f'{len(wanted)} arrays differ ({"; ".join(differs[:2])})'
      )
    flat.update((name, jnp.asarray(x)) for name, x in arrays.items())
    origins[part] = metadata
  # Flattening drops an empty collection: a model may have no statistics.
  empty = {name: {} for name in variables}
  return empty | traverse_util.unflatten_dict(flat, sep='/'), origins


def describe_origins(config: ConfigDict, origins: dict[str, Any]) -> Iterator[str]:
  """Yields lines for the log: what each tower of the config starts from."""
  names = {'model': 'whole model', 'visual': 'visual tower', 'audio': 'audio tower'}
  for part in ('model',) if 'model' in origins else ('visual', 'audio'):
    tower, origin = config.model[part].tower if part != 'model' else '', origins.get(part)
    if tower == 'none':
      continue
    if tower.startswith(FEATURES):
      yield f'{names[part]}: {tower} of the records'
    elif origin:
      yield (
        f'{names[part]}: {origin["architecture"]} from {origin["source"]}, '
        f'SHA-256 {origin["source_sha256"][:8]}'
      )
    else:
      yield f'{names[part]}: random weights'
