"""Mixes the channels of a sound track into one, also where its format changes on the way."""

import av
import numpy as np

SAMPLE_RATE = 16_000
BLOCK = SAMPLE_RATE  # samples of a block; the last one may be shorter
# A mix with less than this share of the power of its loudest channel is cancelled: the channels are
# in opposite phase. Where one of two channels is silent, the share is a quarter. It is the power of
# the differences of successive samples, in which a hum or an offset that the channels share, and
# that does not cancel, is weak beside a voice.
CANCELLED = 0.03


class Mixer:
  """Turns the frames of a sound track into blocks of one channel, int16 at 16 kHz.

  cancelled: samples so far in blocks for which the loudest channel was taken, since the channels
    cancel out in the mix.
  """

  def __init__(self):
    self.cancelled, self.format = 0, None

  def add(self, frame: av.AudioFrame) -> list[np.ndarray]:
    """Takes the next frame; returns the blocks that it completes, (BLOCK,) each.

    Raises an error of FFmpeg or ValueError for a frame that cannot be resampled.
    """
    done, format_ = [], (frame.format.name, frame.layout.name, frame.sample_rate)
    if format_ != self.format:
      done, self.format = self.flush(), format_
      # Mixed as 16-bit integers, the samples equal FFmpeg's own to the bit; PyAV's float mix of two
      # channels is louder by sqrt 2.
      self.mix = Resampled(layout='mono')
      self.channels = Resampled() if frame.layout.nb_channels > 1 else self.mix
    for resampled in {self.mix, self.channels}:
      resampled.add(frame)
    while min(self.mix.count, self.channels.count) >= BLOCK:
      done.append(self.take(BLOCK))
    return done

  def flush(self) -> list[np.ndarray]:
    """Returns what is left of the frames so far, at most two blocks."""
    if self.format is None:
      return []
    for resampled in {self.mix, self.channels}:
      resampled.add(None)
    done, self.format = [], None
    while self.mix.count:
      done.append(self.take(min(BLOCK, self.mix.count)))
    return done

  def take(self, count):
    """Returns the next samples (count,) of the mix, or of the loudest channel."""
    mix = self.mix.take(count)[0]
    if self.channels is self.mix:
      return mix
    channels = self.channels.take(count)
    power = power_of(channels)
    if power_of(mix) >= CANCELLED * power.max():
      return mix
    self.cancelled += count
    return channels[power.argmax()]


def power_of(samples: np.ndarray) -> np.ndarray:
  """Returns the power of the differences of successive int16 samples, along the last axis."""
  return np.square(np.diff(samples.astype(np.float32))).sum(axis=-1)


class Resampled:
  """Holds the samples of a sound track that are resampled and wait to be taken, count of them.

  layout: that of the samples; None leaves that of the track.
  """

  def __init__(self, layout=None):
    # The channels of a sample lie side by side, since PyAV crashes on more than 7 separate ones.
    self.resampler = av.AudioResampler('s16', layout, SAMPLE_RATE)
    self.parts, self.count = [], 0

  def add(self, frame):
    """Resamples a frame; None ends the track."""
    for block in self.resampler.resample(frame):
      self.parts.append(block.to_ndarray().reshape(-1, block.layout.nb_channels).T)
      self.count += self.parts[-1].shape[1]

  def take(self, count):
    """Removes and returns the first samples, (channels, count) int16."""
    samples = np.concatenate(self.parts, axis=1)
    self.parts, self.count = [samples[:, count:]], samples.shape[1] - count
    return samples[:, :count]
