"""RJCA, recursive joint cross-attention (section 3.2): as GRJCA without a gate."""

from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  config.model.fusion.name = 'rjca'
  return config
