"""Audio only: the control without the visual modality."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.visual.tower = 'none'
  config.model.fusion = ConfigDict({'name': 'audio'})
