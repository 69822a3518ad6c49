"""Reports errors that a person can act on, in one line: what is wrong, where, and what to do."""

import contextlib
import errno
import sys

# What to do about an error that the operating system reports for a path.
REMEDIES = {
  errno.ENOSPC: 'make room and start again',
  errno.EDQUOT: 'make room and start again',
  errno.EFBIG: 'make room and start again',
  errno.EEXIST: 'choose another place',
  errno.ENOTDIR: 'choose another place',
  errno.ENAMETOOLONG: 'choose a shorter name',
  errno.EROFS: 'choose a place that can be written',
  errno.EACCES: 'choose a place that may be written and read',
}


class InputError(ValueError):
  """Reports input that cannot be used.

  The message is one line: what is wrong, where, and what to do.
  """


@contextlib.contextmanager
def writing(path):
  """Turns an OSError that REMEDIES lists into an InputError that says what to do.

  The InputError names the file of the OSError, or `path` if that names none.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in REMEDIES:
      raise
    raise InputError(
      f'{error.filename or path}: {error.strerror}; {REMEDIES[error.errno]}'
    ) from error


@contextlib.contextmanager
def as_input_error(what):
  """Turns the errors that unexpected contents raise into an InputError that begins with `what`."""
  try:
    yield
  except InputError:
    raise
  except (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
  ) as error:
    lacks = 'it lacks ' if isinstance(error, KeyError) else ''
    raise InputError(f'{what}: {lacks}{one_line(error)}') from error


def raise_if_any(what, names, hint=''):
  """Raises InputError if there are names: it says how many, and shows the first three."""
  if names:
    shown = ', '.join(names[:3]) + (', ...' if len(names) > 3 else '')
    raise InputError(f'{len(names)} {what}: {shown}{hint}')


def one_line(error):
  """Returns the first 100 characters of an error's message, printable and on one line."""
  text = ' '.join(str(error).split())
  return ''.join(filter(str.isprintable, text))[:100] or type(error).__name__


def print_error(error):
  """Prints an InputError as one line on stderr."""
  print('error:', ' '.join(str(error).split()), file=sys.stderr)


def run_command(main, *args):
  """Calls main(*args) and exits with the status that it returns.

  An InputError is printed, and the status is 2.
  """
  try:
    with writing('the output'):
      status = main(*args)
  except InputError as error:
    print_error(error)
    status = 2
  sys.exit(status)
