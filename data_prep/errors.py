"""Bad input, said in one line."""

import sys


class InputError(ValueError):
  """What a person gave cannot be used. The message is one line: what is wrong, where, and what to do."""


def run(main, *args):
  """Calls main(*args) and exits with its status; an InputError becomes one line on stderr and exit code 2."""
  try:
    status = main(*args)
  except InputError as error:
    print('error:', ' '.join(str(error).split()), file=sys.stderr)
    status = 2
  sys.exit(status)
