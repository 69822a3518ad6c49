"""Early concatenation: the control without any attention."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'concatenation'})
