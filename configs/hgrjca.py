"""HGRJCA (section 3.4): as GRJCA with a gate at every recursion and one over the gated features."""

from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  config.model.fusion.name = 'hgrjca'
  return config
