"""Decodes video files with PyAV: exact frame times, frames and sound."""

import dataclasses
import os
from collections.abc import Iterator

import av
import numpy as np

from avjax.errors import InputError
from avjax.media import bounds
from avjax.media.bounds import LONGEST_GAP
from avjax.media.container import film_track, opened, packets_of, sound_track
from avjax.media.mixing import SAMPLE_RATE, Mixer
from avjax.media.picture import Converter

# A longer pause between two blocks of sound is a gap; a shorter one is the container's rounding.
GAP_SECONDS = 0.1
HEARD_AFTER = 2.0  # seconds of sound that are read after the last frame; its window lasts 0.98 s
DISORDER = 0.5  # seconds by which the time of a frame may lie before that of an earlier one
SILENCE = 60 * SAMPLE_RATE  # how many samples of a gap in the sound are made at a time


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

  @property
  def heard_until(self) -> float:
    """Seconds from the container's zero after which no frame needs the sound."""
    return self.start + float(self.times[-1]) + HEARD_AFTER


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
  None if there is no track, or nothing in it can be decoded. `remarks` says what people should know
  about the track.

  track: the number of the sound track, from 1; None chooses as players do.
  until: seconds from the container's zero after which the sound is not read; None reads it all.
  Raises InputError for a sound that lasts longer than bounds.LONGEST.
  """

  def __init__(
    self, path: str | os.PathLike[str], track: int | None = None, until: float | None = None
  ):
    self.path, self.track, self.until = path, track, np.inf if until is None else until

  def __iter__(self) -> Iterator[np.ndarray]:
    self.start, self.gaps, self.count, self.peak, self.remarks = None, [], 0, 0, []
    for block in self.decode():
      if len(block):
        self.count, self.peak = self.count + len(block), max(self.peak, largest(block))
        bounds.check_length(self.path, self.count / SAMPLE_RATE)
        yield block

  def decode(self):
    """Yields blocks of samples, with zeros in the gaps of the track."""
    mixer, end, passed_over, longest = Mixer(), 0.0, 0.0, 0.0  # in seconds
    with opened(self.path) as container:
      stream = sound_track(self.path, container, self.track)
      for frame in sound_frames(self.path, container, stream):
        bounds.check_rate(self.path, frame.sample_rate)
        time = end if frame.time is None else frame.time - passed_over
        if self.start is None:
          self.start = float(time)
        elif time - end > LONGEST_GAP:
          longest, passed_over = max(longest, time - end), passed_over + time - end
          time = end
        elif time - end > GAP_SECONDS:
          # The sound after a gap is placed at its own time, not where the last block ended.
          yield from mixer.flush()
          yield from self.silence(min(time, self.until))
          self.gaps.append((end - self.start, time - self.start))
        if time >= self.until:
          break
        end = time + frame.samples / frame.sample_rate
        yield from self.mixed(mixer, frame)
      yield from mixer.flush()
    if mixer.cancelled:
      self.remarks.append(
        f'the channels of the sound cancel out in {mixer.cancelled / SAMPLE_RATE:.1f} s: '
        'the loudest one is taken there'
      )
    if longest:
      self.remarks.append(
        f'a pause of {longest:,.0f} s in the time stamps of the sound is passed over'
      )

  def silence(self, until):
    """Yields zeros up to a time in seconds from the container's zero."""
    missing = max(round((until - self.start) * SAMPLE_RATE) - self.count, 0)
    for first in range(0, missing, SILENCE):
      yield np.zeros(min(SILENCE, missing - first), np.int16)

  def mixed(self, mixer, frame):
    """Returns the blocks that a frame completes; InputError for channels that cannot be mixed."""
    try:
      return mixer.add(frame)
    except (av.error.ArgumentError, NotImplementedError) as error:
      raise InputError(
        f'{self.path} has sound of {frame.layout.nb_channels} channels, which cannot '
        'be mixed; convert its sound to stereo, or remove it'
      ) from error


def sound_frames(path, container, stream) -> Iterator[av.AudioFrame]:
  """Yields the decoded frames of an audio stream; none for None.

  A damaged packet is skipped, as FFmpeg does. Raises InputError where the sound changes on the way
  as FFmpeg does not decode it, such as an Ogg of several, one after the other.
  """
  try:
    for packet in packets_of(container, stream) if stream is not None else ():
      try:
        yield from packet.decode()
      except av.error.InvalidDataError:
        continue
  except (av.error.PatchWelcomeError, av.error.ArgumentError) as error:
    raise InputError(
      f'{path} has sound that FFmpeg cannot decode to its end; convert its sound, or remove it'
    ) from error


def frames_in_header(path: str | os.PathLike[str]) -> int:
  """Returns how many frames a video has by its header; 0 where the header does not say."""
  with opened(path) as container:
    return needed_film(path, container, None).frames


