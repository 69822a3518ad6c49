"""Tests the videos and the figure of a prediction: in sync, and showing what was predicted."""

import numpy as np
import pytest
from official_set import write_video

from avjax.inference.overlay import COLOURS, draw
from avjax.inference.prediction import VideoPrediction
from avjax.media import video
from avjax.media.writer import ClipWriter
from avjax.reports import plots


def test_the_page_s_film_keeps_picture_and_sound_together(tmp_path):
  """Sound stays in sync with the frames, and the first frame is at time 0.

  Cases: the sound begins before the first frame, with it, and after it.
  """
  for delay in (-0.3, 0.0, 0.5):
    source = tmp_path / f'{delay}.mp4'
    pulse = np.zeros(44_100 * 2)
    pulse[44_100 : 44_100 + 4410] = 0.8  # at 1 s of the sound
    write_video(
      source,
      50,
      pulse * np.sin(np.arange(len(pulse)) / 5),
      sound_delay=max(delay, 0),
      pts=np.arange(50) * 40 + max(-delay, 0) * 1000,
    )
    timeline = video.read_timeline(source)
    with ClipWriter(tmp_path / 'out.mp4', video.SoundReader(source), timeline, 32) as writer:
      for image in video.read_frames(source):
        writer.add(image)
    made = video.read_timeline(tmp_path / 'out.mp4')
    np.testing.assert_allclose(made.times, timeline.times, atol=1e-3)
    heard = video.read_sound(tmp_path / 'out.mp4')
    loud = np.flatnonzero(np.abs(heard.samples) > 5000)
    assert (loud[0] / 16_000 + heard.start - made.start) == pytest.approx(1 + delay, abs=0.03)


def test_the_overlay_shows_the_values_of_each_frame():
  """The overlay draws a white box around the face and a bar for each value.

  A bar is as long as its value: to the right above zero, to the left below. There is none without a
  value.
  """
  none = np.full(3, np.nan)
  boxes = np.array([[0.5, 0.25, 0.25, 0.5], [np.nan] * 4, [0.1, 0.6, 0.2, 0.3]])
  result = VideoPrediction(
    np.arange(1, 4),
    np.arange(3) / 25,
    {'valence': np.array([0.5, np.nan, -0.25]), 'arousal': np.array([-1, np.nan, 1.0])},
    none,
    none,
    boxes,
    {},
    [],
    {},
  )
  bars = []
  for frame in range(3):
    image = draw(np.full((480, 640, 3), 90, np.uint8), result, frame)
    bars.append(
      [
        (image == COLOURS[target]).all(axis=-1).any(axis=0).sum()
        for target in ('valence', 'arousal')
      ]
    )
    if frame != 1:
      left, top, wide, high = (boxes[frame] * [640, 480, 640, 480]).round().astype(int)
      assert (image[top : top + high, left] == 255).all() and (
        image[top, left : left + wide] == 255
      ).all()
    else:
      assert (image[100:] == 90).all()
  np.testing.assert_allclose(bars, [[31, 61], [0, 0], [16, 61]], atol=1)


@pytest.mark.filterwarnings('error')
def test_the_picture_shades_what_is_missing_and_stacks_the_gates(monkeypatch, tmp_path):
  one = np.ones(1, bool)
  single = VideoPrediction(
    np.arange(1, 2), np.zeros(1), {'valence': np.zeros(1)}, one, one, None, {}, [], {}
  )
  plots.clip(single, '映像 $x', tmp_path / 'x.png')
  kept = []
  monkeypatch.setattr(plots, 'save', lambda figure, axes, path: kept.append(figure))
  face, sound = np.ones(50, bool), np.ones(50, bool)
  face[[20, 30, 31]] = sound[40:] = False
  scores = np.tile([0.7, 0.2, 0.1], (50, 1))
  times = np.arange(50) / 10
  result = VideoPrediction(
    np.arange(1, 51),
    times,
    {'valence': np.zeros(50)},
    face,
    sound,
    None,
    {'visual': scores},
    [],
    {},
  )
  plots.clip(result, 'x', 'x.png')
  top, gates = kept[0].axes[:2]
  spans = sorted((patch.get_x(), patch.get_x() + patch.get_width()) for patch in top.patches)
  np.testing.assert_allclose(spans, [(2.0, 2.1), (3.0, 3.2), (4.0, 5.0)], atol=1e-9)
  assert [label.get_text() for label in gates.get_yticklabels()] == [
    'face: unattended',
    'face: recursion 1',
    'face: recursion 2',
  ]
  np.testing.assert_allclose(gates.collections[0].get_array().reshape(3, -1)[:, 0], [0.7, 0.2, 0.1])
  assert gates.yaxis_inverted()  # the first row is on top
