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


def count_records(path: pathlib.Path, most: int) -> int:
  """Counts the records of a file by their lengths, without reading the records.

  Raises InputError for a record of more than `most` bytes, or one that the end of the file cuts.
  """
  with files.open_regular(path) as file:
    size, at, count = os.fstat(file.fileno()).st_size, 0, 0
    while at < size:
      length = int.from_bytes(os.pread(file.fileno(), LENGTH, at), 'little')
      at += BEFORE + length + AFTER
      count += 1
      if length > most or at > size:
        raise InputError(
          f'shard {path} is damaged: its record {count} would have {length:,} bytes, and it can '
          f'have at most {min(most, size):,}'
        )
  return count
