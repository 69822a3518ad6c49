"""Measures how fast records are read, and how fast and how large `data_prep.build` makes them.

python -m benchmarks.reading --output FOLDER [--small]

FOLDER/reading.json gets the figures, and each is printed as it is known. Records with random
content, of the sizes of the defaults, are made in FOLDER and read several times as training reads
them. Before each pass their files are read plainly from beginning to end, which is a ceiling. Both
find them in memory, since they have just been written. Then a synthetic Aff-Wild2 is built with all
cores, and time and size are projected to the real one, whose videos have more pixels. On two cores
it takes two minutes, and --small, for a dry run, half a minute. Records and videos of an earlier
run are removed from FOLDER.
"""

import argparse
import collections
import contextlib
import io
import json
import os
import pathlib
import shutil
import statistics
import time

import numpy as np

from avjax import errors
from avjax.data import manifest
from avjax.data.dataset import Records
from avjax.data.records import MEL_BANDS, WINDOW_ROWS, Layout
from avjax.data.splits import CHUNKS
from avjax.data.windows import window_starts
from data_prep import build, clips, mini, parallel, shards

FRAMES, CLIPS = 2_993_081, 610  # of Aff-Wild2: 594 videos, 16 of them with two persons
RATE, ROWS_PER_FRAME, BATCH_SIZE = 30, 100 / 30, 12
BLOCK = 1 << 20  # bytes of a plain read


def random_clip(name, n, face):
  """Returns a decoded clip of n frames with random content."""
  rng = np.random.default_rng(n)
  starts = np.floor(np.arange(n) * ROWS_PER_FRAME).astype(np.int32)
  return clips.DecodedClip(
    name=name,
    frames=np.arange(1, n + 1, dtype=np.int32),
    times=(np.arange(n) / RATE).astype(np.float32),
    labels=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
    annotated=np.ones(n, bool),
    faces=rng.integers(0, 256, (n, face, face, 3), np.uint8),
    face_present=np.ones(n, bool),
    log_mel=rng.normal(-3, 2, (starts[-1] + WINDOW_ROWS, MEL_BANDS)).astype(np.float16),
    window_starts=starts,
    audio_present=np.ones(n, bool),
    features={},
    unreadable=0,
    cut=0,
  )


def make_records(folder, layout, clips_each, windows):
  """Writes records of clips with that many windows, as a build does; returns their folder."""
  from data_prep import tfds_builder  # late, since it imports TensorFlow

  n = layout.length + (windows - 1) * layout.stride
  kept = {split: {f'{split}_{i}': n for i in range(clips_each)} for split in CHUNKS}
  tally = collections.Counter()

  def examples(split):
    for name in kept[split]:
      for record in clips.clip_records(random_clip(name, n, layout.face), layout):
        tally['log_mel_bytes'] += record['log_mel'].nbytes
        tally['max_rows'] = max(tally['max_rows'], len(record['log_mel']))
        yield f'{name}/{record["window"]}', record

  counts = tfds_builder.write(layout, {split: examples(split) for split in kept}, folder, 150)
  version = manifest.version_folder(folder)
  made = shards.describe(version, layout, counts, kept, tally)
  manifest.write_manifest(version, made)
  return version


def read_plainly(folder):
  """Reads all shards of a folder one after the other; returns the seconds."""
  begin, block = time.perf_counter(), bytearray(BLOCK)
  for path in sorted(folder.glob(f'{manifest.NAME}-*')):
    with open(path, 'rb', buffering=0) as file:
      while file.readinto(block):
        pass
  return time.perf_counter() - begin


def read_batches(data, seed):
  """Reads all records in the order of a seed; returns the seconds to the first batch and in all."""
  begin, first = time.perf_counter(), None
  for _ in data.batches(list(CHUNKS), BATCH_SIZE, seed):
    first = first or time.perf_counter() - begin
  return first, time.perf_counter() - begin


def bytes_read():
  """Returns how many bytes this process has read so far, from disk or memory."""
  lines = pathlib.Path('/proc/self/io').read_text().splitlines()
  return int(dict(line.split(': ') for line in lines)['rchar'])


