"""Copies folders and files of Google Cloud Storage, gs://BUCKET/NAME, to this machine and back.

On a bucket there are whole objects and nothing else: none can be locked, renamed or written at its
end, and libraries that map files into memory, or read a few bytes at a time, cannot read them. So
everything in avjax works on a copy in a folder of this machine, exactly as on any folder, and what
has changed in it is written back, object by object, by `Copy.publish`. Messages name the copy by
its address.

TensorStore, with which Orbax reads checkpoints, does the transfers: it finds Google's credentials,
tries again after errors, and writes an object on condition that nobody else has written it since.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import json
import os
import pathlib
import re
import secrets
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from avjax import errors
from avjax.errors import InputError, one_line
from avjax.files.locks import LOCK
from avjax.files.writing import TEMPORARY, replacing, temporary_folder
from avjax.files.writing import check_free as check_free_here

SCHEME = 'gs://'
ADDRESS = re.compile(r'gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])((?:/[^/\0]+)*)/?')
# A failed request is tried again after 1, 2, 4, 8, 16, 32, 32 and 32 s at most, two minutes.
RETRIES = {'max_retries': 8, 'initial_delay': '1s', 'max_delay': '32s'}
# A connection on which less than a byte a second has come for so many seconds is cut and retried.
STALLED = {
  'TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS': '60',
  'TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES': '1',
}
AT_ONCE = 4  # objects, each of which is in memory as a whole
# A file of TensorFlow's checkpoints, which are named by what stands before it.
PART = re.compile(r'\.(index|data-\d{5}-of-\d{5})')

BEAT = 20  # seconds from one sign of life of an owner to the next
STALE = 120  # seconds without one, after which an owner is taken for dead
LONGEST_LOCK = 4096  # bytes
REMEDIES = {
  'PERMISSION_DENIED': 'log in by `gcloud auth application-default login`, or ask its owner for '
  'the right',
  'NOT_FOUND': 'is that the name of a bucket?',
}


def is_address(path: str | pathlib.Path) -> bool:
  """Tells whether a path is the address of something on a bucket."""
  return isinstance(path, str) and path.startswith(SCHEME)


def below(folder: str | pathlib.Path, name: str) -> str | pathlib.Path:
  """Returns the path of something in a folder, or its address if the folder is on a bucket."""
  if not is_address(folder):
    return pathlib.Path(folder, name)
  return f'{str(folder).rstrip("/")}/{name}'.rstrip('/')


@contextlib.contextmanager
def reported(address: str) -> Iterator[None]:
  """Turns an error of TensorStore into an InputError of one line."""
  try:
    yield
  except (NotImplementedError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    cause = str(error).partition(' [')[0]  # without the server's answer
    status = cause.partition(':')[0]
    remedy = REMEDIES.get(status, 'see to the network, and start the same command again')
    raise InputError(f'{address}: {one_line(cause)}; {remedy}') from error


class Bucket:
  """Reads and writes the objects whose names begin with an address.

  Names below are the rest of their names; they begin with '/' where the address is a folder. Every
  method raises InputError where the bucket cannot be reached or does not allow it, after RETRIES.
  """

  def __init__(self, address: str):
    found = ADDRESS.fullmatch(address)
    if not found or {'.', '..'} & {*found[2].split('/')}:
      raise InputError(f'{address} is no address of a folder on a bucket: gs://BUCKET/FOLDER')
    self.address = address.rstrip('/')
    os.environ.update({name: os.environ.get(name, value) for name, value in STALLED.items()})
    import tensorstore  # late, since most commands need none

    spec = {'driver': 'gcs', 'bucket': found[1], 'context': {'gcs_request_retries': RETRIES}}
    with reported(self.address):
      self._store = tensorstore.KvStore.open(spec).result()
    self._prefix = found[2].removeprefix('/')

  def _key(self, name: str) -> bytes:
    return (self._prefix + name).removeprefix('/').encode()

  def names(self) -> list[str]:
    """Returns the sorted names of all objects but the folders that a browser shows as objects.

    There are none as well where they may not be listed, since TensorStore says nothing of it.
    """
    from tensorstore import KvStore

    prefix = self._key('')
    end = prefix[:-1] + bytes([prefix[-1] + 1]) if prefix else b''
    with reported(self.address):
      keys = self._store.list(KvStore.KeyRange(prefix, end), len(prefix)).result()
    names = sorted(self._decode(key) for key in keys)
    names = names if prefix else [f'/{name}' for name in names]
    return [name for name in names if not name.endswith('/')]

  def _decode(self, key: bytes) -> str:
    try:
      return key.decode()
    except UnicodeDecodeError as error:
      raise InputError(f'{self.address} holds a name that is not UTF-8: {key!r}') from error

  def read(self, name: str) -> tuple[bytes | None, bytes]:
    """Returns (content, generation) of an object; the content is None if there is none."""
    with reported(self.address + name):
      found = self._store.read(self._key(name)).result()
    return (found.value if found.state == 'value' else None), found.stamp.generation

  def write(self, name: str, content: bytes | None, generation: bytes | None = None) -> bytes:
    """Writes an object in one step, or deletes it if the content is None.

    generation: what `read` returned, of an object or of none, or `write`: only if it is still the
      same, the object is written.
    Returns its new generation; b'' where it was not written.
    """
    with reported(self.address + name):
      written = self._store.write(self._key(name), content, if_equal=generation).result()
    return written.generation


class Lock:
  """Keeps others from training in a folder on a bucket, by an object that says who does.

  The object LOCK is created only if it is not there. It holds the owner and the time, which is
  written anew every BEAT seconds; if that has not happened for STALE seconds, the owner is dead,
  and the next one takes its place. Whoever has lost the lock in this way, as by standing still for
  as long, learns it from `check`. The clocks of the machines should agree to some seconds.
  """

  def __init__(self, bucket: Bucket):
    self.bucket, self.name, self.token = bucket, f'/{LOCK}', secrets.token_hex(16)
    self.generation, self.renewed = b'', 0.0
    self.lost, self.ended = False, threading.Event()
    self._one_at_a_time = threading.Lock()
    self._acquire()
    self._heart = threading.Thread(target=self._beat, daemon=True)
    self._heart.start()

  def _content(self) -> bytes:
    owner = f'process {os.getpid()} on {socket.gethostname()}'
    return json.dumps({'owner': owner, 'token': self.token, 'time': time.time()}).encode()

  def _acquire(self):
    """Takes the lock; waits for a sign of life of its owner, or until that is taken for dead."""
    first, begin = None, time.monotonic()
    while True:
      content, generation = self.bucket.read(self.name)
      if content is not None:
        owner, _, seconds = self._parse(content)
        silent = max(time.time() - seconds, time.monotonic() - begin)
        if first not in (None, generation):
          raise InputError(f'{self.bucket.address}: {owner} is training there; stop it first')
        if silent < STALE:
          if first is None:
            print(
              f'{self.bucket.address}: {owner} was training there {max(silent, 0):.0f} s '
              'ago; waiting to see whether it still does',
              file=sys.stderr,
            )
          first = generation
          time.sleep(BEAT / 10)
          continue
      if self._write(generation):  # else another has been faster
        return

  def _parse(self, content: bytes) -> tuple[str, str, float]:
    """Returns (owner, token, time of the last sign of life)."""
    with errors.as_input_error(
      f'{self.bucket.address}{self.name} is not of avjax; remove it if nobody trains there'
    ):
      found = json.loads(content[:LONGEST_LOCK])
      return one_line(found['owner']), found['token'], float(found['time'])

  def _write(self, generation: bytes) -> bool:
    """Writes the lock if it is of this generation; tells whether it is ours now.

    Where the answer to a request is lost, TensorStore asks again, and learns only that there is a
    newer object: its own.
    """
    written = self.bucket.write(self.name, self._content(), generation)
    if not written:
      content, written = self.bucket.read(self.name)
      if content is None or self._parse(content)[1] != self.token:
        return False
    self.generation, self.renewed = written, time.time()
    return True

  def _beat(self):
    while not self.ended.wait(BEAT):
      with contextlib.suppress(InputError):  # no network: the next one may succeed
        self._renew()

  def _renew(self):
    with self._one_at_a_time:
      if not self.lost and not self.ended.is_set():
        self.lost = not self._write(self.generation)

  def check(self) -> None:
    """Raises InputError unless the lock is still held; nothing may be written then."""
    if time.time() - self.renewed > 1:  # an object may be written once a second
      self._renew()
    if self.lost:
      raise InputError(
        f'{self.bucket.address}: another process has begun to train there, since this one was '
        f'silent for more than {STALE} s; what this one has not saved is left to that one'
      )

  def release(self) -> None:
    """Removes the lock, if it is held. If that fails, it is taken for dead after STALE seconds."""
    self.ended.set()
    with self._one_at_a_time, contextlib.suppress(InputError):
      if not self.lost and self._parse(self.bucket.read(self.name)[0] or b'{}')[1] == self.token:
        self.bucket.write(self.name, None, self.generation)


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
    content, _ = self.bucket.read(name)
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
      if self.lock:
        self.lock.check()
      at_once(function, list(same), f'writing to {self.bucket.address}')

  def _publish_one(self, name: str):
    self.there.add(name)
    self.bucket.write(name, (self.path / name[1:]).read_bytes())

  def _remove_one(self, name: str):
    self.bucket.write(name, None)
    self.there.discard(name)


def at_once(function, values: list[Any], title: str) -> None:
  """Calls a function with each value, AT_ONCE at a time; the first error ends it."""
  if not values:
    return
  with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    futures = [pool.submit(function, value) for value in values]
    try:
      done = concurrent.futures.as_completed(futures)
      for future in tqdm(done, title, len(futures), leave=False, disable=None, delay=1):
        future.result()
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise


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


def copy_to_cache(bucket: Bucket, name: str, path: pathlib.Path, sha256: str = '') -> None:
  """Copies an object of a bucket to a file of this machine, in one step.

  Raises InputError, and leaves what is there, if the object is missing or has not the SHA-256.
  """
  content, _ = bucket.read(name)
  if content is None:
    raise InputError(f'{bucket.address}{name} is missing')
  if sha256 and hashlib.sha256(content).hexdigest() != sha256:
    raise InputError(f'{bucket.address}{name} is damaged: its SHA-256 is another one')
  with errors.writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
      partial.write_bytes(content)
