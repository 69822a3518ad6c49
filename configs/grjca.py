"""GRJCA, gated recursive joint cross-attention, as in the paper, section 4.3."""

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'grjca'
