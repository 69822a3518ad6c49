"""Tests log-mel against VGGish's definition in float64, windows against the predecessors' code."""

import math

import numpy as np
import pytest

from avjax.data.records import NO_SOUND
from avjax.media import audio
from avjax.media.video import Sound, Timeline

RATES = [14, 15, 24000 / 1001, 23.976, 24, 25, 29.97, 30000 / 1001, 30, 48, 50, 60]
RNG = np.random.default_rng(0)
SECOND = np.arange(16000) / 16000
SIGNALS = {
  'chirp and noise': 0.4 * np.sin(2 * np.pi * (100 + 3700 * SECOND) * SECOND)
  + 0.01 * RNG.standard_normal(16000),
  'noise': 0.3 * RNG.standard_normal(16000),
  'silence': np.zeros(16000),
  'one bit': np.sign(np.sin(2 * np.pi * 440 * SECOND)) / 32768,
  'constant': np.full(16000, 0.5),
  '800 samples': 0.3 * RNG.standard_normal(800),
}


def pcm(wave):
  return np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)


def vggish(samples):
  """Computes VGGish's log-mel in float64, as defined: 25 ms periodic Hann window, 10 ms hop,
  512-point magnitude, 64 HTK bands.
  """
  wave = np.pad(samples, (0, 16000), 'edge') / 32768
  hann = 0.5 - 0.5 * np.cos(2 * np.pi / 400 * np.arange(400))
  count = 1 + (len(wave) - 400) // 160
  spectrum = np.abs(
    np.fft.rfft(np.stack([wave[160 * i : 160 * i + 400] * hann for i in range(count)]), 512)
  )

  def mel(hertz):
    return 1127 * math.log(1 + hertz / 700)

  edges = [mel(125) + (mel(7500) - mel(125)) * i / 65 for i in range(66)]
  weights = np.zeros((257, 64))
  for bin_ in range(1, 257):
    at = mel(bin_ * 8000 / 256)
    for band in range(64):
      low, centre, high = edges[band : band + 3]
      weights[bin_, band] = max(0, min((at - low) / (centre - low), (high - at) / (high - centre)))
  return np.log(spectrum @ weights + 0.01)


def reference_windows(rate, rows, frames):
  """Cuts windows as the predecessors do: one every h rows at round(i h), the last one repeated to
  the video's length.
  """
  h = (1 / rate) * (1.0 / 0.010)
  starts = [round(i * h) for i in range(math.floor((rows - 96) / h) + 1)]
  return (starts + [starts[-1]] * frames)[:frames]


