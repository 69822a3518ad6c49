"""Bad input, said in one line."""

import errno
import sys

DISK = {errno.ENOSPC: 'make room and start again', errno.EDQUOT: 'make room and start again', errno.EFBIG: 'make room and start again',
        errno.EROFS: 'choose a place that can be written', errno.EACCES: 'choose a place that may be written and read'}


class InputError(ValueError):
  """What a person gave cannot be used. The message is one line: what is wrong, where, and what to do."""


def run(main, *args):
  """Calls main(*args) and exits with its status; an InputError becomes one line on stderr and exit code 2."""
  try:
    status = main(*args)
  except InputError as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    status = 2
  except OSError as error:  # a full or closed disk, wherever it is met; anything else is a mistake of ours
    if error.errno not in DISK:
      raise
    print(f'error: {error.filename or "writing"}: {error.strerror}; {DISK[error.errno]}', file=sys.stderr)
    status = 2
  sys.exit(status)
