"""Finds the records in a TFRecord file, before TensorFlow reads them.

TensorFlow takes as much memory as the length in front of a record says, and ends the process where
there is less.
"""

import itertools
import operator
import os
import pathlib
from collections.abc import Iterable, Iterator

from avjax import files
from avjax.errors import InputError

LENGTH = 8  # bytes of the length in front of a record, an unsigned integer, least byte first
BEFORE, AFTER = 12, 4  # bytes around a record: its length and two checksums
SHORT = 1000  # bytes of a name
FIELDS = 100  # most fields of a message that are looked at; a record has a dozen or two


def find_records(path: pathlib.Path, most: int) -> list[int]:
  """Returns the byte of a file at which each record begins, without reading the records.

  Raises InputError for a record of more than `most` bytes, or one that the end of the file cuts.
  """
  with files.open_regular(path) as file:
    size, at, begins = os.fstat(file.fileno()).st_size, 0, []
    while at < size:
      length = int.from_bytes(os.pread(file.fileno(), LENGTH, at), 'little')
      begins.append(at)
      at += BEFORE + length + AFTER
      if length > most or at > size:
        raise InputError(
          f'shard {path} is damaged: its record {len(begins)} would have {length:,} bytes, and it '
          f'can have at most {min(most, size):,}'
        )
  return begins


def read_windows(records: Iterable[tuple[str, int]]) -> list[tuple[bytes, int]]:
  """Returns (name of the clip, number of the window) of records, (path, where it begins) each.

  Only a few bytes of each are read, and no checksum. A record in which they are not found has b''
  and 0: whoever reads it whole sees what is wrong.
  """
  found = []
  for path, same in itertools.groupby(records, key=operator.itemgetter(0)):
    with files.open_regular(path) as file:
      found += [read_window(file.fileno(), begin) for _, begin in same]
  return found


def read_window(file: int, at: int) -> tuple[bytes, int]:
  """Returns what `read_windows` does, for the record that begins at byte `at`.

  A record is a tf.train.Example: it maps names to lists of values.
  """
  length = int.from_bytes(os.pread(file, LENGTH, at), 'little')
  found = {}
  try:
    ((_, *features),) = fields(file, at + BEFORE, at + BEFORE + length)
    for _, *entry in fields(file, *features):
      (_, *name), (_, *value) = fields(file, *entry)
      name = read(file, *name)
      if name in (b'clip', b'window'):
        ((_, *values),) = fields(file, *value)
        ((_, *only),) = fields(file, *values)
        found[name] = only
    return read(file, *found[b'clip']), read_number(file, found[b'window'][0])[0]
  except (KeyError, ValueError):  # not such a message, or without these
    return b'', 0


def fields(file: int, at: int, end: int) -> Iterator[tuple[int, int, int]]:
  """Yields (number, first byte, end) of the fields of a protobuf message that has only such."""
  for _ in range(FIELDS):
    if at >= end:
      return
    tag, at = read_number(file, at)
    length, at = read_number(file, at)
    if at + length > end:
      raise ValueError('a field that is cut')
    yield tag >> 3, at, at + length
    at += length


def read(file: int, first: int, end: int) -> bytes:
  """Returns the bytes of a short field; of a longer one its beginning."""
  return os.pread(file, min(end - first, SHORT), first)


def read_number(file: int, at: int) -> tuple[int, int]:
  """Returns a number of protobuf, seven bits a byte, the least first, and where it ends."""
  number = 0
  for i, byte in enumerate(os.pread(file, 10, at)):
    number |= (byte & 127) << 7 * i
    if byte < 128:
      return number, at + i + 1
  raise ValueError('not a number')
