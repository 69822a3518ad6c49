"""Reads the lengths of records in a TFRecord file, before TensorFlow reads the records.

TensorFlow takes as much memory as the length in front of a record says, and ends the process where
there is less.
"""

import os
import pathlib

from avjax import files
from avjax.errors import InputError

LENGTH = 8  # bytes of the length in front of a record, an unsigned integer, least byte first
BEFORE, AFTER = 12, 4  # bytes around a record: its length and two checksums


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
