"""Reads the aligned crops of faces that come with a data set."""

import os
import pathlib
import warnings
from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image

from avjax.errors import InputError
from avjax.files import open_regular, read_text

# Pillow warns of images of more than 89 million pixels; `open_crop` rejects them in one line.
warnings.simplefilter('ignore', Image.DecompressionBombWarning)

FORMATS = 'JPEG', 'PNG'  # whatever its name: for others, Pillow starts programs such as Ghostscript
MAX_CROP_SIDE = 4096  # pixels; the official crops have 112
MAX_FRAME = 2**31 - 1  # frame ids are stored as int32
CROP_ENDINGS = ('jpg', 'jpeg', 'png')
KNOWN_UNREADABLE = frozenset({'40-30-1280x720/06926.jpg'})  # broken in the official archive
UNREADABLE_LIST = 'unreadable.txt'


def list_crops(folder: pathlib.Path) -> dict[int, pathlib.Path]:
  """Returns {frame id: path} of the crops of one clip; 00001.jpg belongs to frame 1, other files
  are ignored.

  Raises InputError where they are counted from 0, where two belong to one frame, or for a number
  that no frame has.
  """
  crops: dict[int, pathlib.Path] = {}
  for name in filter(is_crop, sorted(os.listdir(folder))):  # names sort faster than paths
    frame = int(name.rpartition('.')[0])
    if frame in crops:
      raise InputError(
        f'{folder} has two crops of frame {frame}, {crops[frame].name} and {name}; '
        'remove one of them'
      )
    if frame > MAX_FRAME:
      raise InputError(f'{folder} has a crop {name}, but no video has that many frames; remove it')
    crops[frame] = folder / name
  if 0 in crops:
    raise InputError(
      f'{folder} has a crop {crops[0].name}, but crops are counted from 1, the first frame; '
      'give each the next number, or remove this one if the others are right'
    )
  return crops


def is_crop(name: str) -> bool:
  """Tells whether a file with this name is the crop of a frame."""
  stem, _, ending = name.rpartition('.')
  return ending.lower() in CROP_ENDINGS and stem.isascii() and stem.isdigit()


def read_unreadable(source: pathlib.Path) -> frozenset[str]:
  """Returns the broken crops to mask, such as `clip/00026.jpg`.

  These are KNOWN_UNREADABLE and the names in SOURCE/unreadable.txt.
  """
  path = source / UNREADABLE_LIST
  names = read_text(path).replace('\\', '/').split() if path.exists() else ()
  return KNOWN_UNREADABLE.union(names)


def open_crop(path: pathlib.Path) -> Image.Image:
  """Reads one crop as a PIL image, RGB; InputError if it is broken or above MAX_CROP_SIDE."""
  try:
    with (
      open_regular(path) as file,
      warnings.catch_warnings(action='ignore'),  # Pillow's remarks on broken metadata
      Image.open(file, formats=FORMATS) as image,
    ):
      if max(image.size) > MAX_CROP_SIDE:  # known from the header: nothing has been decoded yet
        raise InputError(
          f'{path} is {image.width} x {image.height} pixels; '
          f'a crop has at most {MAX_CROP_SIDE} a side'
        )
      return image.convert('RGB')
  except InputError:
    raise
  except Exception as error:  # Pillow raises many kinds for broken files
    raise InputError(
      f'{path} cannot be read as an image; replace it, or list {path.parent.name}/{path.name} in '
      f'SOURCE/{UNREADABLE_LIST} to mask the frame'
    ) from error


def fit(image: Image.Image, size: int) -> np.ndarray:
  """Returns a PIL image as (size,size,3) uint8, resized bicubically."""
  return np.asarray(
    image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BICUBIC)
  )


def read_faces(
  crops: pathlib.Path,
  frames: Sequence[int],
  size: int,
  unreadable: Collection[str] = KNOWN_UNREADABLE,
) -> tuple[np.ndarray, np.ndarray, int]:
  """Reads the crops of some frames of a clip.

  Args:
    crops: the clip's folder of crops.
    frames: n frame ids.
    size: pixels a side.
    unreadable: names `clip/00026.jpg` of crops that may be broken.

  Returns:
    faces (n,size,size,3) uint8 RGB, black where there is none; face_present (n,) bool; how many
    crops are broken.

  Raises InputError for a broken crop that is not in `unreadable`.
  """
  faces = np.zeros((len(frames), size, size, 3), np.uint8)
  present = np.zeros(len(frames), bool)
  broken = 0
  for i, path in enumerate(map(list_crops(crops).get, map(int, frames))):
    if path is None:
      continue
    try:
      faces[i], present[i] = fit(open_crop(path), size), True
    except InputError:
      if f'{path.parent.name}/{path.name}' not in unreadable:
        raise
      broken += 1
  return faces, present, broken
