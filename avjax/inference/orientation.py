"""Finds out by how much a film is turned, from the faces in it: eyes are over mouths."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np

from avjax.media import detection
from avjax.media.tracking import Track

SAMPLES = 8  # frames in which faces are looked for at all four turns


def quarter_turns(points: np.ndarray) -> np.ndarray:
  """Returns by how many quarter turns clockwise faces are turned, (n,) int from 0 to 3.

  points: (n,5,2), as in detection.py.
  """
  down = points[:, 3:].mean(axis=1) - points[:, :2].mean(axis=1)  # from the eyes to the mouth
  return np.rint(np.arctan2(-down[:, 0], down[:, 1]) / (np.pi / 2)).astype(int) % 4


def turn_of_tracks(tracks: Iterable[Track]) -> int:
  """Returns the degrees, clockwise, that bring most of the faces of a film upright.

  tracks: Tracks of faces, at least one.
  """
  counts = sum(np.bincount(quarter_turns(track.points), minlength=4) for track in tracks)
  return -90 * int(np.argmax(counts)) % 360


def turn_of_frames(images: Iterable[np.ndarray], count: int) -> int:
  """Returns the degrees, clockwise, at which upright faces are found in most frames of a film.

  It is 0 unless another turn shows upright faces in more than twice as many frames.

  images: the `count` frames of a film, (H,W,3) uint8, of which some are looked at.
  """
  found = np.zeros(4, int)  # sampled frames with an upright face, for each number of quarter turns
  for image in itertools.islice(images, count // (2 * SAMPLES), None, max(count // SAMPLES, 1)):
    for turns in range(4):
      _, points, _ = detection.detect(np.ascontiguousarray(np.rot90(image, -turns)))
      found[turns] += (quarter_turns(points) == 0).any()
  best = int(np.argmax(found))
  return 90 * best if found[best] > max(2 * found[0], 1) else 0
