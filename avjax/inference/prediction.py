"""Holds what is predicted for a video."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass
class VideoPrediction:
  """Holds what is predicted for the n frames of a video.

  Predictions and gates are NaN on frames without any input that the model uses.

  frames: (n,) from 1.
  times: (n,) in seconds, the first one 0.
  predictions: {target: (n,)}, in the units of its labels, for each target that a run predicts.
  face_found, audio_present: (n,) bool.
  boxes: (n,4), left, top, width and height of the face as shares of the frame; NaN without one.
  gates: {name: (n,K)}, the share of trust in each column; a row sums to 1.
  notes: remarks for people.
  speed: {stage of the work: frames per second}.
  """

  frames: np.ndarray
  times: np.ndarray
  predictions: dict[str, np.ndarray]
  face_found: np.ndarray
  audio_present: np.ndarray
  boxes: np.ndarray
  gates: dict[str, np.ndarray]
  notes: list[str]
  speed: dict[str, float]

  def columns(self) -> dict[str, np.ndarray]:
    """Returns {name: (n,)}, the columns of the tables that are written, in order."""
    gates = {
      f'gate_{name.replace("/", "_")}_{k}': scores[:, k]
      for name, scores in self.gates.items()
      for k in range(scores.shape[1])
    }
    return {
      'frame': self.frames,
      'time': self.times,
      **self.predictions,
      'face_found': self.face_found,
      'audio_present': self.audio_present,
      **gates,
    }

  @property
  def valence(self) -> np.ndarray | None:
    """The valence, (n,) in [-1, 1]; None if no run predicts it."""
    return self.predictions.get('valence')

  @property
  def arousal(self) -> np.ndarray | None:
    """The arousal, (n,) in [-1, 1]; None if no run predicts it."""
    return self.predictions.get('arousal')
