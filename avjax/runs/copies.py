"""Copies the folder of a run from a bucket to this machine, and back while it is trained.

avjax/files/bucket_copies.py says how. What a kill leaves on the bucket is a run that the same
command continues: a checkpoint counts by its MARK, which is written last and removed first, the
best state is written before the state that names it, and an older state is removed when a newer one
is there.
"""

from __future__ import annotations

import contextlib
import pathlib
import re
import shutil
from collections.abc import Iterator

from avjax import files
from avjax.errors import InputError
from avjax.runs.folder import CHECKPOINTS, CONFIG, VERSIONS
from avjax.system import sharding

MARK = '_CHECKPOINT_METADATA'  # a file that Orbax writes into each checkpoint
CHECKPOINT = re.compile(rf'.*/{CHECKPOINTS}/(?P<kind>best|last)/\d+/')
UNFINISHED = '.orbax-checkpoint-tmp'  # in the name of a checkpoint that Orbax has not finished


class RunCopy(files.Copy):
  """The copy of a run, or of a folder of several."""

  def whole(self, names: set[str]) -> set[str]:
    """Leaves out the checkpoints that have no MARK, and what Orbax has not finished."""
    return {
      name
      for name in names
      if UNFINISHED not in name and (not (mark := self.mark(name)) or mark in names)
    }

  def rank(self, name: str) -> int:
    """Puts VERSIONS first, then CONFIG, the best state and all else, and the newest state last."""
    if name in (f'/{VERSIONS}', f'/{CONFIG}'):
      return (f'/{VERSIONS}', f'/{CONFIG}').index(name)
    found = CHECKPOINT.match(name)
    return 2 + 2 * bool(found and found['kind'] == 'last') + (name == self.mark(name))

  def mark(self, name: str) -> str:
    """Returns the MARK of the checkpoint that a file is in."""
    found = CHECKPOINT.match(name)
    return f'{found[0]}{MARK}' if found else ''


class BestCopy(RunCopy):
  """The copy of a run, or of a folder of several, without the arrays of the newest state."""

  is_owner = False

  def is_needed(self, name: str) -> bool:
    found = CHECKPOINT.match(name)
    return not (found and found['kind'] == 'last' and name.startswith(f'{found[0]}state/'))


class SettingsCopy(RunCopy):
  """The copy of a run without the arrays of its states, or of a folder that is not there yet."""

  must_exist = False

  def is_needed(self, name: str) -> bool:
    found = CHECKPOINT.match(name)
    return not (found and name.startswith(f'{found[0]}state/'))


def here(workdir: str | pathlib.Path, kind: type[RunCopy] = BestCopy) -> str | pathlib.Path:
  """Returns workdir, or a copy on this machine if it is on a bucket.

  Raises InputError where that cannot be read.
  """
  return kind(str(workdir)).fetch() if files.is_address(workdir) else workdir


@contextlib.contextmanager
def evaluated(workdir: str | pathlib.Path) -> Iterator[str | pathlib.Path]:
  """Yields workdir, or a copy whose new files are then written to the bucket."""
  if not files.is_address(workdir):
    yield workdir
    return
  copy = BestCopy(str(workdir))
  yield copy.fetch()
  copy.publish()


TRAINED: dict[pathlib.Path, RunCopy] = {}  # the copies of this process in which it trains


@contextlib.contextmanager
def trained(workdir: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields workdir, or a copy in which this process trains, which is locked on the bucket.

  Each process of several has a copy of its own; the first one holds the lock, and writes to the
  bucket: in `publish`, and in the end, so that the log says how the run ended.

  Raises InputError where another process trains there.
  """
  if not files.is_address(workdir):
    yield pathlib.Path(workdir)
    return
  copy = RunCopy(str(workdir))
  try:
    with sharding.together():  # none reads what the owner before has not finished
      if sharding.is_primary():
        copy.lock = files.Lock(copy.bucket)
    with sharding.together():
      path = copy.fetch()  # at least the lock is there, or nothing may be listed
    TRAINED[path] = copy
    try:
      yield path
    except BaseException:
      with contextlib.suppress(InputError):
        publish(path)
      raise
    publish(path)
  finally:
    TRAINED.pop(copy.path, None)
    if copy.lock:
      copy.lock.release()
    shutil.rmtree(copy.path, ignore_errors=True)  # there may be runs after this one


def publish(workdir: str | pathlib.Path) -> None:
  """Writes what has changed in a copy that `trained` has made to its bucket.

  Of a folder of this machine there is nothing to write. Raises InputError where the bucket cannot
  be written, or where another process has taken the folder over.
  """
  copy = TRAINED.get(pathlib.Path(workdir))
  if copy and copy.lock:
    copy.publish()
