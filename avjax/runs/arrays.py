"""Compares the arrays of a checkpoint with those of a model, before anything is restored.

A checkpoint may come from somebody else. Its few bytes may describe arrays of any size, or be
compressed from any number of others, and TensorStore, which reads them, then ends the process. It
therefore reads all of them once in a child process with limits (`avjax.bounded`).
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import re
from collections.abc import Mapping

import numpy as np

from avjax import bounded, files
from avjax.bounded import memory_for
from avjax.errors import InputError
from avjax.runs.array_reader import import_tensorstore, read_all
from avjax.runs.damage import Foreign

STATE = 'state'  # the folder of the arrays in a checkpoint
DESCRIPTION = '_METADATA'  # the file in it by which Orbax knows how to read them
# What Orbax puts into it. Another folder would be an array in the format that avjax never wrote.
FOLDERS = re.compile(r'd|ocdbt\.process_\d{1,6}|array_metadatas')
Wanted = Mapping[str, tuple[list[int], str]]  # {name: shape, type}


def check(checkpoint: pathlib.Path, wanted: Wanted) -> None:
  """Raises an error unless a checkpoint can be restored and has arrays of these shapes and types.

  wanted: names as Orbax makes them, 'params.visual_tcn.level0_conv1.scale'.
  Raises Foreign for other arrays or another format, ValueError with TensorStore's words for a file
  that is cut or damaged, and InputError where reading takes more than a file of this size may take.
  """
  folder, size = checkpoint / STATE, size_of(checkpoint)
  needed = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in wanted.values())
  if needed > memory_for(size):
    raise InputError(f'its {size:,} bytes cannot hold the {needed:,} bytes of the model')
  for entry in folder.iterdir():
    if entry.is_dir() and not FOLDERS.fullmatch(entry.name):
      raise Foreign(f'it holds a folder {entry.name} that Orbax did not make')
  check_format(folder / DESCRIPTION)
  items = bounded.stream(
    read_all,
    str(folder),
    size=size,
    what='reading it',
    prepare=(import_tensorstore,),
    content=json.dumps(wanted).encode(),
  )
  for header, _ in items:
    if 'wrong' in header:
      raise Foreign(header['wrong'])
    if 'error' in header:
      raise ValueError(header['error'])


def check_format(description: pathlib.Path) -> None:
  """Raises Foreign if Orbax would read another format than the one that is checked here.

  Orbax before 0.12 does not say whether the arrays are in TensorStore's OCDBT; they are.

  Raises JSONDecodeError for a file that is cut, and OSError for one that cannot be read.
  """
  try:
    found = json.loads(files.read_bytes(description, files.MOST_JSON))
  except RecursionError:
    found = None
  if not isinstance(found, dict) or not found.get('use_ocdbt', True) or found.get('use_zarr3'):
    raise Foreign(f'its {STATE}/{DESCRIPTION} names a format that avjax does not write')


def size_of(checkpoint: pathlib.Path) -> int:
  """Returns the bytes of a checkpoint; raises InputError for a description of more than MOST_JSON.

  Those are all files but the data of the arrays; Orbax reads them whole.
  """
  total = 0
  for folder, _, names in os.walk(checkpoint):
    for name in names:
      path = pathlib.Path(folder, name)
      size = path.stat().st_size
      if size > files.MOST_JSON and path.parent.name != 'd':
        raise InputError(f'its {path.relative_to(checkpoint)} is too large')
      total += size
  return total
