"""Changes the code in one place at a time, and counts the changes that no test notices.

python -m benchmarks.mutants [--jobs N] [--again]

Writes docs/mutants.json and docs/mutants.md. Each change is made in a copy of the project, whose
tests of that part must fail. benchmarks/changes.py says what is changed.

The changes of a part are those with the smallest hash of the seed, so that an edit elsewhere in a
file leaves the choice as it is. --again repeats only those that were not noticed the last time.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

from benchmarks.changes import changes
from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
COPIED = ('avjax', 'data_prep', 'configs', 'benchmarks', 'tests', 'setup.cfg', 'pyproject.toml')
SEED = 0
LIMIT = 900  # seconds for the tests of one change; a program that hangs is noticed, too

MODELS, MEDIA, PREPARED = 'tests/avjax/models', 'tests/avjax/media', 'tests/data_prep'
# Part: (files, number of changes, arguments of pytest for the tests that must notice them).
PARTS = {
  'losses': (('avjax/targets/losses.py',), 7, ('tests/avjax/targets',)),
  'fusion': (
    ('avjax/models/fusion/*.py',),
    11,
    (
      f'{MODELS}/test_fusion.py',
      f'{MODELS}/test_systems.py',
      *('-k', 'not every_config and not models_of_version and not sizes_of_a_published'),
    ),
  ),
  'unfreezing': (
    ('avjax/training/unfreezing.py',),
    7,
    ('tests/avjax/training/test_unfreezing.py', 'tests/avjax/test_configs.py'),
  ),
  'windows': (
    ('avjax/data/windows.py',),
    6,
    ('tests/avjax/data/test_windows.py', f'{PREPARED}/test_clips.py'),
  ),
  'audio': (
    ('avjax/media/audio.py',),
    7,
    (f'{MEDIA}/test_audio.py', f'{PREPARED}/test_clips.py', f'{PREPARED}/test_join.py'),
  ),
  'preprocess': (
    ('avjax/system/inputs.py', 'avjax/media/picture.py', 'avjax/media/faces.py'),
    8,
    (
      f'{MEDIA}/test_faces.py',
      f'{MEDIA}/test_colours.py',
      f'{MEDIA}/test_video.py',
      f'{MEDIA}/test_other_peoples_files.py',
      'tests/avjax/system/test_step.py',
      *('-k', 'not frozen_trunk and not may_be_left_early'),
    ),
  ),
  'evaluate': (
    ('avjax/evaluation/series.py', 'avjax/evaluation/results.py'),
    6,
    (
      f'{MODELS}/test_systems.py::test_moving_average_over_predictions',
      f'{MODELS}/test_systems.py::test_the_frames_of_the_moving_average',
      f'{MODELS}/test_systems.py::test_predictions_are_smoothed_as_the_config_says',
      'tests/avjax/evaluation/test_evaluate.py',
    ),
  ),
  'checkpoint': (
    ('avjax/runs/checkpoint.py',),
    4,
    ('tests/avjax/runs', 'tests/fault/test_damage.py'),
  ),
  'step': (('avjax/system/steps.py',), 4, ('tests/avjax/system/test_step.py',)),
}
# Changes that cannot be noticed, since the result is the same: (path, line after the change) and
# why. Others are chosen in their place.
EQUIVALENT = {
  (
    'avjax/runs/checkpoint.py',
    'return ocp.CheckpointManager((self.folder / name).absolute(), options=options)',
  ): 'Orbax takes the names of the items from the arguments of save and restore, which have them',
}


def choose(part):
  """Returns (the changes of a part, those in EQUIVALENT in whose place others were chosen).

  They are the first by hash of all changes of its files.
  """
  patterns, count, _ = PARTS[part]
  found = []
  for path in sorted(path for pattern in patterns for path in ROOT.glob(pattern)):
    found += changes(path.relative_to(ROOT).as_posix(), path.read_text())

  def rank(change):
    name = f'{SEED} {change.path} {change.function} {change.before} {change.after}'
    return hashlib.sha256(name.encode()).hexdigest()

  chosen, equivalent = [], []
  for change in sorted(found, key=rank):
    if len(chosen) == count:
      break
    (equivalent if (change.path, change.after) in EQUIVALENT else chosen).append(change)
  return chosen, equivalent


def run_tests(tests, cache, change=None):
  """Runs tests in a copy of the project, in which one change is made.

  cache: a folder in which JAX keeps compiled programs from one call to the next.
  Returns (whether they passed, what was noticed: the first test that failed, or '').
  """
  with tempfile.TemporaryDirectory(prefix='avjax-mutants-') as folder:
    root = pathlib.Path(folder)
    for name in COPIED:
      copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
      copy(ROOT / name, root / name)
    if change:
      data = (root / change.path).read_bytes()
      data = data[: change.start] + change.new.encode() + data[change.end :]
      (root / change.path).write_bytes(data)
    command = [sys.executable, '-m', 'pytest', '-x', '-rfE', '-p', 'no:cacheprovider', *tests]
    environment = {**os.environ, 'PYTHONPATH': folder, 'JAX_COMPILATION_CACHE_DIR': str(cache)}
    try:
      done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, text=True, timeout=LIMIT
      )
    except subprocess.TimeoutExpired:
      return False, f'no end after {LIMIT} s'
  failed = re.search(r'^(?:FAILED|ERROR) (tests/.*?)(?: - .*)?$', done.stdout, re.MULTILINE)
  return done.returncode == 0, failed[1] if failed else ''


def describe(change):
  """Returns where and what a change is, as docs/mutants.json holds it."""
  return {
    'file': change.path,
    'function': change.function,
    'line': change.line,
    'before': change.before,
    'after': change.after,
  }


def measure(part, change, cache):
  """Returns the row of one change: where and what it is, and the test that noticed it, or None."""
  start = time.perf_counter()
  passed, first = run_tests(PARTS[part][2], cache, change)
  row = {**describe(change), 'noticed_by': None if passed else first}
  seconds = time.perf_counter() - start
  print(f'{part} {change.path}:{change.line} {row["noticed_by"]} ({seconds:.0f} s)', flush=True)
  return row


def tell(row):
  """Returns a row as words."""
  return f'`{row["file"]}`, line {row["line"]}: `{row["before"]}` became `{row["after"]}`'


def page(found):
  """Formats the counts, the changes that were not noticed and the equivalent ones as Markdown."""
  rows = [row for part in found['parts'].values() for row in part]
  noticed = sum(row['noticed_by'] is not None for row in rows)
  lines = ['| part | changes | noticed |', '|---|---|---|']
  for part, own in found['parts'].items():
    lines.append(f'| {part} | {len(own)} | {sum(row["noticed_by"] is not None for row in own)} |')
  lines += [f'| all | {len(rows)} | {noticed}, {noticed / len(rows):.0%} |', '']
  survivors = [row for row in rows if row['noticed_by'] is None]
  lines += ['Not noticed:' if survivors else 'Every change was noticed.', '']
  for row in survivors:
    lines.append(f'- {tell(row)}')
  if found['equivalent']:
    lines += ['', 'Passed over, since they change no result:', '']
  for row in found['equivalent']:
    lines.append(f'- {tell(row)}: {row["why"]}')
  return '\n'.join(lines).replace('\n\n\n', '\n\n').strip()


def noticed_before(path):
  """Returns {what `place` returns: row} of the changes that were noticed the last time."""
  parts = json.loads(path.read_text())['parts'].values()
  return {place(row): row for part in parts for row in part if row['noticed_by'] is not None}


def place(row):
  """Returns what a row is known by, which stays when lines above it are added or removed."""
  return row['file'], row['function'], row['before'], row['after']


def measure_all(jobs, known):
  """Yields (part, its rows) one after the other, once the tests of all parts pass unchanged.

  jobs: changes that are tested at once. known: rows that are kept, as `noticed_before` returns.
  """

  def row(part, change, cache):
    found = describe(change)
    return (
      {**known[place(found)], **found} if place(found) in known else measure(part, change, cache)
    )

  with (
    tempfile.TemporaryDirectory(prefix='avjax-mutants-') as cache,
    concurrent.futures.ThreadPoolExecutor(jobs) as pool,
  ):
    unchanged = {part: pool.submit(run_tests, PARTS[part][2], cache) for part in PARTS}
    for part, future in unchanged.items():
      passed, first = future.result()
      if not passed:
        sys.exit(f'the tests of {part} fail without a change: {first}')
    rows = {
      part: [pool.submit(row, part, change, cache) for change in choose(part)[0]] for part in PARTS
    }
    for part, futures in rows.items():
      yield part, [future.result() for future in futures]


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--jobs', type=int, default=1, help='changes that are tested at once')
  parser.add_argument('--again', action='store_true', help='only those not noticed the last time')
  args = parser.parse_args()
  path, target = DOCS / 'mutants.json', DOCS / 'mutants.md'
  left_out = [
    {**describe(change), 'why': EQUIVALENT[change.path, change.after]}
    for part in PARTS
    for change in choose(part)[1]
  ]
  known = noticed_before(path) if args.again else {}
  found = {'seed': SEED, 'equivalent': left_out, 'parts': {}}
  for part, rows in measure_all(args.jobs, known):
    found['parts'][part] = rows
    path.write_text(json.dumps(found, indent=1) + '\n')
  target.write_text(fill(target.read_text(), 'mutants', page(found)))
  print(page(found))


if __name__ == '__main__':
  main()
