"""Zhang Ziyang et al. 2023: transformer encoder with sinusoidal positions, no temporal part. \
Their code trains with squared error."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'transformer', 'inputs': ('visual', 'audio')})
  config.model.fusion.update(each=512, stem=(), dropout_in=0.5, positions='sinusoidal')
  config.model.fusion.update(layers=4, heads=4, hidden=2048, dropout=0.2)
  config.model.head = ConfigDict({'name': 'affine', 'tanh': True})
  config.loss.scope = 'batch'
