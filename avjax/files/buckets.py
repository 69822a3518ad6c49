"""Reads and writes objects of Google Cloud Storage, gs://BUCKET/NAME.

TensorStore, with which Orbax reads checkpoints, does the transfers: it finds Google's credentials,
tries again after errors, and writes an object on condition that nobody else has written it since.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED
from typing import Any

from tqdm import tqdm

from avjax.errors import InputError, PassingError, one_line

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
# How errors that may pass begin; the first is that of what has failed as often as RETRIES says.
PASSING = 'ABORTED', 'UNAVAILABLE', 'DEADLINE_EXCEEDED', 'RESOURCE_EXHAUSTED'
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
  """Turns an error of TensorStore into an InputError of one line, a PassingError if it may pass."""
  try:
    yield
  except (NotImplementedError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    cause = str(error).partition(' [')[0]  # without the server's answer
    status = cause.partition(':')[0]
    remedy = REMEDIES.get(status, 'see to the network, and start the same command again')
    kind = PassingError if status in PASSING else InputError
    raise kind(f'{address}: {one_line(cause)}; {remedy}') from error


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

  def read(self, name: str, unless: bytes | None = None) -> tuple[bytes | None, bytes]:
    """Returns (content, generation) of an object; the content is None if there is none.

    unless: a generation; an object that still is of it is not read, and its content is None.
    """
    with reported(self.address + name):
      found = self._store.read(self._key(name), if_not_equal=unless).result()
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


def at_once(function, values: list[Any], title: str, number: int | None = None) -> None:
  """Calls a function with each value, `number` or AT_ONCE at a time; the first error ends it.

  There may be millions of values: only twice as many as that are waiting or called at a time.
  """
  number, left = number or AT_ONCE, iter(values)
  bar = tqdm(desc=title, total=len(values), leave=False, disable=None, delay=1)
  with concurrent.futures.ThreadPoolExecutor(number) as pool, bar:
    futures = {pool.submit(function, value) for value in itertools.islice(left, 2 * number)}
    try:
      while futures:
        done, futures = concurrent.futures.wait(futures, return_when=FIRST_COMPLETED)
        for future in done:
          future.result()
        bar.update(len(done))
        futures |= {pool.submit(function, value) for value in itertools.islice(left, len(done))}
    except BaseException:
      pool.shutdown(cancel_futures=True)
      raise
