"""Reports errors that a person can act on, in one line: what is wrong, where, and what to do."""

import contextlib
import errno
import gc
import io
import logging
import os
import re
import select
import sys
import tempfile

# What to do about an error that the operating system reports for a path.
REMEDIES = {
  errno.ENOSPC: 'make room and start again',
  errno.EDQUOT: 'make room and start again',
  errno.EFBIG: 'make room and start again',
  errno.EEXIST: 'choose another place',
  errno.EISDIR: 'remove that folder, or choose another place',
  errno.ENOTDIR: 'choose another place',
  errno.ENAMETOOLONG: 'choose a shorter name',
  errno.EROFS: 'choose a place that can be written',
  errno.EACCES: 'choose a place that may be written and read',
}
CURSOR_UP = re.compile(r'(\x1b\[A)+')  # what tqdm writes where it draws several bars

# {a copy on this machine: what it is a copy of, as gs://bucket/run}; avjax/files/bucket_copies.py
COPIED_FROM = {}

OUTPUT_CLOSED = 141  # exit status where the reader of the output has gone, as a shell reports it


class InputError(ValueError):
  """Reports input that cannot be used.

  Its message is one line: what is wrong, where, and what to do. Where several mistakes are told at
  once, `args` has a line of each. A copy in COPIED_FROM is named by what it is a copy of.

  status: the exit status of a command that it ends.
  """

  status = 2

  def __init__(self, *messages):
    super().__init__(*(as_named(str(message)) for message in messages))

  def __str__(self):
    return '\n'.join(self.args)


class PassingError(InputError):
  """Reports what may pass by itself, such as a server that is down: start the same command again.

  What starts machines does so after this status, as after a stop by launch/run.sh.
  """

  status = 75  # EX_TEMPFAIL of sysexits.h


@contextlib.contextmanager
def writing(path):
  """Turns an OSError that REMEDIES lists into an InputError that says what to do.

  The InputError names the file of the OSError, the one in the way where that was renamed to
  another, or `path` if it names none, as `on_disk` does.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in REMEDIES:
      raise
    in_the_way = error.filename2 if error.errno == errno.EISDIR else None
    named = in_the_way or error.filename or path
    raise InputError(f'{on_disk(named)}: {error.strerror}; {REMEDIES[error.errno]}') from error


def on_disk(path):
  """Returns a path as an error of the disk names it: of a copy in COPIED_FROM also where that is.

  Elsewhere a copy is named by what it is a copy of, and nobody would look for the error here.
  """
  for copy in COPIED_FROM:
    if f'{path}'.startswith(copy):
      folder, temporary = os.path.dirname(copy), tempfile.gettempdir()
      if os.path.dirname(os.path.dirname(folder)) == temporary:  # as `files.own_folder` makes them
        folder = f'{temporary}, which TMPDIR names'
      return f'the copy of {as_named(str(path))} in {folder}'
  return f'{path}'


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


def one_line(error):
  """Returns the first 100 characters of an error's message, printable and on one line."""
  text = ' '.join(str(error).split())
  return ''.join(filter(str.isprintable, text))[:100] or type(error).__name__


def as_named(text):
  """Returns text in which each copy in COPIED_FROM is named by what it is a copy of."""
  for copy, origin in list(COPIED_FROM.items()):
    text = text.replace(copy, origin)
  return text


def visible(text):
  """Returns text with each character that does not print as its escape, such as \\x1b, on one line.

  Names, metadata and messages of other people's files go through this to a terminal, a log or a
  table: there they could hide or rewrite what stands before them, or turn its direction. Copies are
  named as `as_named` does.
  """
  text = as_named(text)
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def make_record_visible(record):
  """Makes the message of a log record visible: a filter of a logger, which lets all pass."""
  record.msg, record.args = visible(record.getMessage()), None
  return True


class VisibleStream:
  """Writes text to a stream, with each character that does not print as its escape.

  Line breaks and tabs stay, and so does what tqdm writes to draw a bar again.
  """

  def __init__(self, stream):
    self._stream = stream

  def write(self, text):
    """Writes text; returns its length."""
    if not CURSOR_UP.fullmatch(text):
      start = '\r' * text.startswith('\r')
      pieces = re.split('([\n\t])', text[len(start) :])
      pieces[::2] = map(visible, pieces[::2])
      text = start + ''.join(pieces)
    return self._stream.write(text)

  def __getattr__(self, name):
    return getattr(self._stream, name)