def measure_hosts(data):
  """Returns {hosts: what one of them reads for a step, and how long a core is busy with it}.

  A batch of 24 clips is divided between the hosts.
  """
  found = {}
  for hosts in (1, 2, 4, 8):
    rows = range(24 // hosts)
    before, begin = bytes_read(), time.process_time()
    steps = sum(1 for _ in data.batches(list(CHUNKS), 24, 0, rows=rows))
    read, busy = bytes_read() - before, time.process_time() - begin
    found[hosts] = {'mb': round(read / steps / 1e6, 2), 'ms': round(1e3 * busy / steps, 1)}
    print(f'{hosts} hosts: each reads', found[hosts], 'for a step', flush=True)
  return found


def measure_reader(folder, small):
  """Returns the clips/s of the reader and of a plain read, in turn."""
  layout = Layout(12, 8, 16) if small else Layout()
  version = make_records(folder, layout, *((2, 3) if small else (8, 12)))
  data = Records(version, vars(layout))
  count = data.size(CHUNKS)
  size = sum(path.stat().st_size for path in version.glob(f'{manifest.NAME}-*'))
  read_batches(data, 0)  # imports TensorFlow, and warms the page cache
  passes = []
  for seed in range(1, 3 if small else 7):
    plain, before = read_plainly(version), time.process_time()
    first, whole = read_batches(data, seed)
    busy = time.process_time() - before
    passes.append((count / whole, count / plain, first, count / busy))
    print(
      f'reading, pass {seed}: {count / whole:.0f} clips/s, the first batch after {first:.2f} s; '
      f'plain read: {count / plain:.0f} clips/s',
      flush=True,
    )
  rates, plain, first, per_core = zip(*passes, strict=True)
  return {
    'records': count,
    'bytes_per_record': round(size / count),
    'clips_per_second': round(statistics.median(rates), 1),
    'most_clips_per_second': round(max(rates), 1),
    'clips_per_second_of_a_core': round(statistics.median(per_core), 1),  # of its busy seconds
    'plain_clips_per_second': round(statistics.median(plain), 1),
    'first_batch_s': round(statistics.median(first), 3),
    'hosts': measure_hosts(data),
  }


def measure_build(folder, small):
  """Returns the frames/s of a build with all cores, bytes a frame, and both for Aff-Wild2."""
  source, records = folder / 'affwild2', folder / 'built'
  mini.generate(source, videos=len(mini.AWKWARD) if small else 24, seconds=6 if small else 24)
  begin = time.perf_counter()
  with contextlib.redirect_stdout(io.StringIO()):
    build.main(['--source', str(source), '--data_dir', str(records)])
  seconds = time.perf_counter() - begin
  made = manifest.read_manifest(records)
  frames = sum(sum(chunk['clips'].values()) for chunk in made['chunks'].values())
  count, size = (sum(x[key] for x in made['shards'].values()) for key in ('records', 'bytes'))
  layout = Layout(**made['layout'])
  windows = CLIPS * len(window_starts(FRAMES // CLIPS, layout.length, layout.stride))
  found = {
    'frames': frames,
    'seconds': round(seconds, 1),
    'frames_per_second': round(frames / seconds, 1),
    'bytes_per_record': round(size / count),
    'affwild2': {
      'frames': FRAMES,
      'hours': round(FRAMES / (frames / seconds) / 3600, 2),
      'records': windows,
      'gb': round(windows * size / count / 1e9, 1),
      'bytes_per_frame': round(windows * size / count / FRAMES),  # overlapping frames count twice
    },
  }
  print(f'build: {frames / seconds:.0f} frames/s; Aff-Wild2:', found['affwild2'], flush=True)
  return found


def measure(folder, small=False):
  """Measures reader and build with files in a folder, and returns what reading.json holds."""
  folder = pathlib.Path(folder)
  for name in ('records', 'affwild2', 'built'):
    shutil.rmtree(folder / name, ignore_errors=True)
  found = {'cores': parallel.core_count(), 'small': small, 'load_before': round(load(), 2)}
  found['reader'] = measure_reader(folder / 'records', small)
  found['build'] = measure_build(folder, small)
  found['load_after'] = round(load(), 2)  # with this program's own
  return found


def load():
  """Returns the mean number of running processes in the last minute."""
  return os.getloadavg()[0]


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.reading', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  parser.add_argument('--small', action='store_true')
  arguments = parser.parse_args()
  arguments.output.mkdir(parents=True, exist_ok=True)
  found = measure(arguments.output, arguments.small)
  (arguments.output / 'reading.json').write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__':
  errors.run_command(main)
