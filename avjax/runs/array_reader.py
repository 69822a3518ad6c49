"""Reads all arrays of a checkpoint in the child process of `avjax.runs.arrays`; imports no JAX."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np

from avjax.bounded import NOTHING, Item

ENDING = '/.zarray'  # of the key with the description of an array
ZARR_3 = '/zarr.json'  # the same in version 3 of the format, which avjax does not write


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
    others = {key for key in keys if key.rpartition('/')[0] not in wanted or key.endswith(ZARR_3)}
    if described != wanted.keys() or others:
      names = sorted(described ^ wanted.keys()) or sorted(others)
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
