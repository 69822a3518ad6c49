"""Tests which face is followed in a video. A white square stands for a face, and for the detector
a stub that finds it.
"""

import types

import numpy as np
import pytest
from tqdm import tqdm

from avjax.inference.face_source import FoundFaces
from avjax.inference.timing import Clock
from avjax.media import detection, video


def picture(left, side=20, height=90, width=160, grey=90):
  """A grey image with a white square; without one if `left` is None."""
  image = np.full((height, width, 3), grey, np.uint8)
  if left is not None:
    image[30 : 30 + side, left : left + side] = 255
  return image


@pytest.fixture
def follow(monkeypatch):
  """Returns follow(images, times) -> (FoundFaces, how often the detector ran)."""
  looks = []

  def detect(image):
    looks.append(image)
    rows, columns = np.nonzero(image[:, :, 1] > 250)
    found = (
      [] if not len(rows) else [[columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]]
    )
    boxes = np.array(found, float).reshape(-1, 4)
    return boxes, np.repeat(boxes[:, None, :2], 5, axis=1), np.ones(len(boxes))

  def run(images, times):
    looks.clear()
    source = types.SimpleNamespace(frames=lambda longest: iter(images), turn=0)
    found = FoundFaces(video.Timeline(np.array(times, float), 0.0, None), Clock())
    found.find(source, 'largest', False, tqdm(disable=True))
    return found, len(looks)

  monkeypatch.setattr(detection, 'detect', detect)
  return run


@pytest.mark.parametrize('rate', [0.4, 8, 10, 24, 25, 30, 50, 60, 120])
def test_looks_are_some_12_a_second_and_a_face_that_moves_evenly_is_everywhere(follow, rate):
  n = max(round(2 * rate), 8)
  found, looks = follow([picture(10 + k) for k in np.arange(n) * 100 // n], np.arange(n) / rate)
  assert looks == n if rate <= 18 else 11 <= looks / 2 <= 16
  np.testing.assert_allclose(found.boxes[:, 0] * 160, 10 + np.arange(n) * 100 // n, atol=1)
  assert not np.isnan(found.points).any() and not found.cuts


@pytest.mark.parametrize('first', range(28, 34))
def test_pictures_without_a_face_between_others_have_none(follow, first):
  """This holds wherever they are: at 60 frames per second the detector sees every fifth frame."""
  red = np.full((90, 160, 3), (255, 0, 0), np.uint8)
  found, _ = follow(
    [red if first <= k < first + 3 else picture(10 + k) for k in range(60)], np.arange(60) / 60
  )
  np.testing.assert_array_equal(
    np.flatnonzero(np.isnan(found.boxes[:, 0])), [first, first + 1, first + 2]
  )
  assert found.cuts == 2


def test_a_face_that_jumps_is_not_seen_on_the_way(follow):
  found, _ = follow([picture(20 if k < 32 else 60) for k in range(60)], np.arange(60) / 60)
  lefts = found.boxes[:, 0] * 160
  assert (
    set(lefts[~np.isnan(lefts)].round(6)) == {20, 60}
    and np.isnan(lefts).sum() == 4
    and not found.cuts
  )


def test_pictures_of_two_sizes(follow):
  images = [
    picture(40) if k < 30 else np.kron(picture(40), np.ones((2, 2, 1), np.uint8)) for k in range(60)
  ]
  found, _ = follow(images, np.arange(60) / 25)
  np.testing.assert_allclose(found.boxes, np.tile([40 / 160, 30 / 90, 20 / 160, 20 / 90], (60, 1)))
  np.testing.assert_allclose(found.points[:, 3], np.tile([40 / 160, 30 / 90], (60, 1)))


def test_a_film_that_slows_down_keeps_its_face(follow):
  times = np.concatenate([np.arange(120) / 60, 2 + 0.7 * np.arange(1, 11), 9 + 3 * np.arange(1, 5)])
  found, looks = follow([picture(40)] * len(times), times)
  assert not np.isnan(found.boxes).any() and looks < 50


def test_small_changes_are_no_cuts(follow):
  assert (
    follow([picture(40, grey=127 + k // 6 % 2) for k in range(60)], np.arange(60) / 25)[0].cuts == 0
  )
  assert (
    follow([picture(40, grey=60 + 60 * (k // 20)) for k in range(60)], np.arange(60) / 25)[0].cuts
    == 2
  )
