"""USTC-IAT-United 2025, a reconstruction: multi-scale TCNs, then attention in which the face asks the voice."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.temporal.update({'visual': (256, 256, 256, 256), 'audio': (128, 128, 128, 128), 'kernels': (3, 5, 7)})
  config.model.fusion = ConfigDict({'name': 'cross_modal', 'width': 256, 'blocks': 2, 'heads': 4, 'hidden': 512, 'dropout': 0.1})
