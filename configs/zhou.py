"""Zhou et al. 2023: TCN, then a transformer encoder without positions; one CCC loss over the \
whole batch, AdamW."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.update(visual=(512, 256, 128), audio=(512, 256, 128), dropout=0.3)
  config.model.temporal.update(activation='prelu', norm=False)
  config.model.fusion = ConfigDict({'name': 'transformer', 'inputs': ('visual', 'audio')})
  config.model.fusion.update(positions='none', stem=(512,), layers=8, heads=4, hidden=512)
  config.model.fusion.dropout = 0.3
  config.model.head = ConfigDict({'name': 'affine'})
  config.loss.scope = 'batch'
  config.optimizer.update(decay='decoupled', weight_decay=1e-5)
