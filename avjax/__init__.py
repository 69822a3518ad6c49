"""Predicts valence and arousal of each frame of a video, from faces and audio, with JAX."""

import importlib
import os

__version__ = '0.2.0'

# TensorFlow, which reads the records, prints many messages when it is imported unless these
# variables are set first.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def __getattr__(name):
  """Loads `avjax.predict_video` when it is first used.

  `avjax.predict` is its older name. Once the module avjax.predict is imported, the name means that.
  """
  if name in ('predict_video', 'predict'):
    return importlib.import_module('avjax.inference.video').predict_video
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
