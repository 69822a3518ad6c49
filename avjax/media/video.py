"""Decodes video files with PyAV: exact frame times, frames and sound."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import av
import numpy as np

from avjax.errors import InputError, one_line

# A longer pause between two blocks of sound is a gap; a shorter one is the container's rounding.
GAP_SECONDS = 0.1
SAMPLE_RATE = 16_000
SILENCE = 60 * SAMPLE_RATE  # how many samples of a gap in the sound are made at a time
MAX_PIXELS = 8192 * 8192  # a decoded frame of this size takes 200 MB as RGB

# FFmpeg would report damage on stderr, line by line; what matters is raised as an InputError.
av.logging.set_level(av.logging.PANIC)


@dataclasses.dataclass(frozen=True)
class Timeline:
  """Holds the times at which the frames of a video are shown."""

  times: np.ndarray  # (n,) float64 seconds, ascending, the first one 0
  start: float  # seconds from the container's zero to the first frame
  rate: float | None  # frames per second if constant, else None
  # Seconds that the file says that it lasts, with its sound; None if it does not say.
  container_duration: float | None = None

  @property
  def mean_rate(self) -> float:
    """Frames per second on average; 25 where there is only one frame."""
    return (len(self.times) - 1) / self.times[-1] if len(self.times) > 1 else 25.0


@dataclasses.dataclass(frozen=True)
class Sound:
  """Holds a sound track, mixed down to one channel."""

  samples: np.ndarray  # (n,) int16 at 16 kHz
  start: float  # seconds from the container's zero to the first sample
  # (from, to) of each gap, in seconds after start; samples are 0 there.
  gaps: tuple[tuple[float, float], ...] = ()

  @property
  def count(self) -> int:
    """How many samples there are."""
    return len(self.samples)

  @property
  def peak(self) -> int:
    """The largest absolute value of a sample."""
    return largest(self.samples) if self.count else 0

  def __iter__(self) -> Iterator[np.ndarray]:
    yield self.samples


class SoundReader:
  """Iterates over the samples of a sound track in blocks, (k,) int16 at 16 kHz each.

  It does not keep them. At the end, its start, gaps, count and peak are those of `Sound`; start is
  None if there is no track, or nothing in it can be decoded.
  """

  def __init__(self, path: str | os.PathLike[str]):
    self.path = path

  def __iter__(self) -> Iterator[np.ndarray]:
    self.start, self.gaps, self.count, self.peak = None, [], 0, 0
    for block in self.decode():
      if len(block):
        self.count, self.peak = self.count + len(block), max(self.peak, largest(block))
        yield block

  def decode(self):
    """Yields blocks of samples, some of them empty, with zeros in the gaps of the track.

    Mixed as 16-bit integers, they equal FFmpeg's own to the bit; PyAV's float mix of two channels
    is louder by sqrt 2.
    """
    with opened(self.path) as (container, _):
      stream = container.streams.best('audio')
      if stream is None:
        return
      resampler, end, count = new_resampler(), 0.0, 0
      for packet in container.demux(stream):
        try:
          frames = packet.decode()
        except av.error.InvalidDataError:
          continue  # a damaged packet is skipped, as FFmpeg does
        for frame in frames:
          time = end if frame.time is None else frame.time
          blocks = []
          if self.start is None:
            self.start = float(time)
          elif time - end > GAP_SECONDS:
            # The sound after a gap is placed at its own time, not where the last block ended.
            blocks += flushed(resampler)
            missing = max(
              round((time - self.start) * SAMPLE_RATE) - count - sum(map(len, blocks)), 0
            )
            yield from blocks
            for first in range(0, missing, SILENCE):
              yield np.zeros(min(SILENCE, missing - first), np.int16)
            count, blocks = count + sum(map(len, blocks)) + missing, []
            self.gaps.append((end - self.start, time - self.start))
            resampler = new_resampler()
          end = time + frame.samples / frame.sample_rate
          blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
          count += sum(map(len, blocks))
          yield from blocks
      if self.start is not None:
        yield from flushed(resampler)


def read_timeline(path: str | os.PathLike[str]) -> Timeline:
  """Returns the Timeline of the frames that decoding `path` gives.

  Raises InputError where it is not a video or is cut short.
  """
  with opened(path) as (container, stream):
    # The packets themselves are not kept: they are the whole file.
    packets = [
      (packet.pts, packet.is_keyframe, packet.is_discard or packet.is_corrupt)
      for packet in container.demux(stream)
      if packet.size
    ]
    # The header of an MP4 counts its frames, so a file that ends early is noticed.
    if container.format.name.startswith('mov') and len(packets) < stream.frames:
      raise InputError(
        f'{path} is cut short: {len(packets)} of its {stream.frames} frames are there'
      )
    ticks = sorted(pts for pts, *_ in packets if pts is not None)
    trusted = (
      container.format.name.startswith(('mov', 'matroska'))
      and packets
      and packets[0][1]
      and not any(doubtful for *_, doubtful in packets)
      and len(set(ticks)) == len(packets)
    )
    base, rates = stream.time_base, [stream.average_rate, stream.guessed_rate, stream.base_rate]
    container_duration = container.duration / av.time_base if container.duration else None
  # AVI packets may hold two frames or none, and edit lists hide some: only decoding shows it.
  if not trusted:
    with opened(path) as (container, stream):
      ticks = [frame.pts for frame in container.decode(stream)]
  if not ticks:
    raise InputError(f'{path} holds no frames')
  if None in ticks:  # a stream may have no times, such as raw H.264
    rate = float(next(filter(None, rates), 25))
    return Timeline(np.arange(len(ticks)) / rate, 0.0, rate, container_duration)
  ticks = np.sort(np.array(ticks, np.int64))
  times = (ticks - ticks[0]) * float(base)
  # Rounding to the container's clock moves a frame by less than a tick; a dropped frame moves all
  # that follow.
  fits = (
    float(rate)
    for rate in rates
    if rate and np.abs(times - np.arange(len(times)) / float(rate)).max() < 0.999 * float(base)
  )
  return Timeline(times, float(ticks[0] * base), next(fits, None), container_duration)


def read_frames(path: str | os.PathLike[str], longest: int | None = None) -> Iterator[np.ndarray]:
  """Yields the frames of a video in order as (H,W,3) uint8 RGB, upright.

  Raises InputError for a frame of more than MAX_PIXELS pixels.

  longest: most pixels of the longer side; larger frames are made smaller. None leaves them as they
  are.
  """
  with opened(path) as (container, stream):
    stream.thread_type, rotation, matrix = 'AUTO', None, None
    for frame in container.decode(stream):
      check_size(path, frame)
      wide = frame.width * float(stream.sample_aspect_ratio or 1)  # pixels need not be square
      scale = min(longest / max(wide, frame.height), 1) if longest else 1
      size = [max(round(side * scale), 1) for side in (wide, frame.height)]
      if size != [frame.width, frame.height]:
        frame = frame.reformat(*size, interpolation='AREA')
      image = frame.to_ndarray(format='rgb24')
      # Read only where it changes: side_data keeps its frame alive until the next garbage
      # collection.
      if frame.rotation != rotation:
        rotation, matrix = frame.rotation, frame.side_data.get('DISPLAYMATRIX')
        matrix = matrix and bytes(matrix)
      yield upright(image, matrix) if matrix else image


def upright(image: np.ndarray, matrix: bytes) -> np.ndarray:
  """Returns an image turned and mirrored by a display matrix, the bytes of 9 int32."""
  # A pixel at (x, y) is shown at (a x + c y, b x + d y).
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
  if abs(b) > abs(a):
    image, a, d = image.transpose(1, 0, 2), c, b
  return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def largest(samples: np.ndarray) -> int:
  """Returns the largest absolute value of int16 samples, (k,), k >= 1."""
  return max(int(samples.max()), -int(samples.min()))


def read_sound(path: str | os.PathLike[str]) -> Sound | None:
  """Returns the Sound of a video, or None where no sound can be decoded."""
  reader = SoundReader(path)
  blocks = list(reader)
  samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
  return Sound(samples, reader.start, tuple(reader.gaps)) if samples.size else None


def new_resampler():
  """Returns a resampler to one channel of int16 samples at 16 kHz."""
  return av.AudioResampler(format='s16', layout='mono', rate=SAMPLE_RATE)


def flushed(resampler):
  """Returns the blocks of samples that a resampler still holds."""
  return [block.to_ndarray()[0] for block in resampler.resample(None)]


def address(path: str | os.PathLike[str]) -> str:
  """Returns the absolute path of a file for FFmpeg.

  FFmpeg would take the 12 of a relative path 12:30.mp4 for the name of a protocol.
  """
  return str(pathlib.Path(path).absolute())


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]):
  """Opens a video file as (container, video stream).

  Raises InputError for everything that FFmpeg cannot read.
  """
  try:
    with av.open(address(path)) as container:
      stream = container.streams.best('video')
      if stream is None or container.format.name == 'tty':  # FFmpeg plays text files, too
        raise InputError(f'{path} holds no video stream')
      check_size(path, stream.codec_context)
      yield container, stream
  except InputError:
    raise
  except (av.error.FFmpegError, OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or one_line(error)
    raise InputError(f'{path} cannot be read as a video: {reason}') from error


def check_size(path, image):
  """Raises InputError for an image of more than MAX_PIXELS pixels.

  image: anything with width and height.
  """
  if image.width * image.height > MAX_PIXELS:
    raise InputError(
      f'{path} is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read'
    )
