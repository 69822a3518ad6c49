"""The voice alone: the control without a face."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.visual.tower = 'none'
  config.model.fusion = ConfigDict({'name': 'audio'})
