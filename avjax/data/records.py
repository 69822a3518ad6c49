"""Describes the record, which data_prep writes and avjax reads: one window of one clip.

manifest.py describes the files that hold the records.

A clip is one annotated person of one video (`10-60-1280x720_right`). Its annotated frames, in
order, are cut into windows of L frames (paper, section 4.3.1); each window is one record.
Everything in a record is joined by frame id: frame k is crop `0000k.jpg`, line k of the annotation
file (header not counted) and the k-th decoded frame of the video.
"""

import dataclasses

import numpy as np

MEL_BANDS = 64  # mel bands of VGGish
WINDOW_ROWS = 96  # rows of 10 ms in one input of VGGish: 0.96 s
NO_SOUND = np.float16(np.log(0.01))  # the log-mel of digital silence


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
