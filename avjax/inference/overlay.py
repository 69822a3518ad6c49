"""Writing a video with its sound, for the page and for the overlay: H.264 and AAC, which every browser plays."""

import cv2
import numpy as np

from avjax.targets import TARGETS

COLOURS = {name: tuple(bytes.fromhex(target.colour[1:])) for name, target in TARGETS.items()}


def draw(image, result, frame):
  """A picture with the box of the face and the values of a `predict.Prediction` drawn in."""
  image = image.copy()
  height, width = image.shape[:2]
  unit = max(height, width) / 640
  thick = max(round(2 * unit), 1)
  if not np.isnan(result.boxes[frame, 0]):
    left, top, wide, high = (result.boxes[frame] * [width, height, width, height]).round().astype(int)
    cv2.rectangle(image, (left, top), (left + wide, top + high), (255, 255, 255), thick)
  for row, target in enumerate(result.targets):
    value = getattr(result, target)[frame]
    place, reach = (round(16 * unit), round((28 + 30 * row) * unit)), round(60 * unit)
    text = f'{target} ' + ('--' if np.isnan(value) else f'{value:+.2f}')
    for colour, extra in (((0, 0, 0), 2 * thick), ((255, 255, 255), 0)):
      cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, colour, thick + extra, cv2.LINE_AA)
    if not np.isnan(value):  # a bar from the middle: to the right above 0
      middle, low = round(250 * unit), place[1]
      cv2.rectangle(image, (middle - reach, low - round(12 * unit)), (middle + reach, low), (0, 0, 0), -1)
      cv2.rectangle(image, (middle, low - round(10 * unit)), (middle + round(value * reach), low - round(2 * unit)), COLOURS[target], -1)
  return image
