"""LFAN, leader-follower attention (Zhang, Zhao and Guan 2023), in the sizes of its authors' code: \
narrower TCNs, a linear head."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.update(visual=(256, 256, 128, 128), audio=(64, 64, 32, 32))
  config.model.fusion = ConfigDict({'name': 'lfan', 'width': 32, 'heads': 2, 'dropout': 0.1})
  config.model.head = ConfigDict({'name': 'linear'})
