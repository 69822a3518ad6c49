"""Predicts valence and arousal of each frame of a video, from faces and audio, with JAX."""

import importlib
import os
import sys

__version__ = '0.2.0'


def leave_current_folder():
  """Takes the current folder off sys.path, where `python -m avjax.main` has put it.

  It may be a stranger's and hold a jax.py. Until here nothing is imported but what Python has
  loaded by itself. The folder stays where this package itself lies in it, as in a checkout. It
  stays too where another program than a command of this package imports it.
  """
  argv = getattr(sys, 'argv', [])
  if argv[:1] != ['-m'] or sys.flags.safe_path:  # it is '-m' while Python looks for the command
    return
  command = sys.orig_argv[-len(argv)]  # the word before the arguments: NAME or -mNAME
  if command.startswith('-'):
    command = command.partition('m')[2]
  try:
    folder = os.getcwd()
  except OSError:  # it has been removed, and is not on the path
    return
  is_own = __path__[0] == os.path.join(folder, __name__)
  if command.startswith(f'{__name__}.') and sys.path[0] == folder and not is_own:
    del sys.path[0]


leave_current_folder()

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
