"""CA, cross-attention as first published (FG 2021): audio and visual frames are correlated, and \
there are no joint features; on this protocol's towers and head, frame by frame."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'ca_2021', 'temperature': 1.0, 'residual': True})