@pytest.mark.parametrize('name', SIGNALS)
def test_log_mel_is_vggish(name):
  samples = pcm(SIGNALS[name])
  ours, theirs = audio.log_mel(samples), vggish(samples)
  assert (
    ours.shape == theirs.shape == (1 + (len(samples) + 15600) // 160, 64)
    and ours.dtype == np.float32
  )
  assert np.abs(ours - theirs).max() < 4e-6


def test_blocks_leave_no_seam(monkeypatch):
  samples = pcm(SIGNALS['noise'])
  whole = audio.log_mel(samples)
  monkeypatch.setattr(audio, 'BLOCK_ROWS', 7)
  np.testing.assert_allclose(audio.log_mel(samples), whole, atol=1e-6)


@pytest.mark.parametrize('rate', RATES)
def test_windows_start_where_the_predecessors_start(rate):
  frames = round(600 * rate)
  timeline = Timeline(np.arange(frames) / rate, 0.0, rate)
  rows = 1 + (600 * 16000 + 15600) // 160
  starts = audio.window_starts(timeline, 0.0, rows)
  assert starts.dtype == np.int32
  np.testing.assert_array_equal(starts, reference_windows(rate, rows, frames))


def test_gathered_windows_are_bit_equal_also_from_the_rows_kept():
  rows = audio.log_mel(pcm(0.3 * RNG.standard_normal(20 * 16000))).astype(np.float16)
  starts = audio.window_starts(Timeline(np.arange(600) / 30, 0.0, 30.0), 0.0, len(rows))
  windows = np.stack(
    [rows[start : start + 96] for start in reference_windows(30.0, len(rows), 600)]
  )
  np.testing.assert_array_equal(rows[starts[:, None] + np.arange(96)], windows)
  some = np.r_[5:40, 400:500]
  kept, renumbered = audio.keep_rows(rows, starts[some])
  assert len(kept) == (130 - 17 + 96) + (1663 - 1333 + 96) and renumbered.dtype == np.int32
  np.testing.assert_array_equal(kept[renumbered[:, None] + np.arange(96)], windows[some])


@pytest.mark.parametrize(
  'video_start, sound_start, first', [(0.033, 0, 3), (0.5, 0.2, 30), (0, 0.05, 0), (1.0, 1.0, 0)]
)
def test_stream_offsets_move_the_windows(video_start, sound_start, first):
  starts = audio.window_starts(Timeline(np.arange(50) / 25, video_start, 25.0), sound_start, 400)
  assert starts[0] == first
  assert starts[20] == 80 + round(100 * (video_start - sound_start))


def test_variable_rate_takes_the_real_times():
  times = np.array([0, 0.031, 0.1, 0.5])
  np.testing.assert_array_equal(
    audio.window_starts(Timeline(times, 0.02, None), 0.0, 500), [2, 5, 12, 52]
  )


def test_short_late_silent_and_absent_sound():
  timeline = Timeline(np.arange(100) / 25, 0.0, 25.0)
  sound = Sound(pcm(0.3 * RNG.standard_normal(2 * 16000)), 0.0)
  rows, starts, present = audio.hear(timeline, sound)
  assert len(rows) == 298 and starts.max() == starts[-1] == 202  # the last window again and again
  np.testing.assert_array_equal(present, np.arange(100) < 50)
  assert rows.dtype == np.float16
  _, starts, present = audio.hear(timeline, Sound(sound.samples, 1.0))
  np.testing.assert_array_equal(present, (np.arange(100) >= 25) & (np.arange(100) < 75))
  assert starts[25] == 0 and starts[26] == 4
  for nothing in (None, Sound(np.zeros(32000, np.int16), 0.0)):
    rows, starts, present = audio.hear(timeline, nothing)
    assert rows.shape == (96, 64) and (rows == NO_SOUND).all() and rows.dtype == np.float16
    assert not starts.any() and not present.any()


@pytest.mark.parametrize(
  'sample, silent', [(0, True), (1, True), (-1, True), (2, False), (-2, False)]
)
def test_what_counts_as_silence(sample, silent):
  """One step of 16 bits is the noise of a recorder without a signal."""
  sound = Sound(np.array([0] * 20_000 + [sample] + [0] * 20_000, np.int16), 0.0)
  rows, _, present = audio.hear(Timeline(np.arange(50) / 25, 0.0, 25.0), sound)
  assert audio.is_silent(sound) == silent and present.all() == (not silent)
  assert (rows == NO_SOUND).all() == silent


def test_windows_one_by_one_are_those_of_the_whole_spectrogram():
  """They span several blocks of rows; some starts are far apart, some equal; some are silent."""
  rng = np.random.default_rng(1)
  sound = Sound(rng.integers(-3000, 3000, 14_000 * 160, dtype=np.int16), 0.2)
  timeline = Timeline(
    np.sort(np.concatenate([[0], rng.uniform(0, 150, 400), 70 + rng.uniform(0, 1, 100)])), 0.0, None
  )
  for other in (
    sound,
    Sound(sound.samples[:8000], 3.0),
    Sound(sound.samples[:8000] // 30_000, 0.0),
    None,
  ):
    rows, starts, _ = audio.hear(timeline, other)
    found = list(audio.windows(other, starts))
    np.testing.assert_array_equal(found, rows[starts[:, None] + np.arange(96)])
    assert found[0].dtype == np.float16


def test_the_rows_of_a_stream_are_those_of_the_whole():
  """They are equal bit for bit, however the sound is cut into blocks, even where a block ends."""
  rng = np.random.default_rng(0)
  for n in (1, 399, 16_000, 6000 * 160 - 16_000, 6000 * 160 - 15_999, 2_500_000):
    samples = rng.integers(-30_000, 30_000, n, dtype=np.int16)
    whole = audio.log_mel(samples)
    assert len(whole) == 1 + (n + 15_600) // 160
    for size in (1024, 100_000):
      pieces = [samples[i : i + size] for i in range(0, n, size)]
      np.testing.assert_array_equal(
        np.concatenate(list(audio.log_mel_blocks([pieces[0][:0], *pieces]))), whole
      )
