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
import sys
from collections.abc import Iterator, Mapping

import numpy as np

from avjax import bounded, files
from avjax.bounded import MEMORY, NOTHING, TIMES, Item
from avjax.errors import InputError
from avjax.runs.damage import Damaged

STATE = 'state'  # the folder of the arrays in a checkpoint
# What Orbax puts into it. Another folder would be an array in the format that avjax never wrote.
FOLDERS = re.compile(r'd|ocdbt\.process_\d{1,6}|array_metadatas')
ENDING = '/.zarray'  # of the key with the description of an array
Wanted = Mapping[str, tuple[list[int], str]]  # {name: shape, type}


def check(checkpoint: pathlib.Path, wanted: Wanted) -> None:
  """Raises an error unless a checkpoint can be restored and has arrays of these shapes and types.

  wanted: names as Orbax makes them, 'params.visual_tcn.level0_conv1.scale'.
  Raises ValueError with TensorStore's words or Damaged for a file that is cut or damaged, and
  InputError where reading takes more than a file of this size may take.
  """
  folder, size = checkpoint / STATE, size_of(checkpoint)
  needed = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in wanted.values())
  if needed > MEMORY + TIMES * size:
    raise InputError(f'its {size:,} bytes cannot hold the {needed:,} bytes of the model')
  for entry in folder.iterdir():
    if entry.is_dir() and not FOLDERS.fullmatch(entry.name):
      raise Damaged(f'it holds a folder {entry.name} that Orbax did not make')
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
      raise Damaged(header['wrong'])
    if 'error' in header:
      raise ValueError(header['error'])


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


# What runs in the child.


def import_tensorstore() -> None:
  """Imports what `read_all` needs, before the limits apply."""
  import tensorstore

  assert tensorstore


def read_all(folder: str) -> Iterator[Item]:
  """Reads every array in a folder of state, whose names, shapes and types stdin gives as JSON.

  Yields an item for each, or one with what is wrong ('wrong'), or with TensorStore's error.
  """
  import tensorstore

  wanted = json.load(sys.stdin)
  try:
    spec = {'driver': 'ocdbt', 'base': f'file://{folder}/'}
    store = tensorstore.KvStore.open(spec).result()
    keys = {key.decode('utf-8', 'replace') for key in store.list().result()}
    described = {key.removesuffix(ENDING) for key in keys if key.endswith(ENDING)}
    if described != wanted.keys():
      names = sorted(described ^ wanted.keys())
      yield (
        {'wrong': f'{len(names)} arrays are not those of the model, such as {names[0]}'},
        NOTHING,
      )
      return
    for name, (shape, kind) in wanted.items():
      found = describe(store.read(name + ENDING).result().value)
      if found != (shape, np.dtype(kind)):
        yield {'wrong': f'{name} is not of the shape {shape} and type that the model has'}, NOTHING
        return
      array = {'driver': 'zarr', 'kvstore': {**spec, 'path': f'{name}/'}}
      tensorstore.open(array, read=True).result().read().result()
      yield {'name': name}, NOTHING
  except (KeyError, OSError, TypeError, ValueError) as error:
    yield {'error': str(error)}, NOTHING


def describe(text: bytes) -> tuple[list[int], np.dtype] | None:
  """Returns (shape, type) of an array from its description, the JSON of Zarr 2.

  Returns None for one whose chunks are larger than the array, since memory is reserved for a chunk.
  """
  found = json.loads(text)
  shape, chunks = found['shape'], found['chunks']
  larger = any(chunk > max(size, 1) for size, chunk in zip(shape, chunks, strict=True))
  return None if larger else (shape, np.dtype(found['dtype']))
