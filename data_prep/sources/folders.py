"""Finds the folders of a data set by their names, as people unpack its archives.

Archives leave folders within folders of the same name, add (1) to a name, and tools change its case
and its blanks; none of that matters here.
"""

import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator

from avjax import files
from avjax.media import faces

LEVELS = 4  # how far below SOURCE its parts are looked for; officially they are one or two below
MOST_NESTED = 2  # how far below its folder a video, an annotation or a folder of crops may be


def plain_name(name: str) -> str:
  """Returns a name in lower case, without blanks, signs and a copy's number such as (1)."""
  return re.sub(r'\(\d+\)|[\W_]', '', name).lower()


def has_name(path: pathlib.Path, names: Collection[str]) -> bool:
  """Tells whether a file or folder has one of these names, apart from what `plain_name` leaves."""
  return plain_name(path.name) in map(plain_name, names)


def subfolders(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the folders in a folder, in order of name."""
  return [path for path in files.visible(folder) if path.is_dir()]


def folders_within(folder: pathlib.Path, levels: int) -> Iterator[pathlib.Path]:
  """Yields a folder and those up to `levels` below it, without folders of crops.

  These are thousands, with thousands of files each.
  """
  yield folder
  if levels:
    for path in subfolders(folder):
      if not holds_crops(path):
        yield from folders_within(path, levels - 1)


def files_within(roots: Iterable[pathlib.Path], endings: Collection[str]) -> list[pathlib.Path]:
  """Returns the files with one of these endings in folders or up to MOST_NESTED levels down.

  Raises InputError for a pipe or a device of such a name, and a link that leads nowhere.
  """
  folders = dict.fromkeys(path for root in roots for path in folders_within(root, MOST_NESTED))
  found = [
    path for folder in folders for path in files.visible(folder) if path.suffix.lower() in endings
  ]
  for path in found:
    files.check_readable(path)
  return found


def clip_folders(roots: Iterable[pathlib.Path]) -> list[pathlib.Path]:
  """Returns the folders of crops in folders or up to MOST_NESTED levels down, one for each clip."""
  return list(dict.fromkeys(path for root in roots for path in innermost(root, MOST_NESTED)))


def innermost(folder: pathlib.Path, levels: int) -> Iterator[pathlib.Path]:
  """Yields the folders below a folder that hold crops, or no folders."""
  for path in subfolders(folder):
    if levels and not holds_crops(path) and subfolders(path):
      yield from innermost(path, levels - 1)
    else:
      yield path


def holds_crops(folder: pathlib.Path) -> bool:
  """Tells whether a folder has a crop of a frame in it, and looks no further than the first."""
  with os.scandir(folder) as entries:
    return any(faces.is_crop(entry.name) for entry in entries)
