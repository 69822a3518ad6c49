"""USTC-IAT-United 2025, a reconstruction: multi-scale TCNs, then cross-attention with visual \
queries and audio keys and values."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change, mini)


def change(config):
  config.model.temporal.update(visual=(256, 256, 256, 256), kernels=(3, 5, 7))
  config.model.fusion = ConfigDict({'name': 'cross_modal', 'width': 256, 'blocks': 2})
  config.model.fusion.update(heads=4, hidden=512, dropout=0.1)


def mini(config):
  config.optimizer.rate_factors = ((r'fusion/.*', 0.1),)  # post-norm encoders need a lower rate
