"""Tests frame times, offsets and sound of files written here: any rate, both containers, rotation,
damage.
"""

import fractions
import gc
import os

import av
import numpy as np
import pytest
from official_set import tone, write_video

from avjax.errors import InputError
from avjax.inference.remarks import interruptions
from avjax.media import audio, bounds, video


@pytest.mark.parametrize('ending', ['.mp4', '.avi'])
@pytest.mark.parametrize('rate', ['15', '24000/1001', '25', '30000/1001', '60'])
def test_constant_rates(tmp_path, ending, rate):
  path = tmp_path / f'clip{ending}'
  write_video(path, 50, rate=rate)
  timeline = video.read_timeline(path)
  top, bottom = (*map(int, rate.split('/')), 1)[:2]
  assert timeline.rate == top / bottom
  assert timeline.start == 0
  np.testing.assert_allclose(timeline.times, np.arange(50) * bottom / top, atol=1e-9)
  assert video.read_sound(path) is None


def test_a_variable_rate_has_times_but_no_rate(tmp_path):
  pts = np.cumsum([0, *np.random.default_rng(0).choice([33, 40, 67, 200], 59)])
  path = tmp_path / 'phone.mp4'
  write_video(path, 60, pts=pts)
  timeline = video.read_timeline(path)
  assert timeline.rate is None
  np.testing.assert_allclose(timeline.times, pts / 1000, atol=1e-4)


def test_dropped_frames_of_an_avi_leave_a_gap_in_time(tmp_path):
  pts = np.array([0, 1, 2, 4, 5, 6, 9, 10])  # its clock ticks once a frame
  path = tmp_path / 'dropped.avi'
  write_video(path, len(pts), pts=pts, clock=25)
  timeline = video.read_timeline(path)
  assert timeline.rate is None
  np.testing.assert_allclose(timeline.times, pts / 25, atol=1e-9)


def test_frames_come_in_order_and_as_many_as_there_are_times(tmp_path):
  for ending in ('.mp4', '.avi'):  # H.264 stores its frames out of order
    path = tmp_path / f'clip{ending}'
    write_video(path, 40)
    greys = [frame.mean() for frame in video.read_frames(path)]
    np.testing.assert_allclose(greys, 5 * np.arange(40), atol=3)


def test_sound_is_where_its_timestamps_say(tmp_path):
  sound = tone(25)
  for ending, tolerance in (('.avi', 1e-9), ('.mp4', 0.03)):
    path = tmp_path / f'clip{ending}'
    write_video(path, 25, sound)
    heard = video.read_sound(path)
    assert heard.samples.dtype == np.int16 and abs(heard.start) <= tolerance
    assert abs(len(heard.samples) - 16000) <= 16000 * tolerance + 1
    peak = np.abs(heard.samples[4000:12000].astype(int)).max() / 32767
    assert abs(peak - 0.3) < 0.02  # mono stays as loud as it is
  path = tmp_path / 'late.mp4'
  write_video(path, 25, sound, sound_delay=0.5)
  timeline, heard = video.read_timeline(path), video.read_sound(path)
  assert abs(heard.start - timeline.start - 0.5) < 0.03


def test_stereo_is_mixed_to_its_mean(tmp_path):
  import av

  path = tmp_path / 'stereo.avi'
  with av.open(str(path), 'w') as container:
    picture = container.add_stream('mpeg4', rate=25)
    picture.width, picture.height, picture.pix_fmt = 64, 48, 'yuv420p'
    stream = container.add_stream('pcm_s16le', rate=16000, layout='stereo')
    container.mux(
      picture.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format='rgb24'))
    )
    container.mux(picture.encode())
    frame = av.AudioFrame.from_ndarray(
      np.tile(np.int16([8000, 4000]), 1600)[None], format='s16', layout='stereo'
    )
    frame.sample_rate = 16000
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
  assert np.abs(video.read_sound(path).samples.astype(int) - 6000).max() <= 1


@pytest.mark.parametrize(
  'a, b, c, d',
  [
    (0, 1, -1, 0),
    (-1, 0, 0, -1),
    (0, -1, 1, 0),
    (-1, 0, 0, 1),
    (1, 0, 0, -1),
    (0, 1, 1, 0),
    (0, -1, -1, 0),
  ],
)
def test_a_turned_or_mirrored_video_comes_upright(tmp_path, a, b, c, d):
  """A pixel at (x, y) is shown at (a x + c y, b x + d y): all turns and mirrorings there are."""
  path = tmp_path / 'clip.mp4'
  bright = np.zeros((48, 64, 3), np.uint8)
  bright[:24, :32], bright[:24, 32:] = 200, 100  # top left, top right; nothing below
  write_video(path, 2, image=bright)

  def matrix(*numbers):
    return b''.join((number * 0x10000).to_bytes(4, 'big', signed=True) for number in numbers)

  data = path.read_bytes()
  at = data.index(matrix(1, 0, 0, 0, 1), data.index(b'tkhd'))
  path.write_bytes(data[:at] + matrix(a, b, 0, c, d) + data[at + 20 :])
  image = next(video.read_frames(path))
  assert image.shape == ((48, 64, 3) if a else (64, 48, 3))
  centre = np.array(image.shape[1::-1]) / 2
  for value, x, y in ((200, -1, -1), (100, 1, -1), (0, 1, 1), (0, -1, 1)):
    column, row = (centre + 0.5 * centre * [a * x + c * y, b * x + d * y]).astype(int)
    assert abs(int(image[row, column, 0]) - value) < 8


