"""Reads files: text, JSON, SHA-256. Nothing but regular files is opened, and reading is bounded."""

import codecs
import errno
import hashlib
import json
import os
import stat

from avjax.errors import InputError, one_line

# Bytes that are read of one file; the objects that Python makes of them take up to 30 times that.
MOST_TEXT = 256 << 20
MOST_JSON = 64 << 20


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
