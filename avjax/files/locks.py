"""Locks folders against a second process, by a lock that the operating system releases."""

import contextlib
import errno
import fcntl
import os
import pathlib
import stat

from avjax.errors import InputError, on_disk, writing

LOCK = '.avjax-lock'  # the file in a locked folder that is locked in its place
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # of a file system that has none


def lock(handle):
  """Locks an open file or folder for this process, as soon as no other process has it locked.

  On a file system without locks it does nothing.
  """
  with contextlib.suppress(OSError):
    fcntl.flock(handle, fcntl.LOCK_EX)


def is_named(handle, path):
  """Tells whether an open file or folder is the one that path names; path is not followed."""
  try:
    return os.path.samestat(os.fstat(handle), os.lstat(path))
  except FileNotFoundError:
    return False


@contextlib.contextmanager
def locked(folder, busy):
  """Makes a folder if need be, and holds a lock on it.

  Whoever may open a file may lock it. The lock is therefore on a file of its own, LOCK, which only
  those may open who may write in the folder: a person who may only read there cannot keep others
  from working.

  Raises InputError with the text `busy` where another process holds the lock. The operating system
  releases the lock however the process ends, and LOCK is removed unless the process is killed. On a
  file system without locks, none is held.
  """
  folder = pathlib.Path(folder)
  try:
    with writing(folder):
      folder.mkdir(parents=True, exist_ok=True)
      handle = open_locked(folder)
  except BlockingIOError:
    raise InputError(busy) from None
  except OSError as error:
    raise InputError(f'{on_disk(error.filename or folder)}: {error.strerror}') from error
  try:
    yield
  finally:
    # While it is locked: whoever opened it before it was removed finds that it is not named LOCK.
    with contextlib.suppress(OSError):
      (folder / LOCK).unlink()
    os.close(handle)


def open_locked(folder):
  """Opens and locks the file LOCK of a folder; raises BlockingIOError if another process holds it.

  Also raises what opening it does. A link or named pipe of this name is not opened.
  """
  flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
  may_write = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
  while True:
    handle = os.open(folder / LOCK, flags, stat.S_IRUSR | stat.S_IWUSR)
    try:
      writers = os.stat(folder).st_mode & may_write
      with contextlib.suppress(PermissionError):  # it belongs to another who may write here
        os.fchmod(handle, stat.S_IRUSR | stat.S_IWUSR | writers | writers << 1)
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError as error:
        if error.errno not in NO_LOCKS:
          raise
      if is_named(handle, folder / LOCK):
        return handle
    except BaseException:
      os.close(handle)
      raise
    os.close(handle)  # its owner has removed it in this moment
