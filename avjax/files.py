"""Reads and writes files: folders, text, JSON, SHA-256, writing in one step, locking a folder."""

import codecs
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat
import tempfile

import platformdirs

from avjax.errors import InputError, one_line

# What macOS, Windows and file servers leave in folders, in lower case; also all names with a dot.
NOT_OF_THE_USER = frozenset(
  {
    '__macosx',
    'icon\r',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '$recycle.bin',
    'system volume information',
    'lost+found',
    '@eadir',
    '#recycle',
  }
)
TEMPORARY = '.avjax-'  # begins the name of a folder that `temporary_folder` makes
# Bytes that are read of one file; the objects that Python makes of them take up to 30 times that.
MOST_TEXT = 256 << 20
MOST_JSON = 64 << 20
PARTIAL = '.partial'  # ends the name of a file that `replacing` has not finished


def existing_folder(path):
  """Returns path as a pathlib.Path; raises InputError unless it is a folder."""
  path = pathlib.Path(path)
  if not path.is_dir():
    raise InputError(f'{path} is not a folder')
  return path


def user_cache(program):
  """Returns the folder in which a program keeps what it can make again for this user.

  It is None where there is no home folder; otherwise it need not exist.
  """
  try:
    folder = platformdirs.user_cache_path(program)
  except RuntimeError:
    return None
  return folder if folder.is_absolute() else None  # older versions of platformdirs leave ~ in it


def may_write_in(folder):
  """Tells whether files can be written in a folder, which is made if need be."""
  try:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError:
    return False
  return True


def visible(folder):
  """Returns the entries of a folder in order of name, without those that no person put there.

  Left out are .DS_Store, ._NAME and other names that begin with a dot, and NOT_OF_THE_USER.
  """
  return sorted(
    entry
    for entry in pathlib.Path(folder).iterdir()
    if not entry.name.startswith('.') and entry.name.lower() not in NOT_OF_THE_USER
  )


def open_regular(path):
  """Opens a file to read its bytes; never waits, since it opens nothing but regular files.

  The path may pass through links. Raises InputError for a named pipe, a device or a socket, which
  may never end, and OSError as `open` does.
  """
  check_regular(path, os.stat(path).st_mode)  # before, since opening a device may set it off
  handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  try:
    check_regular(path, os.fstat(handle).st_mode)  # again, in case it has been exchanged
    return open(handle, 'rb')
  except BaseException:
    os.close(handle)
    raise


def check_regular(path, mode):
  """Raises IsADirectoryError or InputError if the mode of `os.stat` is not of a regular file."""
  if stat.S_ISDIR(mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
  if not stat.S_ISREG(mode):
    raise InputError(f'{path} is a named pipe or a device; give a regular file')


def read_bytes(path, most):
  """Returns the bytes of a file; raises InputError for more than `most` bytes.

  Raises what `open_regular` does.
  """
  with open_regular(path) as file:
    content = file.read(most + 1)
  if len(content) > most:
    raise InputError(f'{path} is too large: at most {most >> 20} MiB are read of such a file')
  return content


def read_text(path):
  """Returns the text of a file in UTF-8, or in UTF-16 if it begins with the mark of that.

  Byte order marks are left out: Windows writes one at the beginning, and a file joined from several
  has one in the middle. Raises InputError if the file cannot be read as text.
  """
  try:
    content = read_bytes(path, MOST_TEXT)
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode('utf-16' if utf16 else 'utf-8').replace('\ufeff', '')
  except OSError as error:
    raise InputError(f'{path} cannot be read as text: {error.strerror}') from error
  except UnicodeDecodeError as error:
    raise InputError(
      f'{path} cannot be read as text: {one_line(error)}; save it as UTF-8'
    ) from error
  if '\0' in text:  # UTF-16 without its mark, or no text at all
    raise InputError(f'{path} cannot be read as text: it holds zero bytes; save it as UTF-8')
  return text


def check_readable(path):
  """Raises InputError unless path is a file that may be read."""
  try:
    open_regular(path).close()
  except FileNotFoundError as error:
    raise InputError(f'{path} does not exist') from error
  except IsADirectoryError as error:
    raise InputError(f'{path} is not a file') from error
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from error


def sha256(*paths):
  """Returns the SHA-256, as hex digits, of one file, or of the bytes of several in order."""
  total = hashlib.sha256()
  for path in paths:
    with open_regular(path) as file:
      while block := file.read(1 << 20):
        total.update(block)
  return total.hexdigest()


def read_json(path, hint='is its folder the --workdir of a run?'):
  """Returns the JSON object in a file as a dict.

  Raises InputError if the file is damaged or, with the hint, if it cannot be opened.
  """
  try:
    found = json.loads(read_bytes(path, MOST_JSON))  # in any encoding of Unicode
    if not isinstance(found, dict):
      raise ValueError('it is not a JSON object')
    return found
  except PermissionError as error:
    raise InputError(f'{path} cannot be read: {error.strerror}') from error
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}; {hint}') from error
  except InputError:
    raise
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
  so that a power cut leaves no empty file. If writing fails, the partial file is removed; if the
  process is killed, `remove_partial` removes it.
  """
  path = pathlib.Path(path)
  partial = path.with_name(path.name + PARTIAL)
  with partial.open('ab') as locked_file:
    try:
      lock(locked_file.fileno())
      yield partial
      with partial.open('rb') as file:
        os.fsync(file.fileno())
      partial.replace(path)
    except BaseException:
      partial.unlink(missing_ok=True)
      raise


def remove_partial(path):
  """Removes what a process that was killed in `replacing(path)` has left.

  It stays while another process is writing it, and where the file system has no locks.
  """
  partial = pathlib.Path(path).with_name(pathlib.Path(path).name + PARTIAL)
  with contextlib.suppress(OSError), partial.open('rb') as file:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    partial.unlink()


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
      handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
      continue  # before it was locked, another process took it for abandoned
    lock(handle)
    if folder.is_dir():
      break
    os.close(handle)
  try:
    yield folder
  finally:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def remove_abandoned(parent):
  """Removes the temporary folders in `parent` that no process has locked any more.

  They stay where the file system has no locks.
  """
  for folder in pathlib.Path(parent).glob(f'{TEMPORARY}*'):
    # Eight of these characters are what tempfile puts after a prefix.
    if not re.fullmatch('[a-z0-9_]{8}', folder.name.removeprefix(TEMPORARY)):
      continue
    with contextlib.suppress(OSError):
      handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
      try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
      finally:
        os.close(handle)


def lock(handle):
  """Locks an open file or folder for this process, as soon as no other process has it locked.

  On a file system without locks it does nothing.
  """
  with contextlib.suppress(OSError):
    fcntl.flock(handle, fcntl.LOCK_EX)


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
