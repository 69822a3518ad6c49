"""Bounds what a media file may take: length, pictures, rates; memory and time of its decoder.

A small file can claim, or unpack to, far more than a machine has. What these bounds leave is read.
"""

import contextlib
import os
import signal

from avjax import bounded
from avjax.errors import InputError

MAX_PIXELS = 8192 * 8192  # a decoded frame of this size takes 200 MB as RGB
CODED_PIXELS = 2 * MAX_PIXELS  # decoders refuse more; what they code may be larger than the picture
THREADED_PIXELS = 2**27  # in the frames that the threads of a decoder hold at once
MOST_FRAMES = 3_000_000  # 27 hours at 30 frames a second
FASTEST = 10_000  # frames per second, on average
# Seconds between two frames, or two blocks of sound. A longer gap in the sound is a mistake of the
# time stamps: the sound goes on without a pause.
LONGEST_GAP = 3600.0
LONGEST = 12 * 3600.0  # seconds of a film, or of a sound
# Samples per second. Resampling makes the sound of lower rates much larger than its file, and for
# higher ones, which DSD has at most, it needs large tables.
LOWEST_RATE, HIGHEST_RATE = 1_000, 4_000_000
# Memory of a decoder: bytes for each byte of the file, and those that any file may take.
FILE_TIMES, BASE_MEMORY = 20, 2 * 10**9
TOO_MUCH_MEMORY = (
  'more memory than a decoder may take for a file of its size; convert it or leave it out'
)
# Seconds of the processor without a packet. Seconds of the clock would also count while a person
# has stopped the command, or while others use the machine.
MOST_SECONDS = 50


def check_size(path, image) -> None:
  """Raises InputError for an image of more than MAX_PIXELS pixels.

  image: anything with width and height.
  """
  if image.width * image.height > MAX_PIXELS:
    raise InputError(
      f'{path} is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read'
    )


def check_count(path, count: int) -> None:
  """Raises InputError for a film of more than MOST_FRAMES frames."""
  if count > MOST_FRAMES:
    raise InputError(
      f'{path} has more than {MOST_FRAMES:,} frames, which are the most that are read; '
      'cut it with ffmpeg -i IN -t SECONDS OUT'
    )


def check_times(path, times) -> None:
  """Raises InputError where a film shows a frame for very long, lasts too long, or is too fast.

  times: (n,) seconds, ascending, the first one 0.
  """
  gaps = times[1:] - times[:-1]
  if len(gaps) and gaps.max() > LONGEST_GAP:
    first = gaps.argmax()
    raise InputError(
      f'{path}: no new frame for {gaps[first]:,.0f} s after {times[first]:.1f} s; at most '
      f'{LONGEST_GAP:,.0f} s are read; cut it there with ffmpeg -i IN -t SECONDS OUT'
    )
  check_length(path, times[-1])
  if len(gaps) > FASTEST * times[-1] > 0:
    raise InputError(
      f'{path} shows {len(times):,} frames in {times[-1]:.3g} s; at most {FASTEST:,} a second are '
      'read; convert it with ffmpeg -i IN -r 25 OUT'
    )


def check_span(path, ticks: int) -> None:
  """Raises InputError where the ticks from a film's first frame to its last one exceed int64."""
  if ticks >= 2**63:
    check_length(path, float('inf'))


def check_length(path, seconds: float) -> None:
  """Raises InputError for a film or sound that lasts longer than LONGEST."""
  if seconds > LONGEST:
    raise InputError(
      f'{path} lasts more than {LONGEST / 3600:.0f} hours, which are the most that are read; '
      'cut it with ffmpeg -i IN -t SECONDS OUT'
    )


def check_rate(path, rate: int) -> None:
  """Raises InputError for a sound whose samples per second are not those of any recording."""
  if not LOWEST_RATE <= rate <= HIGHEST_RATE:
    raise InputError(
      f'{path} has sound of {rate:,} samples a second; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are '
      'read; convert its sound, or remove it'
    )


def thread_count(image) -> int:
  """Returns how many threads may decode frames of this size; each of them holds one.

  image: anything with width and height.
  """
  frames = THREADED_PIXELS // max(image.width * image.height, 1)
  return max(min((os.cpu_count() or 1) + 1, 16, frames), 1)  # 16 is FFmpeg's own maximum


def limit_memory(path) -> None:
  """Limits the memory of this process to what a decoder of this file may take, on Linux."""
  with contextlib.suppress(OSError):
    bounded.limit_memory(BASE_MEMORY + FILE_TIMES * os.stat(path).st_size)


def limit_time() -> None:
  """Ends this process after MOST_SECONDS of the processor, unless `note_progress` is called."""
  signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)


def note_progress() -> None:
  """Gives the time of `limit_time` anew, where that was called."""
  if signal.getitimer(signal.ITIMER_PROF)[0]:
    limit_time()
