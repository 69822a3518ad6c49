"""JCA, joint cross-attention: RJCA with a single recursion (paper, section 5.1)."""

from configs import rjca


def get_config(argument=''):
  config = rjca.get_config(argument)
  config.model.fusion.recursions = 1
  return config
