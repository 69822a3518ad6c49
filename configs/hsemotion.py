"""HSEmotion 2024 (ABAW6): a perceptron, frame by frame; predictions are smoothed over 101 frames. \
Their report of 2025 does not cover valence and arousal."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.audio.tower = 'none'
  config.model.temporal.update(visual=(), audio=())
  config.model.fusion = ConfigDict({'name': 'visual'})
  config.model.head = ConfigDict({'name': 'perceptron', 'hidden': 128})
  config.loss.scope = 'batch'
  config.smooth = 101
