"""Copies folders and files of a bucket to this machine and back.

On a bucket there are whole objects and nothing else: none can be locked, renamed or written at its
end, and libraries that map files into memory, or read a few bytes at a time, cannot read them. So
everything in avjax works on a copy in a folder of this machine, exactly as on any folder, and what
has changed in it is written back, object by object, by `Copy.publish`. Messages name the copy by
its address.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import itertools
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator

from avjax import errors
from avjax.errors import InputError
from avjax.files.buckets import Bucket, at_once, is_address
from avjax.files.folders import may_write_in, user_cache
from avjax.files.locks import LOCK
from avjax.files.writing import TEMPORARY, replacing, temporary_folder
from avjax.files.writing import check_free as check_free_here

# A file of TensorFlow's checkpoints, which are named by what stands before it.
PART = re.compile(r'\.(index|data-\d{5}-of-\d{5})')


class Copy:
  """The copy on this machine of a folder on a bucket.

  path: the copy, a folder of the same name. It is removed when the process ends; what a killed one
    has left is removed by the next.

  A subclass says what is left out, and in which order the rest is written back.
  """

  must_exist = True  # and if it does not, `fetch` raises InputError
  # Only the owner removes what is not whole: it may be what the owner is writing just now.
  is_owner = True

  def __init__(self, address: str):
    self.bucket, self.lock = Bucket(address), None
    self.path = own_folder() / self.bucket.address.rsplit('/', 1)[-1]
    errors.COPIED_FROM[str(self.path)] = self.bucket.address
    self.path.mkdir()
    self.published = {}  # {name: (time, size) of the file as it is on the bucket}
    self.there = set()  # names of the objects that this copy answers for
    self.generations = {}  # of the objects as this copy has read or written them

  def is_needed(self, name: str) -> bool:
    """Tells whether an object is copied. What is not is left as it is on the bucket."""
    del name
    return True

  def whole(self, names: set[str]) -> set[str]:
    """Returns those of the names that belong to something whole.

    On the bucket, the owner removes the others later; of this machine, they are not written.
    """
    return names

  def rank(self, name: str) -> int:
    """Returns when an object is written: after all of a lower rank. It is removed before these."""
    del name
    return 0

  def mark(self, name: str) -> str:
    """Returns the name of the object without which `name` does not count; '' if there is none."""
    del name
    return ''

  def fetch(self) -> pathlib.Path:
    """Copies the folder here, and returns its path.

    Raises InputError for a name that is not a path below a folder, and for a folder that changes
    meanwhile.
    """
    names = {name for name in self.bucket.names() if name.startswith('/')}
    if self.must_exist and not names:
      raise InputError(f'{self.bucket.address} holds nothing, or may not be listed by you')
    names = set(filter(self.is_needed, names - {f'/{LOCK}'}))
    wanted = sorted(self.whole(names))
    for name in wanted:
      check_below(self.bucket.address, name)
    at_once(self._fetch_one, wanted, f'copying {self.bucket.address}')
    self.published = self._state()  # only now that all of them are here
    self.there = names if self.is_owner else set(wanted)
    return self.path

  def _fetch_one(self, name: str):
    content, self.generations[name] = self.bucket.read(name)
    if content is None:
      raise InputError(f'{self.bucket.address}{name} has vanished meanwhile; start again')
    path = self.path / name[1:]
    with errors.writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(content)

  def _state(self) -> dict[str, tuple[int, int]]:
    """Returns {name: (time of change, size)} of all files but those that are not finished."""
    found = {}
    for folder, _, files in os.walk(self.path):
      for file in files:
        path = pathlib.Path(folder, file)
        name, status = f'/{path.relative_to(self.path)}', path.stat()
        if not any(part.startswith(TEMPORARY) for part in name.split('/')):
          found[name] = status.st_mtime_ns, status.st_size
    whole = self.whole({*found})
    return {name: state for name, state in found.items() if name in whole}

  def publish(self) -> None:
    """Writes what has changed in the copy to the bucket, in the order of `rank`.

    What is gone here is removed last. Where it is killed in between, what has its `mark` is whole.
    Raises InputError where the bucket cannot be written; all of it is then written by the
    next call.
    """
    here = self._state()
    changed = {name for name in here if self.published.get(name) != here[name]}
    gone = self.there - here.keys()
    # Something whole is written anew: it does not count until that is done.
    doubtful = {mark for mark in map(self.mark, changed | gone) if mark in self.there & here.keys()}
    self._by_rank(self._remove_one, doubtful, backwards=True)
    self._by_rank(self._publish_one, changed | doubtful)
    self._by_rank(self._remove_one, gone, backwards=True)
    self.published = here

  def _by_rank(self, function, names: set[str], backwards: bool = False):
    """Calls a function with each of the names, those of one rank together."""
    ordered = sorted(names, key=self.rank, reverse=backwards)
    for _, same in itertools.groupby(ordered, self.rank):
      at_once(function, list(same), f'writing to {self.bucket.address}')

  def _publish_one(self, name: str):
    self.there.add(name)
    self._write(name, (self.path / name[1:]).read_bytes())

  def _remove_one(self, name: str):
    self._write(name, None)
    self.there.discard(name)

  def _write(self, name: str, content: bytes | None):
    if not self.lock:
      self.bucket.write(name, content)
      return
    generation = self.generations.pop(name, b'')
    # What a program that knows no lock has written, as an evaluation does, is replaced.
    while not (written := self.lock.write(name, content, generation)):
      generation = b''
    self.generations[name] = written


def check_below(address: str, name: str) -> None:
  """Raises InputError for the name of an object that is not a path below a folder.

  An object may have any name, and its copy must not be written elsewhere.
  """
  parts = name.removeprefix('/').split('/')
  if {'', '.', '..'} & {*parts} or '\0' in name:
    raise InputError(f'{address} holds an object {name!r}, of which no file can be made; remove it')


def own_folder() -> pathlib.Path:
  """Returns a new folder in that of this process for copies; TMPDIR names the disk that has it."""
  return pathlib.Path(tempfile.mkdtemp(dir=_folder_of_process()))


@functools.cache
def _folder_of_process() -> pathlib.Path:
  stack = contextlib.ExitStack()
  atexit.register(stack.close)
  return stack.enter_context(temporary_folder(tempfile.gettempdir()))


def cache_folder(kind: str) -> pathlib.Path:
  """Returns the folder for copies of one kind, such as 'records', that later commands find again.

  It is in the cache folder of the user. Where that cannot be written, it is one of this process.
  """
  cache = user_cache('avjax')
  if not cache or not may_write_in(cache):
    cache = own_folder()
  return cache / kind


def copy_of_file(path: str | pathlib.Path) -> str | pathlib.Path:
  """Returns path, or a copy on this machine of the file that it names on a bucket.

  Of a checkpoint of TensorFlow, which is named by how its files begin, all of them are copied.
  Raises InputError if there is none.
  """
  if not is_address(path):
    return path
  bucket = Bucket(str(path))
  contents = {'': bucket.read('')[0]}
  if contents[''] is None:
    contents = {name: bucket.read(name)[0] for name in bucket.names() if PART.fullmatch(name)}
  copy = own_folder() / bucket.address.rsplit('/', 1)[-1]
  errors.COPIED_FROM[str(copy)] = bucket.address
  for name, content in contents.items():
    with errors.writing(copy):
      pathlib.Path(f'{copy}{name}').write_bytes(content or b'')
  if not contents:
    raise InputError(f'{path} does not exist')
  return copy


@contextlib.contextmanager
def new_file(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields path, or a file on this machine that is then written to the bucket that path names.

  Raises InputError, before and after, if there is something on the bucket: it is not overwritten.
  """
  if not is_address(path):
    yield pathlib.Path(path)
    return
  check_free(path)
  bucket = Bucket(str(path))
  content, nothing = bucket.read('')  # it may not be allowed to list what is there
  if content is not None:
    raise InputError(f'{path} exists; it is not overwritten')
  copy = own_folder() / bucket.address.rsplit('/', 1)[-1]
  errors.COPIED_FROM[str(copy)] = bucket.address
  yield copy
  if not bucket.write('', copy.read_bytes(), nothing):
    raise InputError(f'{path} exists; it is not overwritten')


