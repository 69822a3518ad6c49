"""RJCA, recursive joint cross-attention (section 3.2): as GRJCA without a gate."""

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'rjca'
