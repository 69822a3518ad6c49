"""Gives the systems of the comparison in one small size."""

from __future__ import annotations

import importlib

from ml_collections import ConfigDict

from avjax.system import System
from benchmarks.disagreement.world import WIDTHS

LENGTH = 40  # frames of a window, 8 seconds
NAME = 'world'


def make_config(name, **fusion):
  """Returns the config of a system, with features of the world in place of its towers.

  Temporal part and head are the same for all; fusions keep their mini sizes.
  """
  config = importlib.import_module(f'configs.{name}').get_config('mini')
  config.data.update(length=LENGTH, stride=LENGTH)
  config.data.features = ConfigDict({f'{NAME}_{m}': w for m, w in WIDTHS.items()})
  for modality in WIDTHS:
    if config.model[modality].tower != 'none':
      config.model[modality].tower = f'features/{NAME}_{modality}'
  config.model.temporal.update(
    visual=(16, 16), audio=(8, 8), kernel=5, kernels=(), norm=True, dropout=0.1,
    activation='leaky_relu',
  )
  config.model.head = ConfigDict({'name': 'mlp', 'hidden': 32})
  config.model.fusion.update(fusion)
  return config


def make_system(name, **fusion):
  return System.from_config(make_config(name, **fusion))
