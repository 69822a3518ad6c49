"""RJCA, recursive joint cross-attention (section 3.2): as GRJCA without a gate."""

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'rjca'