def print_error(error: InputError) -> None:
  """Prints each message of an InputError as one line on stderr, if anybody still reads that."""
  with contextlib.suppress(OSError):
    for message in error.args:
      # In one piece, since other processes may write to the same place, and print() writes the end
      # of the line by itself.
      sys.stderr.write(f'error: {visible(" ".join(message.split()))}\n')


def run_command(main, *args, buckets=(), others=()):
  """Calls main(*args) and exits with the status that it returns.

  buckets, others: the options that take an address, see `check_addresses`.

  An InputError is printed, and the status is the one that it has, 2 or 75. Where the reader of the
  output has gone, as after `| head`, the command ends quietly with OUTPUT_CLOSED.
  """
  prepare_streams()
  # It may name what a notebook draws with, which matplotlib refuses elsewhere. Commands draw files.
  os.environ.pop('MPLBACKEND', None)
  os.environ['PYTHON_COLORS'] = '0'  # VisibleStream would spell out the colours of a traceback
  # matplotlib logs a warning where it finds no home folder, and when it lists the fonts.
  logging.getLogger('matplotlib').setLevel(logging.ERROR)
  try:
    check_addresses(sys.argv[1:], buckets, others)
    pass_over_settings()
    check_temporary_folder()
    with writing('the output'):
      status = main(*args)
      sys.stdout.flush()  # now, since an error at Python's end would be no error of the command
  except InputError as error:
    print_error(error)
    status = error.status
  except BrokenPipeError:
    if not reader_has_gone(sys.stdout):  # the pipe is another one, such as that of a worker
      raise
    status = OUTPUT_CLOSED
  if not is_writable(sys.stdout):  # what is left in its buffer must not fail again at the end
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  gc.freeze()  # else Python looks through JAX's million objects once more: .9 s
  sys.exit(status)


def check_addresses(words, buckets=(), others=()):
  """Raises InputError for a word of the command line that names something on another machine.

  As a path, s3://bucket/run is a folder of this machine, and a run in it is lost with the machine.

  buckets: the options that take an address gs://, as '--workdir'; '' stands for a word without one.
  others: the options that are about another machine, and that main checks.
  """
  for before, word in zip(['', *words], words, strict=False):
    found = re.search(r'(?:^(-[^=]*)=|^|=)([a-z][a-z0-9+.-]+://.*)', word, re.IGNORECASE)
    if not found:
      continue
    option = f'--{(found[1] or before).lstrip("-")}'
    if option in others:
      continue
    if not found[1] and option not in buckets:
      option = ''
    if option not in buckets or not found[2].startswith('gs://'):
      raise InputError(
        f'{one_line(found[2])} is not on this machine, and no such address is taken here: copy it '
        'to this machine, or mount the bucket as a folder'
      )


def pass_over_settings():
  """Keeps libraries from the settings that they look for in the current folder.

  It may be a stranger's. Raises InputError where that cannot be avoided.
  """
  if os.path.lexists('.numba_config.yaml'):  # numba reads it whenever it compiles
    raise InputError(
      'the current folder holds settings of numba, .numba_config.yaml; start in another folder'
    )
  if os.path.lexists('matplotlibrc'):  # matplotlib reads it when it is imported
    with contextlib.chdir(os.path.dirname(__file__)):  # no other thread runs yet
      import matplotlib  # noqa: F401


def check_temporary_folder():
  """Raises InputError unless there is a folder for temporary files, as matplotlib and TFDS need."""
  try:
    tempfile.gettempdir()
  except FileNotFoundError as error:
    raise InputError('no folder for temporary files can be written; name one by TMPDIR') from error


def prepare_streams():
  """Makes stdin, stdout and stderr usable, whatever the command was started with and prints."""
  for name, mode in (('stdin', 'r'), ('stdout', 'w'), ('stderr', 'w')):
    if getattr(sys, name) is None:
      # It was closed (>&-), so the next file that is opened takes its number, and what libraries
      # print would land in that file.
      setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  (it stays open)
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors='backslashreplace')  # for names that the terminal cannot show
  for name in ('stdout', 'stderr'):
    if not isinstance(getattr(sys, name), VisibleStream):
      setattr(sys, name, VisibleStream(getattr(sys, name)))


def reader_has_gone(stream):
  """Tells whether a stream is a pipe that nobody reads any more."""
  poll = select.poll()
  poll.register(stream.fileno(), 0)
  return bool(poll.poll(0))


def is_writable(stream):
  """Tells whether a stream takes what is left in its buffer."""
  try:
    stream.flush()
  except OSError:
    return False
  return True
