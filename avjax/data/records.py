"""Describes the record, which data_prep writes and avjax reads: one window of one clip.

manifest.py describes the files that hold the records.

A clip is one annotated person of one video (`10-60-1280x720_right`). Its annotated frames, in
order, are cut into windows of L frames (paper, section 4.3.1); each window is one record.
Everything in a record is joined by frame id: frame k is crop `0000k.jpg`, line k of the annotation
file (header not counted) and the k-th decoded frame of the video.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from avjax.errors import InputError

MEL_BANDS = 64  # mel bands of VGGish
WINDOW_ROWS = 96  # rows of 10 ms in one input of VGGish: 0.96 s
NO_SOUND = np.float16(np.log(0.01))  # the log-mel of digital silence

# The largest sizes. Records come from other people too, and no size in them may take the machine.
MOST = {'length': 4096, 'stride': 4096, 'face': 1024}
MOST_WIDTH = 65536  # numbers a frame of features of another backbone
MOST_FRAMES = 2**31 - 1  # of a clip
MOST_BYTES = 256 << 20  # of one record


@dataclasses.dataclass(frozen=True)
class Layout:
  """Sizes that all records of one data set share."""

  length: int = 300  # L, frames of a window
  stride: int = 200  # frames from the start of one window to the next
  face: int = 48  # S, pixels a side
  # Widths of features of other backbones.
  features: dict[str, int] = dataclasses.field(default_factory=dict)


def fields(layout: Layout) -> dict[str, tuple[tuple[int | None, ...], type]]:
  """Returns {name: (shape, dtype)} of one record; None is a dimension that varies.

  clip            name of the clip
  window          index of the window in its clip, from 0
  frames   (L,)   frame ids, from 1; 0 on padding (only a clip shorter than L is padded, at its end)
  times    (L,)   seconds from the start of the video stream; 0 on padding
  real     (L,)   the frame mask: True on frames, False on padding
  va       (L,2)  the labels: valence and arousal in [-1, 1]; 0 where not annotated
  annotated(L,)   True where both values were annotated
  faces    (L,S,S,3) RGB crops; black where the face is missing
  face_present  (L,) True where there is a crop
  log_mel  (R,64) VGGish log-mel rows of 10 ms that this window needs
  starts   (L,)   row of log_mel at which each frame's window of 96 rows starts, from 0 to R - 96
  audio_present (L,) True where there is sound; False throughout a digitally silent track
  features/NAME (L,D) features of another backbone, for each NAME of the layout; 0 on padding
  """
  length, face = layout.length, layout.face
  return {
    'clip': ((), str),
    'window': ((), np.int32),
    'frames': ((length,), np.int32),
    'times': ((length,), np.float32),
    'real': ((length,), np.bool_),
    'va': ((length, 2), np.float32),
    'annotated': ((length,), np.bool_),
    'faces': ((length, face, face, 3), np.uint8),
    'face_present': ((length,), np.bool_),
    'log_mel': ((None, MEL_BANDS), np.float16),
    'starts': ((length,), np.int32),
    'audio_present': ((length,), np.bool_),
    **{
      f'features/{name}': ((length, width), np.float32) for name, width in layout.features.items()
    },
  }


def check_layout(layout: Mapping[str, Any], where: str) -> None:
  """Raises InputError, beginning with `where`, for sizes that records cannot have.

  layout: a mapping with length, stride, face and perhaps features, such as config.data.
  """
  features = layout.get('features', {})
  sizes = [(name, layout[name], most) for name, most in MOST.items()]
  sizes += [(f'features.{name}', width, MOST_WIDTH) for name, width in features.items()]
  for name, size, most in sizes:
    if type(size) is not int or not 1 <= size <= most:
      raise InputError(f'{where}.{name} is out of range: it takes whole numbers from 1 to {most}')
  size = most_bytes(Layout(*(layout[name] for name in MOST), features=dict(features)))
  if size > MOST_BYTES:
    raise InputError(
      f'{where} is too large: a record would take {size >> 20:,} MiB, and it takes at most '
      f'{MOST_BYTES >> 20}; choose a smaller length or face'
    )


def most_bytes(layout: Layout) -> int:
  """Returns the largest number of bytes that the arrays of one record have together."""
  most_rows = WINDOW_ROWS * layout.length  # if no two frames share a row
  return sum(
    math.prod(most_rows if size is None else size for size in shape) * np.dtype(dtype).itemsize
    for shape, dtype in fields(layout).values()
  )


def tfds_features(layout: Layout):
  """Returns the TFDS description of a record, which writes one and parses one.

  It is never read from a file of the records: TFDS imports the modules that such a file names.
  """
  import tensorflow_datasets as tfds  # late, since it takes seconds

  def feature(shape, dtype):
    if dtype is str:
      return tfds.features.Text()
    if shape == ():
      return tfds.features.Scalar(dtype)
    # Without an encoding every pixel would become an int64 in the record; zlib takes more time than
    # its smaller files save.
    return tfds.features.Tensor(
      shape=shape, dtype=np.dtype(dtype), encoding=tfds.features.Encoding.BYTES
    )

  return tfds.features.FeaturesDict(
    {name: feature(shape, dtype) for name, (shape, dtype) in fields(layout).items()}
  )
