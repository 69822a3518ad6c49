"""Early concatenation: the control without any attention."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  config.model.fusion = ConfigDict({'name': 'concatenation'})
  config.optimizer.rate_factors = ()
  return config
