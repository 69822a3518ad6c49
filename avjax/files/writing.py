"""Writes files and folders in one step: a reader sees the old one or all of the new one.

What is not finished has a random name that nobody else has made, TEMPORARY and eight characters;
opening it follows no link. What killed processes have left under such names is removed by
`remove_abandoned`.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import re
import secrets
import shutil
import stat
import tempfile

from avjax.errors import InputError, on_disk
from avjax.files.locks import is_named, lock

TEMPORARY = '.avjax-'  # begins the name of a file or folder that is not finished
UNFINISHED = re.compile(re.escape(TEMPORARY) + r'[a-z0-9_]{8}(\.\w+)?')


def write_json(path, value):
  """Writes JSON in one step."""
  write_text(path, json.dumps(value, indent=1) + '\n')


def write_text(path, text, errors='strict'):
  """Writes text in UTF-8, in one step. errors: what `open` takes."""
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8', errors=errors)


@contextlib.contextmanager
def replacing(path):
  """Yields the path of a new, empty file that then replaces `path`.

  It ends like `path`, as programs that look at the ending need. A reader sees the old file or all
  of the new one, and a link at `path` is replaced, not followed. The bytes are on the disk before
  the name is, so that a power cut leaves no empty file. If writing fails, the new file is removed;
  if the process is killed, `remove_abandoned` removes it.
  """
  path = pathlib.Path(path)
  partial, handle = create_locked(path.parent, path.suffix)
  try:
    yield partial
    os.fsync(handle)
    partial.replace(path)
  except BaseException:
    partial.unlink(missing_ok=True)
    raise
  finally:
    os.close(handle)


def create_locked(folder, suffix):
  """Creates a file under a random name; returns its path, and its handle, which is locked."""
  suffix = suffix if UNFINISHED.fullmatch(f'{TEMPORARY}12345678{suffix}') else ''
  flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
  while True:
    path = folder / f'{TEMPORARY}{secrets.token_hex(4)}{suffix}'
    try:
      handle = os.open(path, flags, 0o666)
    except FileExistsError:
      continue
    lock(handle)
    if is_named(handle, path):
      return path, handle
    os.close(handle)  # before it was locked, another process took it for abandoned


def open_to_append(path, errors='strict'):
  """Opens a text file in UTF-8 to write at its end; it is made if need be.

  Raises InputError for anything but a regular file with one name: through a link, or a second name
  in another folder (a hard link), another file would be written.
  """
  flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  try:
    handle = os.open(path, flags, 0o666)
  except OSError as error:
    if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a pipe that nobody reads
      raise
    raise InputError(f'{path} is not a regular file; remove it') from error
  found = os.fstat(handle)
  if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
    os.close(handle)
    problem = 'has a second name (a hard link)' if stat.S_ISREG(found.st_mode) else 'is not a file'
    raise InputError(f'{path} {problem}, so that nothing is added to it; put a copy in its place')
  return open(handle, 'a', encoding='utf-8', errors=errors)


@contextlib.contextmanager
def temporary_folder(parent):
  """Yields a new folder in `parent`, which is removed in the end with what is left in it.

  Those that killed processes have left in parent are removed first. A folder in use is locked, so
  that no other process takes it for one of them.
  """
  remove_abandoned(parent)
  while True:
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent, prefix=TEMPORARY))
    try:
      handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
      continue  # before it was locked, another process took it for abandoned
    lock(handle)
    if is_named(handle, folder):
      break
    os.close(handle)
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def remove_abandoned(parent):
  """Removes the unfinished files and folders in `parent` that no process has locked any more.

  They stay where the file system has no locks.
  """
  for path in pathlib.Path(parent).glob(f'{TEMPORARY}*'):
    if not UNFINISHED.fullmatch(path.name):
      continue
    with contextlib.suppress(OSError):
      handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not is_named(handle, path):
          continue
        if stat.S_ISDIR(os.fstat(handle).st_mode):
          shutil.rmtree(path)
        elif stat.S_ISREG(os.fstat(handle).st_mode):
          path.unlink()
      finally:
        os.close(handle)


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
    with temporary_folder(nearest) as temporary:
      partial = temporary / 'new'
      yield partial
      path.parent.mkdir(parents=True, exist_ok=True)
      check_free(path)  # again, since making it may have taken minutes
      partial.rename(path)
  except OSError as error:
    raise InputError(f'{on_disk(path)} cannot be written: {error.strerror}') from error


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
