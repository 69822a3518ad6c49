"""Tests sound as other people's programs make it: formats that change, channels that cancel out."""

import numpy as np
import pytest
from other_files import (
  tone_of,
  write_sounds,
)

from avjax.media import video
from avjax.media.decoder import Decoder


def test_sound_that_changes_on_the_way_is_heard_to_its_end(tmp_path):
  """One second each of another rate and other channels: it stays one tone of 440 Hz."""
  path = tmp_path / 'changing.ts'
  parts = [
    tone_of(440, 44_100, 'stereo'),
    tone_of(440, 32_000, 'mono'),
    tone_of(440, 48_000, 'stereo'),
  ]
  write_sounds(path, [parts], codec='mp2')
  heard = video.read_sound(path)
  assert abs(len(heard.samples) - 48_000) <= 1600  # a frame of MP2 has up to 36 ms
  for second in range(3):
    part = heard.samples[16_000 * second + 1600 : 16_000 * second + 14_400].astype(float)
    spectrum = np.abs(np.fft.rfft(part * np.hanning(len(part))))
    assert abs(spectrum.argmax() * 16_000 / len(part) - 440) < 2
    assert abs(np.abs(part).max() / 32_767 - 0.3) < 0.02


@pytest.mark.parametrize('leak', [0.0, 0.05])
def test_channels_in_opposite_phase_are_heard(tmp_path, leak):
  """The loudest channel is taken where the mix is weak, and only there: here in the 2nd second."""
  path, t = tmp_path / 'phase.wav', np.arange(48_000) / 16_000
  left = 0.3 * np.sin(2 * np.pi * 440 * t)
  right = np.where((t >= 1) & (t < 2), -(1 - leak) * left, left)
  write_sounds(path, [[(np.stack([left, right]), 16_000, 'stereo')]])
  reader = video.SoundReader(path)
  samples = np.concatenate(list(reader))
  assert np.abs(samples / 32768 - left).max() < 0.02
  assert reader.remarks == [
    'the channels of the sound cancel out in 1.0 s: the loudest one is taken there'
  ]
  quiet = tmp_path / 'one.wav'  # one silent channel is no reason for it
  write_sounds(quiet, [[(np.stack([left, 0 * left]), 16_000, 'stereo')]])
  reader = video.SoundReader(quiet)
  assert np.abs(np.concatenate(list(reader)) / 32768 - left / 2).max() < 1e-3
  assert reader.remarks == []


@pytest.mark.parametrize('kind', ['hum', 'offset', 'weaker'])
def test_a_voice_in_opposite_phase_is_heard_beside_what_is_common(tmp_path, kind):
  """A hum of the mains or an offset does not cancel, and a channel may be weaker than the other."""
  path, t = tmp_path / 'phase.wav', np.arange(48_000) / 16_000
  voice = 0.3 * np.sin(2 * np.pi * 440 * t)
  common = {'hum': 0.05 * np.sin(2 * np.pi * 50 * t), 'offset': 0.05}.get(kind, 0.0)
  right = -0.8 * voice if kind == 'weaker' else common - voice
  write_sounds(path, [[(np.stack([voice + common, right]), 16_000, 'stereo')]])
  reader = video.SoundReader(path)
  samples = np.concatenate(list(reader)) / 32768
  assert abs(2 * np.abs(np.fft.rfft(samples)[3 * 440]) / len(samples) - 0.3) < 0.01
  assert reader.remarks == [
    'the channels of the sound cancel out in 3.0 s: the loudest one is taken there'
  ]


@pytest.mark.parametrize('layout', ['5.1', '7.1', 'hexadecagonal', '22.2'])
def test_sound_of_many_channels_is_heard(tmp_path, layout):
  """The mix of equal channels is each of them; two in opposite phase are heard as one.

  PyAV crashes on 8 channels and more where they are apart.
  """
  path, (wave, rate, _) = tmp_path / 'many.mkv', tone_of(440, layout=layout)
  write_sounds(path, [[(wave, rate, layout)]])
  with Decoder() as decoder:
    samples = np.concatenate(list(decoder.sound(path)))
  assert np.abs(samples / 32768 - wave[0]).max() < 1e-3
  wave[1] *= -1
  wave[2:] = 0
  write_sounds(path, [[(wave, rate, layout)]])
  with Decoder() as decoder:
    samples = np.concatenate(list(decoder.sound(path)))
  assert np.abs(samples / 32768 - wave[0]).max() < 1e-3


def test_a_wild_time_stamp_in_the_sound_adds_no_hours(tmp_path):
  path = tmp_path / 'wild.mkv'
  write_sounds(path, [[tone_of(440)]], jump=36_000)
  reader = video.SoundReader(path)
  assert sum(map(len, reader)) == 16_000 and reader.gaps == []
  assert reader.remarks == ['a pause of 36,000 s in the time stamps of the sound is passed over']
