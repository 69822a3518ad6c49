"""HGRJCA (section 3.4): as GRJCA with a gate at every recursion and one over the gated features."""

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'hgrjca'
