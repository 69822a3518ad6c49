"""Draws the face and the predicted values into the frames of a video."""

from __future__ import annotations

import cv2
import numpy as np

from avjax.inference.prediction import VideoPrediction
from avjax.targets import TARGETS

# RGB of each target's bar.
COLOURS = {name: tuple(bytes.fromhex(target.colour[1:])) for name, target in TARGETS.items()}
BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def draw(image: np.ndarray, result: VideoPrediction, frame: int) -> np.ndarray:
  """Draws the box of the face and the values of one frame into a copy of it.

  image: (H,W,3) uint8, RGB; frame: its row in the result, from 0.
  """
  image = image.copy()
  height, width = image.shape[:2]
  unit = max(height, width) / 640
  thick = max(round(2 * unit), 1)
  if not np.isnan(result.boxes[frame, 0]):
    box = result.boxes[frame] * [width, height, width, height]
    left, top, wide, high = box.round().astype(int)
    cv2.rectangle(image, (left, top), (left + wide, top + high), WHITE, thick)
  for row, (target, values) in enumerate(result.predictions.items()):
    value = values[frame]
    place, reach = (round(16 * unit), round((28 + 30 * row) * unit)), round(60 * unit)
    text = f'{target} ' + ('--' if np.isnan(value) else f'{value:+.2f}')
    for colour, extra in ((BLACK, 2 * thick), (WHITE, 0)):  # white letters with a black edge
      cv2.putText(
        image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, colour, thick + extra, cv2.LINE_AA
      )
    if not np.isnan(value):  # a bar from the middle of the range
      middle, low = round(250 * unit), place[1]
      lowest, highest = TARGETS[target].lowest, TARGETS[target].highest
      share = (2 * value - lowest - highest) / (highest - lowest)  # -1 to 1
      ground = (middle - reach, low - round(12 * unit)), (middle + reach, low)
      bar = (
        (middle, low - round(10 * unit)),
        (middle + round(share * reach), low - round(2 * unit)),
      )
      cv2.rectangle(image, *ground, BLACK, -1)
      cv2.rectangle(image, *bar, COLOURS[target], -1)
  return image
