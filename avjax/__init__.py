"""Continuous audio-visual emotion recognition in JAX: valence and arousal, frame by frame, from a face and a voice."""

import importlib
import os

__version__ = '0.2.0'

# TensorFlow, which reads the records, greets with a page of remarks unless it is told not to before its import.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def __getattr__(name):
  """Loads `avjax.predict_video` when it is first asked for; `avjax.predict` is its older name."""
  if name in ('predict_video', 'predict'):
    return importlib.import_module('avjax.inference.video').predict_video
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
