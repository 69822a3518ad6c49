"""Meng et al. 2022: both modalities, transformer encoder without positions, no temporal part."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'transformer', 'inputs': ('visual', 'audio')})
  config.model.fusion.update(positions='none', stem=(1024, 512), layers=4, heads=4, hidden=512)
  config.model.fusion.dropout = 0.3
  config.model.head = ConfigDict({'name': 'affine'})
  config.loss.scope = 'batch'
  config.optimizer.weight_decay = 1e-5
