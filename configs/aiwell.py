"""AIWELL-UOC 2025, a reconstruction: visual features (theirs are DDAMFN's) and an LSTM."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'lstm', 'width': 256, 'layers': 1})
  config.model.fusion.bidirectional = False
  config.model.head = ConfigDict({'name': 'linear'})
