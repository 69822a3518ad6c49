"""CAN, channel attention (Zhang, Zhao and Guan 2023), in the sizes of its authors' code: five \
levels, dropout 0.2."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.visual = (256, 256, 128, 128, 128)
  config.model.temporal.audio = (128, 128, 64, 64, 64)
  config.model.temporal.dropout = 0.2
  config.model.fusion = ConfigDict({'name': 'can', 'width': 128})
