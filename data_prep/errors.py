"""Bad input, said in one line."""

import contextlib
import errno
import sys

DISK = {errno.ENOSPC: 'make room and start again', errno.EDQUOT: 'make room and start again', errno.EFBIG: 'make room and start again',
        errno.EEXIST: 'choose another place', errno.ENOTDIR: 'choose another place', errno.ENAMETOOLONG: 'choose a shorter name',
        errno.EROFS: 'choose a place that can be written', errno.EACCES: 'choose a place that may be written and read'}


class InputError(ValueError):
  """What a person gave cannot be used. The message is one line: what is wrong, where, and what to do."""


@contextlib.contextmanager
def writing(path):
  """A context in which a full or closed disk becomes an InputError that names path."""
  try:
    yield
  except OSError as error:
    if error.errno not in DISK:
      raise
    raise InputError(f'{error.filename or path}: {error.strerror}; {DISK[error.errno]}') from error


def say(error):
  """An InputError as one line on stderr."""
  print('error:', ' '.join(str(error).split()), file=sys.stderr)


def run(main, *args):
  """Calls main(*args) and exits with its status; an InputError becomes one line on stderr and exit code 2."""
  try:
    with writing('the output'):
      status = main(*args)
  except InputError as error:
    say(error)
    status = 2
  sys.exit(status)
