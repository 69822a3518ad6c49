"""Charon, or Mamba-VA 2025: visual features (theirs are MAE's), three of their four TCN levels, \
selective state spaces; AdamW, clipped gradients."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'
  config.model.temporal.update(visual=(512, 512, 256), audio=(), kernel=15, dropout=0.2)
  config.model.temporal.update(activation='prelu', norm=False)
  config.model.fusion = ConfigDict({'name': 'mamba', 'layers': 4, 'states': 8, 'rank': 16})
  config.model.fusion.output = True
  config.model.head = ConfigDict({'name': 'perceptron', 'hidden': 128, 'tanh': False})
  config.loss.scope = 'batch'
  # Dropout 0.2 and decay 0.001 are those of their folds 1 to 5, whose windows have 300 frames, as
  # here. Their config of fold 0 has 0.3 and 0.01, for windows of 1000 frames.
  config.optimizer.update(decay='decoupled', weight_decay=0.001, clip=1.0, epsilon=1e-7)
