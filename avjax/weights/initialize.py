"""Replaces random weights by pretrained ones, from the files and runs that `config.init` names."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from avjax import files
from avjax.errors import InputError, as_input_error
from avjax.models.audio_visual import FEATURES
from avjax.runs import copies, settings
from avjax.runs.load import load_best
from avjax.system import System
from avjax.system.values import misfits
from avjax.weights import files as weight_files
from avjax.weights.adapt import Arrays, adapt
from avjax.weights.convert import flat_shapes
from avjax.weights.exported import DESCRIPTION, WEIGHTS, describe_weights

# Metadata of a file of weights that say where it comes from.
ORIGIN = ('architecture', 'source', 'source_sha256', 'licence')


def initialize(config: ConfigDict, variables: dict) -> tuple[dict, dict[str, dict[str, str]]]:
  """Replaces random variables by those that config.init names.

  Of a whole model, the length of the windows and the targets may be others than those of the
  config: see avjax/weights/adapt.py. What is to be drawn then stays as it is in `variables`, and
  an array of which only a part is drawn is a np.ma.MaskedArray, for `adapt.complete`.

  Returns (variables, {part: metadata of its file}); the metadata of a model that was changed say
  how, under 'changes'. Raises InputError unless a file is undamaged, says where it comes from, is
  of the architecture that the config has, and otherwise fits (`misfits`).
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
    arrays, metadata = read_model(path) if part == 'model' else weight_files.load(path)
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
    before = config_before(path, metadata, config) if part == 'model' else config
    shapes = wanted if before is config else flat_shapes(System.from_config(before).shapes)
    differs = misfits(arrays, shapes)
    if differs:
      raise InputError(
        f'{path} does not fit the model of the config: {len(differs)} of '
        f'{len(shapes)} arrays differ ({"; ".join(differs[:2])})'
      )
    if before is not config:
      lengths = before.data.length, config.data.length
      arrays, changes = adapt(arrays, wanted, lengths, (before.targets, config.targets))
      metadata |= {'changes': '; '.join(changes)} if changes else {}
    flat.update(
      (name, x if np.ma.isMaskedArray(x) else jnp.asarray(x)) for name, x in arrays.items()
    )
    origins[part] = metadata
  # Flattening drops an empty collection: a model may have no statistics.
  empty = {name: {} for name in variables}
  return empty | traverse_util.unflatten_dict(flat, sep='/'), origins


def read_model(path: str) -> tuple[Arrays, weight_files.Metadata]:
  """Returns the arrays and metadata of a whole model.

  path: a file of weights, an exported model, or a run, whose best state is read. Raises InputError
  if it is none of these, or damaged, or if an exported model holds a link.
  """
  if files.is_address(path):
    is_folder = any(name.startswith('/') for name in files.Bucket(path).names())
  else:
    is_folder = os.path.isdir(path)
  place = pathlib.Path(copies.here(path) if is_folder else files.copy_of_file(path))
  if is_folder and not os.path.lexists(place / DESCRIPTION):
    config, _, variables, _ = load_best(place)
    variables = traverse_util.flatten_dict(jax.device_get(variables), sep='/')
    return variables, describe_weights(place, config, variables)
  file = place / WEIGHTS if is_folder else place
  if os.path.lexists(file.parent / DESCRIPTION):
    files.check_no_links(file.parent)
  return weight_files.load(file)


def config_before(path: str, metadata: Mapping[str, str], config: ConfigDict) -> ConfigDict:
  """Returns `config` with the length and targets that the model in `path` was trained with.

  Returns `config` itself if they are the same, or if the metadata of the model do not tell them.
  Raises InputError for metadata that no model has.
  """
  if 'config' not in metadata:
    return config
  try:
    with as_input_error('its config is not valid'):
      found = json.loads(metadata['config'])
      settings.check(found)
      length, targets = found['data']['length'], tuple(found['targets'])
      if (length, targets) == (config.data.length, tuple(config.targets)):
        return config
      before = config.copy_and_resolve_references()
      before.data.length, before.targets = length, targets
      System.from_config(before)
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  return before


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


def describe_changes(origins: dict[str, Any]) -> Iterator[str]:
  """Yields a line for the log if the model that the weights come from had to be changed."""
  changes = origins.get('model', {}).get('changes')
  if changes:
    yield f'whole model: {changes}'