def test_pictures_that_were_read_are_free_at_once(tmp_path):
  """They do not wait for the garbage collector, since decoded frames are large."""
  write_video(tmp_path / 'clip.mp4', 200)
  gc.collect()
  gc.disable()
  try:
    assert sum(1 for _ in video.read_frames(tmp_path / 'clip.mp4')) == 200
    assert gc.collect() < 100
  finally:
    gc.enable()


@pytest.mark.parametrize('ending', ['.mp4', '.avi'])
def test_damage_is_one_error_with_the_name(tmp_path, ending):
  path = tmp_path / f'clip{ending}'
  write_video(path, 40, tone(40))
  os.truncate(path, 600)
  with pytest.raises(InputError, match=f'clip{ending} '):
    video.read_timeline(path)
  path.write_text('no video')
  for read in (video.read_timeline, video.read_sound, lambda path: list(video.read_frames(path))):
    with pytest.raises(InputError, match='cannot be read as a video'):
      read(path)
  with pytest.raises(InputError, match='cannot be read as a video'):
    video.read_timeline(tmp_path / 'missing.mp4')


def test_an_mp4_whose_end_is_missing_is_cut_short(tmp_path):
  import av

  path = tmp_path / 'stream.mp4'
  # The index comes first.
  with av.open(str(path), 'w', options={'movflags': 'faststart'}) as container:
    stream = container.add_stream('libx264', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    noise = np.random.default_rng(0)
    for _ in range(30):
      image = noise.integers(0, 256, (48, 64, 3), np.uint8)
      container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
    container.mux(stream.encode())
  os.truncate(path, path.stat().st_size // 2)
  with pytest.raises(InputError, match=r'is cut short: [0-9]+ of its 30 frames are there'):
    video.read_timeline(path)


def test_an_avi_that_was_cut_says_how_long_it_was(tmp_path):
  write_video(tmp_path / 'clip.avi', 40, tone(40))
  whole = (tmp_path / 'clip.avi').read_bytes()
  (tmp_path / 'clip.avi').write_bytes(whole[: len(whole) // 4])
  timeline = video.read_timeline(tmp_path / 'clip.avi')
  assert len(timeline.times) < 15 and timeline.container_duration == 1.6
  assert any('lasts 1.6 s' in note for note in interruptions(timeline))


def test_far_too_large_pictures_are_refused(tmp_path, monkeypatch):
  path = tmp_path / 'clip.mp4'
  write_video(path, 2)
  monkeypatch.setattr(bounds, 'MAX_PIXELS', 64 * 48 - 1)
  with pytest.raises(InputError, match='is 64 x 48 pixels'):
    next(video.read_frames(path))


def test_a_hole_in_the_sound_is_silence_and_moves_nothing(tmp_path):
  """After two seconds of tone and four of nothing, the next tone is where its time stamps say."""
  path = tmp_path / 'hole.mkv'
  tone = (0.5 * 32767 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000)).astype(np.int16)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('mpeg4', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    sound = container.add_stream('pcm_s16le', rate=16_000)
    sound.layout = 'mono'
    for _ in range(200):
      container.mux(
        stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format='rgb24'))
      )
    container.mux(stream.encode())
    for second in (0, 6):
      for first in range(0, 32_000, 1600):
        frame = av.AudioFrame.from_ndarray(
          tone[None, first : first + 1600], format='s16', layout='mono'
        )
        frame.sample_rate, frame.time_base, frame.pts = (
          16_000,
          fractions.Fraction(1, 16_000),
          second * 16_000 + first,
        )
        container.mux(sound.encode(frame))
    container.mux(sound.encode())
  heard = video.read_sound(path)
  loud = np.abs(heard.samples.reshape(-1, 1600)).max(axis=1) > 10_000
  np.testing.assert_array_equal(np.flatnonzero(loud), [*range(20), *range(60, 80)])
  ((first, last),) = heard.gaps
  assert abs(first - 2) < 0.01 and abs(last - 6) < 0.01
  _, _, present = audio.hear(video.read_timeline(path), heard)
  np.testing.assert_array_equal(np.flatnonzero(~present), np.arange(50, 150))
