"""Holds what is predicted for a video."""

from __future__ import annotations

import dataclasses

import numpy as np

from avjax.targets import TARGETS


@dataclasses.dataclass
class VideoPrediction:
  """Holds what is predicted for the n frames of a video.

  Predictions and gates are NaN on frames without any input that the model uses.

  frames: (n,) from 1.
  times: (n,) in seconds.
  valence, arousal: (n,) in [-1, 1]; None for a target that no run predicts.
  face_found, audio_present: (n,) bool.
  boxes: (n,4), left, top, width and height of the face as shares of the picture; NaN without one.
  gates: {name: (n,K)}, the share of trust in each column.
  notes: remarks for people.
  speed: {stage of the work: frames per second}.
  """

  frames: np.ndarray
  times: np.ndarray
  valence: np.ndarray | None
  arousal: np.ndarray | None
  face_found: np.ndarray
  audio_present: np.ndarray
  boxes: np.ndarray
  gates: dict[str, np.ndarray]
  notes: list[str]
  speed: dict[str, float]

  @property
  def targets(self) -> list[str]:
    """The names of the targets that are predicted."""
    return [target for target in TARGETS if getattr(self, target) is not None]

  @property
  def values(self) -> np.ndarray:
    """The predictions, (n,targets)."""
    return np.stack([getattr(self, target) for target in self.targets], axis=1)
