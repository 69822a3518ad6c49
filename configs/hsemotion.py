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
  # Cells 101 to 107 of src/ABAW/ABAW6/abaw6_affwild2.ipynb of av-savchenko/face-emotion-recognition
  # (commit 7c8f880): 50 frames before and 50 after, frames without a face filled by straight lines.
  config.smooth = 101
