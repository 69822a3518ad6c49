"""Zhang Wei et al. 2023: visual features (theirs are MAE's), transformer encoder without \
positions, no temporal part; AdamW."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'  # as in the configuration in their repository
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'transformer', 'inputs': ('visual',)})
  config.model.fusion.update(positions='none', stem=(256, 128), slope=0.1)
  config.model.fusion.update(layers=4, heads=4, hidden=128, dropout=0.3)
  config.model.head = ConfigDict({'name': 'affine'})
  config.loss.scope = 'batch'
  config.optimizer.update(decay='decoupled', weight_decay=0.05)
