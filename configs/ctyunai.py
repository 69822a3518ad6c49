"""CtyunAI 2025, a reconstruction: visual features (theirs are CLIP's), TCN, transformer encoder; \
audio is not used."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'
  config.model.temporal.update(visual=(512, 256, 128), audio=(), activation='prelu', norm=False)
  config.model.temporal.dropout = 0.0
  config.model.fusion = ConfigDict({'name': 'transformer', 'inputs': ('visual',)})
  config.model.fusion.update(positions='none', stem=(512,), layers=8, heads=4, hidden=512)
  config.model.fusion.dropout = 0.0
  config.model.head = ConfigDict({'name': 'affine', 'shared': True})
  config.loss.scope = 'batch'
  config.optimizer.update(decay='decoupled', weight_decay=1e-5)
