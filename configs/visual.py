"""Faces only: the control without the audio modality."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'
  config.model.fusion = ConfigDict({'name': 'visual'})
