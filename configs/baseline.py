"""The challenge's baseline, a reconstruction: He et al.'s ResNet-50 and a linear layer, frame by \
frame; audio is not used."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.visual.tower = 'resnet50'
  config.model.audio.tower = 'none'
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'visual'})
  config.model.head = ConfigDict({'name': 'linear', 'tanh': False})
