"""Tells why a checkpoint cannot be restored: damage, the operating system, or another cause."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.metadata
import json
import logging
import os
import pathlib
import re
import sys
import time
from collections.abc import Iterator

from avjax import files
from avjax.errors import InputError, one_line
from avjax.runs.folder import VERSIONS

ORBAX = 'orbax-checkpoint'
# Errors of the operating system that a checkpoint has of its own. Any other, such as a right that
# is missing, can be mended, and an older checkpoint is no way out of it.
FILE_ERRORS = (errno.ENOENT, errno.EIO, errno.EISDIR)
# What is raised where a file is missing or cut, and how TensorStore's messages about that begin.
CUT = (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError)
CUT_ARRAYS = ('OUT_OF_RANGE', 'NOT_FOUND', 'FAILED_PRECONDITION')
CHECKSUM_OF_ARRAYS = 'DATA_LOSS'
# Seconds to wait for the reads or writes that were under way when one failed; they fail within
# milliseconds of each other.
LATE_TASKS = 0.5
# A version of a package: it becomes part of a command that a person may copy.
VERSION = r'\d{1,4}(\.\w{1,10}){1,5}'


class Damaged(ValueError):
  """Reports that a checksum of a checkpoint differs."""


class Foreign(ValueError):
  """Reports a checkpoint that is whole, but is none that this avjax writes for this run."""


def disk_error(error: Exception) -> int | None:
  """Returns the errno of an OSError, or of what TensorStore makes of one; None for other errors."""
  found = re.search(r"os_error_code='(\d+)'", str(error))  # '... [os_error_code='27']'
  return int(found[1]) if found else getattr(error, 'errno', None)


def is_damage(error: Exception, workdir: pathlib.Path) -> bool:
  """Tells whether an error of a restore says that a checksum differs, or that a file is cut.

  A file of another version of Orbax may look cut, so that only checksums count there.
  """
  if isinstance(error, Damaged) or str(error).startswith(CHECKSUM_OF_ARRAYS):
    return True
  cut = isinstance(error, CUT) or str(error).startswith(CUT_ARRAYS)
  return cut and not other_version(workdir)


def why_not(error: Exception, place: pathlib.Path, workdir: pathlib.Path) -> str:
  """Returns why the checkpoint at `place` of a run cannot be restored, as a sentence without end.

  Raises InputError for an error of the operating system that can be mended.
  """
  check_right_to_read(place)
  number = disk_error(error)
  if number is not None and number not in FILE_ERRORS:
    raise InputError(
      f'checkpoint {place} cannot be read: {os.strerror(number)}; '
      'mend that and start the same command again'
    ) from error
  if is_damage(error, workdir):
    return f'checkpoint {place} is damaged ({one_line(error)})'
  kind = '' if isinstance(error, Foreign) else f'{type(error).__name__}: '
  cause = f'{kind}{one_line(error)}'
  return f'checkpoint {place} cannot be restored ({cause})'


def check_right_to_read(folder: pathlib.Path) -> None:
  """Raises InputError if a file or folder under `folder` may not be read.

  Orbax reports some of them as missing.
  """
  for path in (folder, *folder.rglob('*')):
    try:
      if path.is_dir():
        os.scandir(path).close()
      elif path.is_file():  # to open a named pipe would take for ever
        path.open('rb').close()
    except PermissionError as error:
      raise InputError(
        f'{path} cannot be read: {error.strerror}; mend that and start the same command again'
      ) from error
    except OSError:  # the restore says what it makes of that
      continue


def other_version(workdir: pathlib.Path) -> str | None:
  """Returns the version of Orbax that a run was begun with; None if it is the one installed."""
  try:
    begun_with = files.read_json(workdir / VERSIONS).get(ORBAX)
  except InputError:  # nothing is known of it
    return None
  if not re.fullmatch(VERSION, str(begun_with), re.ASCII):
    return None
  return begun_with if begun_with != importlib.metadata.version(ORBAX) else None


def remedy(workdir: pathlib.Path, otherwise: str) -> str:
  """Returns what to do where a checkpoint cannot be restored: `otherwise`, or to install Orbax."""
  version = other_version(workdir)
  if not version:
    return otherwise
  installed = importlib.metadata.version(ORBAX)
  return f'Orbax {version} wrote it and this is Orbax {installed}: install {ORBAX}=={version}'


@contextlib.contextmanager
def late_tasks_silenced() -> Iterator[None]:
  """Silences the warnings of Orbax's event loop, which a failed save or restore closes.

  The first array that fails closes the loop. The others fail a moment later, in threads of
  TensorStore, where Python can only call sys.unraisablehook with 'Event loop is closed', and
  asyncio logs their errors, since nobody waits for them. After a failure this context therefore
  waits for them before it puts the hook and the log back. Everything else goes to the hook that was
  there.
  """
  hook, log = sys.unraisablehook, logging.getLogger('asyncio')
  disabled = log.disabled

  def pass_on(unraisable):
    if str(unraisable.exc_value) != 'Event loop is closed':
      hook(unraisable)

  sys.unraisablehook, log.disabled = pass_on, True
  try:
    yield
  except Exception:
    time.sleep(LATE_TASKS)
    gc.collect()  # the closed loop and its tasks, which may call the hook as they are deleted
    raise
  finally:
    sys.unraisablehook, log.disabled = hook, disabled
