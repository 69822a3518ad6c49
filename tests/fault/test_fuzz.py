"""Tests predict's decoding on files that were damaged or changed at random, from a seed.

Each is read, or refused in one line. None takes a minute or two gigabytes, crashes the decoder, or
loses more than a second of its original without a remark. The long form has 500 files.
"""

import contextlib
import os
import pathlib
import threading

import pytest

from avjax.errors import InputError
from avjax.inference.face_source import DETECTION_SIDE
from avjax.inference.remarks import interruptions
from avjax.inference.source import open_source
from avjax.media import audio
from avjax.media.decoder import Decoder
from fault import mutations

MEDIA = pathlib.Path(__file__).parents[3] / 'shared/media'
SEED = 20
MOST_SECONDS, MOST_BYTES = 60, 2e9  # of the processor, of memory
LONGEST_WAIT = 600  # seconds after which a decoder counts as hanging, however busy the machine is


def read(path):
  """Reads a file as predict does; returns (seconds of film or sound, remarks)."""
  with Decoder() as decoder:
    limit = threading.Timer(LONGEST_WAIT, decoder.child.kill)
    limit.start()
    try:
      source = open_source(decoder, path, film=None, sound=None, turn=0)
      times = source.timeline.times
      first_rows, _ = audio.place(source.timeline, source.sound)
      count = sum(1 for _ in source.frames(DETECTION_SIDE))
      if count != len(times):
        raise InputError(f'{path} is damaged: {count} of its {len(times)} frames can be decoded')
      windows = sum(1 for _ in audio.windows(source.sound, first_rows))
      assert windows == count
      return len(times) / source.timeline.mean_rate, source.notes + interruptions(source.timeline)
    finally:
      limit.cancel()
      read.bytes = memory_of(decoder.child.pid)


def seconds_used():
  """Returns the seconds of the processor that this process and its children have used."""
  return sum(os.times()[:4])


def memory_of(process):
  """Returns the most bytes of memory that a process has used; 0 where Linux does not tell."""
  with contextlib.suppress(OSError):
    for line in pathlib.Path(f'/proc/{process}/status').read_text().splitlines():
      if line.startswith('VmHWM:'):
        return int(line.split()[1]) * 1024
  return 0


@pytest.mark.slow
def test_variants_of_films(tmp_path, full, record):
  (tmp_path / 'films').mkdir()
  (tmp_path / 'variants').mkdir()
  films = mutations.make_films(tmp_path / 'films')
  if full and MEDIA.is_dir():
    films += sorted(path for path in MEDIA.iterdir() if path.suffix in ('.mp4', '.mpg'))
  lengths = {film: read(film)[0] for film in films}
  counts = dict.fromkeys(('read', 'read with a remark', 'refused', 'shorter', 'crashed'), 0)
  slowest, largest, wrong = 0, 0, {}
  count = 500 if full else 24
  for what, original, path in mutations.variants(films, tmp_path / 'variants', count, SEED):
    start = seconds_used()
    try:
      seconds, notes = read(path)
    except InputError as error:
      crashed = 'its decoder' in str(error)
      counts['crashed' if crashed else 'refused'] += 1
      if crashed or '\n' in str(error) or len(str(error)) > 300:
        wrong[what] = str(error)
    except Exception as error:  # a fault of ours: reported with all others
      wrong[what] = repr(error)[-600:]
    else:
      counts['read with a remark' if notes else 'read'] += 1
      if seconds < lengths[original] - 1 and not notes:
        counts['shorter'] += 1
        if not says_nothing_of_its_length(path):
          wrong[what] = f'{seconds:.1f} of {lengths[original]:.1f} s are read, without a remark'
    taken = seconds_used() - start
    slowest, largest = max(slowest, taken), max(largest, read.bytes)
    if taken > MOST_SECONDS or read.bytes > MOST_BYTES:
      wrong[what] = f'{taken:.0f} s, {read.bytes / 1e6:.0f} MB'
  if full:
    record(
      'variants of films: variants, read, read with a remark, refused in one line, crashes of the '
      'decoder; most processor seconds; most MB',
      [count, *(counts[name] for name in ('read', 'read with a remark', 'refused', 'crashed')),
       round(slowest, 1), round(largest / 1e6)],
    )  # fmt: skip
  print(counts, round(slowest, 1), round(largest / 1e6))
  assert not wrong, '\n'.join(f'{name}: {text}' for name, text in wrong.items())


def says_nothing_of_its_length(path):
  """Tells whether FFmpeg knows no length of a file, so that avjax cannot know what was cut off.

  It does not trust an ASF that is shorter than its header says.
  """
  return path.suffix in ('.ts', '.mpg', '.nut', '.asf')
