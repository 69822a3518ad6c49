"""Reads and writes files: JSON, SHA-256, writing in one step, locking a folder."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import tempfile

from avjax.errors import InputError


def existing_folder(path):
  """Returns path as a pathlib.Path; raises InputError unless it is a folder."""
  path = pathlib.Path(path)
  if not path.is_dir():
    raise InputError(f'{path} is not a folder')
  return path


def check_readable(path):
  """Raises InputError unless path is a file that may be read."""
  try:
    if not os.path.isfile(path):
      problem = 'is not a file' if os.path.exists(path) else 'does not exist'
      raise InputError(f'{path} {problem}')
    open(path, 'rb').close()
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from error


def sha256(*paths):
  """Returns the SHA-256, as hex digits, of one file, or of the bytes of several in order."""
  total = hashlib.sha256()
  for path in paths:
    with open(path, 'rb') as file:
      while block := file.read(1 << 20):
        total.update(block)
  return total.hexdigest()


def read_json(path, hint='is its folder the --workdir of a run?'):
  """Returns the JSON object in a file as a dict.

  Raises InputError if the file is damaged or, with the hint, if it cannot be opened.
  """
  try:
    found = json.loads(pathlib.Path(path).read_text(encoding='utf-8'))
    if not isinstance(found, dict):
      raise ValueError('it is not a JSON object')
    return found
  except PermissionError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}; {hint}') from error
  except (ValueError, RecursionError) as error:
    raise InputError(f'{path} is damaged: {error}') from error


def write_json(path, value):
  """Writes JSON in one step."""
  write_text(path, json.dumps(value, indent=1) + '\n')


def write_text(path, text):
  """Writes text in one step."""
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8')


@contextlib.contextmanager
def replacing(path):
  """Yields the path of a partial file that then replaces `path`.

  A reader sees the old file or all of the new one. The bytes are on the disk before the name is,
  so that a power cut leaves no empty file.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + '.partial')
  yield partial
  with partial.open('rb') as file:
    os.fsync(file.fileno())
  partial.replace(path)


@contextlib.contextmanager
def in_one_step(path):
  """Yields a temporary path for a file or folder, which is then renamed to `path`.

  If writing fails, nothing is left. Unlike `replacing` this never overwrites: it raises InputError
  if there is something at path other than an empty folder, or if nothing can be written there.
  """
  path = pathlib.Path(path)
  check_free(path)
  try:
    nearest = next(folder for folder in path.absolute().parents if folder.is_dir())
    with tempfile.TemporaryDirectory(dir=nearest, prefix='.avjax-') as temporary:
      partial = pathlib.Path(temporary) / 'new'
      yield partial
      path.parent.mkdir(parents=True, exist_ok=True)
      check_free(path)  # again, since making it may have taken minutes
      partial.rename(path)
  except OSError as error:
    raise InputError(f'{path} cannot be written: {error.strerror}') from error


def check_free(path):
  """Raises InputError unless there is nothing at path, or an empty folder.

  The current folder is not free, even if it is empty.
  """
  path = pathlib.Path(path)
  try:
    free = not os.path.lexists(path) or (path.name and path.is_dir() and not any(path.iterdir()))
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from error
  if not free:
    raise InputError(f'{path} exists; it is not overwritten')


@contextlib.contextmanager
def locked(folder, busy):
  """Makes a folder if need be, and holds a lock on it.

  Raises InputError with the text `busy` where another process holds the lock. The operating system
  releases the lock however the process ends. On a file system without locks, none is held.
  """
  folder, handle = pathlib.Path(folder), None
  try:
    try:
      folder.mkdir(parents=True, exist_ok=True)
      handle = os.open(folder, os.O_RDONLY)
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(busy) from None
    except OSError as error:
      if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL):
        raise InputError(f'{folder}: {error.strerror}') from error
    yield
  finally:
    if handle is not None:
      os.close(handle)
