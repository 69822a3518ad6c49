"""Early concatenation: the control without any attention."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'concatenation'})
