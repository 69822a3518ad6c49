"""Turns the folder of a data set into checked records, before any training.

Of avjax it uses errors, files, data and media, and of inference what finds faces, so it loads no
JAX. TensorFlow is imported only when records are written or counted.
"""

import os
import sys


def leave_current_folder():
  """Takes the current folder off sys.path, where `python -m data_prep.build` has put it.

  It may be a stranger's and hold a jax.py. Until here nothing is imported but what Python has
  loaded by itself. The folder stays where this package itself lies in it, as in a checkout. It
  stays too where another program than a command of this package imports it.
  """
  # As in avjax, which is not imported yet: the one that is found first may be the stranger's too.
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
