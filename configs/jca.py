"""JCA, joint cross-attention: RJCA with a single recursion (paper, section 5.1)."""

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion.update(name='rjca', recursions=1)
