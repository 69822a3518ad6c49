"""Recognises emotion in videos with JAX: valence and arousal of each frame, from face and voice."""

import importlib
import os

__version__ = '0.2.0'

# TensorFlow reads the records. It prints a page of remarks at its import unless these variables are
# set before.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def __getattr__(name):
  """Loads `avjax.predict_video` when it is first asked for.

  `avjax.predict` is its older name, until the module of the command, avjax.predict, is imported.
  """
  if name in ('predict_video', 'predict'):
    return importlib.import_module('avjax.inference.video').predict_video
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
