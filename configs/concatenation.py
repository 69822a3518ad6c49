"""Early concatenation: the control without any attention."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  config.model.fusion = ConfigDict({'name': 'concatenation'})
  config.optimizer.rate_factors = ()
  common = config.unfreezing.common
  common.group1 = tuple(pattern for pattern in common.group1 if pattern != 'fusion/')  # it has no parameters
  return config