class NewCopy(Copy):
  """A folder that is not on the bucket yet; the file named `last` is written after the others."""

  def __init__(self, address: str, last: str):
    super().__init__(address)
    self.last = last

  def rank(self, name: str) -> int:
    return name == f'/{self.last}'


@contextlib.contextmanager
def new_folder(path: str | pathlib.Path, last: str) -> Iterator[pathlib.Path]:
  """Yields path, or a folder on this machine that is then written to the bucket that path names.

  last: the file in it that is written last, by which a reader knows that all are there.
  Raises InputError, before and after, if there is something on the bucket: it is not overwritten.
  """
  if not is_address(path):
    yield pathlib.Path(path)
    return
  copy = NewCopy(str(path), last)

  def check():
    check_free(path)
    if copy.bucket.read(f'/{last}')[0] is not None:  # its folder may not be listed
      raise InputError(f'{path} exists; it is not overwritten')

  check()
  yield copy.path
  check()  # again, since making it may have taken minutes
  copy.publish()


def check_free(path: str | pathlib.Path) -> None:
  """Raises InputError unless there is nothing at a path, or an empty folder.

  Anything of that name on a bucket is in the way, since there are no empty folders.
  """
  if not is_address(path):
    check_free_here(path)
  elif any(not name or name.startswith('/') for name in Bucket(str(path)).names()):
    raise InputError(f'{path} exists; it is not overwritten')


def copy_to_cache(
  bucket: Bucket, name: str, path: pathlib.Path, sha256: str = '', hint: str = ''
) -> None:
  """Copies an object of a bucket to a file of this machine, in one step.

  Raises InputError, and leaves what is there, if the object is missing or has not the SHA-256; the
  hint is then added.
  """
  content, _ = bucket.read(name)
  if content is None:
    raise InputError(f'{bucket.address}{name} is missing{hint}')
  if sha256 and hashlib.sha256(content).hexdigest() != sha256:
    raise InputError(f'{bucket.address}{name} is damaged: its SHA-256 is another one{hint}')
  with errors.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
      partial.write_bytes(content)