def read_timeline(path: str | os.PathLike[str], film: int | None = None) -> Timeline:
  """Returns the Timeline of the frames that decoding `path` gives.

  film: the number of the film track, from 1; None chooses as players do.
  Raises InputError where it is not a video or is cut short.
  """
  with opened(path) as container:
    stream = needed_film(path, container, film)
    is_mov = container.format.name.startswith('mov')
    # The packets themselves are not kept: they are the whole file.
    bounds.check_count(path, stream.frames if is_mov else 0)
    packets = []
    for packet in packets_of(container, stream):
      if packet.size:
        packets.append((packet.pts, packet.is_keyframe, packet.is_discard or packet.is_corrupt))
        bounds.check_count(path, len(packets))
    # The header of an MP4 counts its frames, so a file that ends early is noticed.
    if is_mov and len(packets) < stream.frames:
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
    # FFmpeg makes the length of an AVI shorter that was cut, but not the count of its frames.
    counted = stream.frames / stream.average_rate if stream.average_rate else 0
    said = max(counted, (container.duration or 0) / av.time_base)
    container_duration = float(said) or None
  # AVI packets may hold two frames or none, and edit lists hide some: only decoding shows it.
  if not trusted:
    with opened(path) as container:
      stream = needed_film(path, container, film)
      ticks = []
      for frame in frames_of(container, stream):
        ticks.append(frame.pts)
        bounds.check_count(path, len(ticks))
  if not ticks:
    raise InputError(f'{path} holds no frames')
  if None in ticks:  # a stream may have no times, such as raw H.264
    rate = float(next(filter(None, rates), 25))
    times = np.arange(len(ticks)) / rate
    bounds.check_times(path, times)
    return Timeline(times, 0.0, rate, container_duration)
  ticks = np.array(ticks, np.int64)
  if not trusted:
    check_order(path, ticks, float(base))
  ticks = np.sort(ticks)
  bounds.check_span(path, int(ticks[-1]) - int(ticks[0]))
  times = (ticks - ticks[0]) * float(base)
  bounds.check_times(path, times)
  # Rounding to the container's clock moves a frame by less than a tick; a dropped frame moves all
  # that follow.
  fits = (
    float(rate)
    for rate in rates
    if rate and np.abs(times - np.arange(len(times)) / float(rate)).max() < 0.999 * float(base)
  )
  return Timeline(times, float(ticks[0] * base), next(fits, None), container_duration)


def check_order(path, ticks: np.ndarray, base: float) -> None:
  """Raises InputError where the times of decoded frames go back, as in recordings that were joined.

  Up to DISORDER seconds is the disorder of a damaged file. ticks: (n,) as decoded, in units of
  `base` seconds.
  """
  back = (np.maximum.accumulate(ticks) - ticks) * base
  if back.max() > DISORDER:
    frame = int(np.argmax(back > DISORDER))
    raise InputError(
      f'{path}: its time stamps go back by {back[frame]:.1f} s at frame {frame + 1}, as where '
      "recordings were joined; use each of them by itself, or join them by FFmpeg's concat"
    )


def read_frames(
  path: str | os.PathLike[str],
  longest: int | None = None,
  film: int | None = None,
  turn: int = 0,
) -> Iterator[np.ndarray]:
  """Yields the frames of a video in order as (H,W,3) uint8 RGB, upright, in the colours of SDR.

  Raises InputError for a frame of more than MAX_PIXELS pixels.

  Args:
    path: the video.
    longest: most pixels of the longer side; larger frames are made smaller. None leaves them as
      they are.
    film: the number of the film track, from 1; None chooses as players do.
    turn: degrees by which the images are turned clockwise: 0, 90, 180 or 270.
  """
  with opened(path) as container:
    stream, converter = needed_film(path, container, film), Converter(longest, turn)
    stream.thread_type = 'AUTO'
    for frame in frames_of(container, stream):
      bounds.check_size(path, frame)
      yield converter.image(frame, float(stream.sample_aspect_ratio or 1))


def frames_of(container, stream) -> Iterator[av.VideoFrame]:
  """Yields the decoded frames of a video stream."""
  for packet in packets_of(container, stream):
    yield from packet.decode()


def needed_film(path, container, number):
  """Returns the chosen film track of a container; InputError where it has none."""
  stream = film_track(path, container, number)
  if stream is None:
    raise InputError(f'{path} holds no video stream')
  return stream


def largest(samples: np.ndarray) -> int:
  """Returns the largest absolute value of int16 samples, (k,), k >= 1."""
  return max(int(samples.max()), -int(samples.min()))


def read_sound(path: str | os.PathLike[str], track: int | None = None) -> Sound | None:
  """Returns the Sound of a video, or None where no sound can be decoded."""
  reader = SoundReader(path, track)
  blocks = list(reader)
  samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
  return Sound(samples, reader.start, tuple(reader.gaps)) if samples.size else None
