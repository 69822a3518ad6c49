"""Cuts a clip's annotated frames into windows of L frames, and merges overlapping windows.

Merging gives one value per frame.
"""

import numpy as np


def window_starts(n: int, length: int, stride: int) -> list[int]:
  """Returns the frame, counted from 0, at which each window over n frames begins.

  The last window is anchored at the end (paper, section 4.3.1).
  """
  return [*range(0, n - length, stride), max(n - length, 0)] if n else []


def window_indices(n: int, length: int, stride: int) -> np.ndarray:
  """Cuts n frames, counted from 0, into windows.

  Returns (W,L) int64 indices. A clip shorter than L gives one window, padded at its end with -1; no
  frames give no window.
  """
  index = np.array(window_starts(n, length, stride), np.int64)[:, None] + np.arange(length)
  return np.where(index < n, index, -1)


class Merger:
  """Averages overlapping windows for each frame of a clip.

  Windows come one by one; memory grows with the number of frames only.
  """

  def __init__(self):
    self.counts, self.totals = np.zeros(0, np.int64), {}

  def add(self, frames: np.ndarray, values: dict[str, np.ndarray]) -> None:
    """Adds a window.

    frames: (L,) ids, 0 or more, none twice.
    values: {name: (L,) or (L,C)}, with the same names each time.
    """
    if len(frames) and frames.max() >= len(self.counts):
      more = max(frames.max() + 1, len(self.counts) * 5 // 4) - len(self.counts)
      self.counts = np.pad(self.counts, (0, more))
      self.totals = {
        name: np.concatenate([total, np.zeros((more, *total.shape[1:]))])
        for name, total in self.totals.items()
      }
    self.counts[frames] += 1
    for name, value in values.items():
      if name not in self.totals:
        self.totals[name] = np.zeros((len(self.counts), *value.shape[1:]))
      self.totals[name][frames] += value

  def means(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the ids (N,) that were in a window, ascending, and {name: (N,) or (N,C) float64}."""
    ids = np.flatnonzero(self.counts)
    return ids, {
      name: total[ids] / self.counts[ids].reshape(-1, *[1] * (total.ndim - 1))
      for name, total in self.totals.items()
    }
