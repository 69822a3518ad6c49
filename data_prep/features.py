"""Reads features of other backbones (CLIP, MAE, wav2vec2, ...), which were computed elsewhere.

There is one .npy file per clip, with row k - 1 for frame k.
"""

import pathlib
import re
from collections.abc import Iterable

import numpy as np

from avjax.errors import InputError, one_line
from avjax.files import existing_folder


def parse_folders(options: Iterable[str]) -> dict[str, pathlib.Path]:
  """Parses ['clip=DIR', ...] to {'clip': DIR}.

  Raises InputError for a name that cannot be one, or a missing folder.
  """
  folders = {}
  for option in options:
    name, equals, path = option.partition('=')
    if not equals or not re.fullmatch('[a-z][a-z0-9_]*', name):
      raise InputError(
        f'--features {option} is not NAME=DIR with a name of lower-case letters, digits and _'
      )
    if name in folders:
      raise InputError(f'--features {name} is given twice')
    folders[name] = existing_folder(path)
  return folders


def find(folders: dict[str, pathlib.Path], clip: str) -> dict[str, pathlib.Path]:
  """Finds the files {name: path} of a clip; InputError where one is missing.

  Two people of one video have a file each, even for features of the sound that they share.
  """
  found = {name: path / f'{clip}.npy' for name, path in folders.items()}
  for name, path in found.items():
    if not path.is_file():
      raise InputError(
        f'--features {name}: {path.parent} has no {path.name}; each clip needs a file of its own'
      )
  return found


def widths(jobs):
  """Returns {name: number of columns}, which is the same in all files of a name.

  Raises InputError for a file that is damaged or has another number.
  """
  first = {}
  for job in jobs:
    for name, path in job.features.items():
      width = open_rows(path).shape[1]
      other, wanted = first.setdefault(name, (path, width))
      if width != wanted:
        raise InputError(
          f'{path} has {width} columns, but {other} has {wanted}; '
          'all files of one name must come from the same backbone'
        )
  return {name: width for name, (_, width) in first.items()}


def open_rows(path: pathlib.Path) -> np.ndarray:
  """Memory-maps the rows of a file, (n,D) of a floating-point type, without reading them.

  Raises InputError if it holds anything else.
  """
  try:
    rows = np.load(path, mmap_mode='r', allow_pickle=False)
  except Exception as error:  # whatever a header, which NumPy parses as Python, makes it raise
    raise InputError(f'{path} cannot be read as a .npy file: {one_line(error)}') from error
  if (
    not isinstance(rows, np.ndarray)
    or rows.ndim != 2
    or rows.dtype.kind != 'f'
    or not rows.shape[1]
  ):
    raise InputError(f'{path} does not hold a table of floating-point numbers, one row per frame')
  return rows


def read_rows(path: pathlib.Path, kept: np.ndarray) -> np.ndarray:
  """Reads some rows of a file, counted from 0: (len(kept),D) float32.

  Raises InputError where a number is not finite.
  """
  with np.errstate(over='ignore'):
    rows = open_rows(path)[kept].astype(np.float32)
  broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
  if len(broken):
    raise InputError(
      f'{path} has a number that is not finite in the row of frame {kept[broken[0]] + 1}; '
      'where nothing was found, write zeros'
    )
  return rows
