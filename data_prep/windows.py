"""Windows of L frames over a clip's annotated frames, and the way back: overlapping windows to one value per frame."""

import numpy as np


def window_indices(n, length=300, stride=200):
  """Cuts n frames, counted from 0, into windows; the last one is anchored at the end (paper, section 4.3.1).

  Returns (W,L) int64 indices. A clip shorter than L gives one window, padded at its end with -1; no frames, no window.
  """
  if n == 0:
    return np.zeros((0, length), np.int64)
  if n < length:
    return np.pad(np.arange(n), (0, length - n), constant_values=-1)[None]
  starts = [*range(0, n - length, stride), n - length]
  return np.array(starts)[:, None] + np.arange(length)


def merge(values, frames, real):
  """Averages overlapping windows of one clip into one series.

  Args:
    values: (W,L,C) or (W,L) predictions.
    frames: (W,L) frame ids.
    real: (W,L) bool, False on padding.

  Returns:
    frame ids (N,) in ascending order, and (N,C) or (N,) float64 means over the windows that hold the frame.
  """
  real = np.asarray(real, bool)
  ids, place, count = np.unique(np.asarray(frames)[real], return_inverse=True, return_counts=True)
  values = np.asarray(values, np.float64)[real]
  total = np.zeros((len(ids), *values.shape[1:]))
  np.add.at(total, place, values)
  return ids, total / count.reshape(-1, *[1] * (values.ndim - 1))
