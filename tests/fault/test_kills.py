"""Tests runs that are killed or stopped at any moment, and started again."""

import json
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest

from fault.harness import ROOT, call, drive, files, final_state, fingerprint, flags, run

BATCHES = 5  # of an epoch of tiny.py on the little set: 20 records, 4 a batch
EPOCHS = 4  # in two stages: the second group opens with epoch 2


@pytest.fixture(scope='module')
def whole(records, tmp_path_factory):
  """A run that is not disturbed: its folder and what it printed."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  done = call(*flags(workdir, records))
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout


def marks(count):
  """Draws random progress marks in training and in validation.

  The unfreezing of the second group is among them.
  """
  rng = random.Random(0)
  places = [f'train:{epoch}:{batch}' for epoch in range(EPOCHS) for batch in range(BATCHES)] + [
    f'validate:{epoch}:0' for epoch in range(EPOCHS)
  ]
  release = ['train:2:0', 'validate:1:0']
  return [release[0], *rng.sample(sorted(set(places) - set(release)), count - 2), release[1]][
    :count
  ]


@pytest.mark.slow
def test_killed_and_resumed_bit_for_bit(whole, records, tmp_path, full, record):
  """A run that is killed at random progress marks ends as the run that was not disturbed.

  The state is the same in SHA-256 after SIGKILL, and the results are the same.
  """
  expected, same = fingerprint(whole[0]), 0
  # The first batch after the release; a batch of it, while the epoch before is still being saved.
  places = [*(marks(20) if full else ['train:2:0']), 'unsaved:2:1']
  for i, mark in enumerate(places):
    workdir = tmp_path / str(i)
    killed = drive(signal.SIGKILL, mark, flags(workdir, records))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    done = run(*flags(workdir, records))
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(str(workdir), '') == whole[1].replace(str(whole[0]), '')
    same += fingerprint(workdir) == expected
    assert same == i + 1, mark
  record('SIGKILL in a run: kills, identical final states', [len(places), same])


@pytest.mark.slow
@pytest.mark.parametrize('mark', ['train:1:2', 'validate:1:0', 'compile:0', 'save:1'])
def test_sigterm_saves_and_ends_well(whole, records, tmp_path, record, full, mark):
  """SIGTERM at any moment ends a run with exit code 0, and no progress is lost.

  It comes in training, in evaluation, in the first compilation and in a save.
  """
  if not full and mark not in ('train:1:2', 'validate:1:0'):
    pytest.skip('make fault runs it')
  workdir = tmp_path / 'run'
  stopped = drive(signal.SIGTERM, mark, flags(workdir, records))
  assert stopped.returncode == 0 and 'stopped and saved' in stopped.stderr, stopped.stderr
  record(
    f'SIGTERM, {mark.split(":")[0]}: seconds to the end',
    round(time.time() - float(re.search(r'signalled (\S+)', stopped.stderr)[1]), 1),
  )
  _, meta = final_state(workdir)
  reached = meta['schedule']['epoch'], meta['batches_done']
  if mark == 'save:1':  # the next epoch is trained meanwhile
    assert reached[0] == 2
  else:
    assert reached == {'train:1:2': (1, 2), 'validate:1:0': (1, 5), 'compile:0': (0, 1)}[mark]
  done = run(*flags(workdir, records))
  assert done.returncode == 0 and 'resumed after' in done.stderr
  assert fingerprint(workdir) == fingerprint(whole[0])
  assert done.stdout.replace(str(workdir), '') == whole[1].replace(str(whole[0]), '')
  # Every line of metrics is the undisturbed run's, apart from what took time.
  timeless = lambda folder: re.sub(
    r'"(seconds|examples_per_second)": [\d.e-]+', '', (folder / 'metrics.jsonl').read_text()
  )
  assert timeless(workdir) == timeless(whole[0])


@pytest.mark.slow
@pytest.mark.parametrize('stage', [0, 1])
def test_killed_while_it_compiles(whole, records, tmp_path, monkeypatch, stage):
  """Nothing is lost where SIGKILL follows a SIGTERM before the first step is compiled.

  So it is at the start of a run, and where a resumed one begins with its second stage.
  """
  workdir, compiled = tmp_path / 'run', tmp_path / 'compiled'
  if stage:
    drive(signal.SIGKILL, 'train:2:0', flags(workdir, records))
  with monkeypatch.context() as empty:
    empty.setenv('JAX_COMPILATION_CACHE_DIR', str(compiled))
    killed = drive(signal.SIGTERM, f'compile:{stage}:300', flags(workdir, records))
  assert killed.returncode == -signal.SIGKILL and 'signalled' in killed.stderr, killed.stderr
  kept = {path.name.split('-')[0] for path in compiled.glob('*-cache')}
  assert 'jit_step' not in kept  # it was being compiled
  assert stage or 'jit__draw' in kept  # what was compiled before is kept
  done = run(*flags(workdir, records))
  assert done.returncode == 0 and done.stdout.replace(str(workdir), '') == whole[1].replace(
    str(whole[0]), ''
  ), done.stderr
  assert fingerprint(workdir) == fingerprint(whole[0])


SAVER = """
import os
import sys
import numpy as np
from avjax.runs import checkpoint
checkpoints = checkpoint.Checkpoints(sys.argv[1])
for step in range(1, 5):
  if step == 4:
    operations = iter(range(10 ** 6))
    events = ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'shutil.rmtree')
    def kill_at(event, _):
      if event in events and next(operations) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    sys.addaudithook(kill_at)
  state = {'params': {'a': np.full((50, 70), step, np.float32), 'b': np.arange(9.0)}}
  meta = {'step': step, 'schedule': {'best_epoch': -1}}
  checkpoints.save(checkpoints.last, step, state, meta)
  print(step, flush=True)
"""


def test_killed_inside_a_save(tmp_path, full, record):
  """A save that is killed at any file operation leaves a whole state.

  SIGKILL comes at one file operation after another of the fourth save. After the next start there
  is no litter.
  """
  import jax
  import numpy as np

  from avjax.runs import checkpoint

  shape = {
    'params': {
      'a': jax.ShapeDtypeStruct((50, 70), np.float32),
      'b': jax.ShapeDtypeStruct((9,), np.float64),
    }
  }
  kills = sound = clean = 0
  operation = 0
  while kills < (25 if full else 2):
    workdir = tmp_path / str(operation)
    killed = subprocess.run(
      [sys.executable, '-c', SAVER, str(workdir), str(operation)],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    operation += 3 if full else 20
    if killed.returncode == 0:  # the save has fewer file operations
      operation = 1 if operation % 3 == 0 else 2
      continue
    assert (
      killed.returncode == -signal.SIGKILL and '3' in killed.stdout and '4' not in killed.stdout
    ), killed.stderr
    kills += 1
    checkpoints = checkpoint.Checkpoints(workdir)
    with jax.enable_x64(True):
      state, meta, *_ = checkpoints.restore_last(lambda meta: shape, None)
    sound += meta['step'] in (3, 4) and bool((state['params']['a'] == meta['step']).all())
    checkpoints.close()
    left = {path.name for path in (workdir / 'checkpoints' / 'last').iterdir()}
    clean += left <= {'2', '3', '4'}
  record(
    'SIGKILL inside a save: kills, whole states restored, folders without litter',
    [kills, sound, clean],
  )
  assert sound == clean == kills


def made(folder):
  """Returns what data_prep.build wrote, without the times of the videos that it was made from."""
  found = files(folder)
  known = json.loads(found.pop('affwild2/source.json'))
  return found, {name: contents['sha256'] for name, contents in known.items()}


@pytest.mark.slow
def test_build_killed_at_random(records, tmp_path, full, record):
  """After SIGKILL of data_prep.build at a random moment the same command gives the same bytes."""
  from official_set import SIZES, make_official

  rng, source, same = random.Random(0), tmp_path / 'source', 0
  source.mkdir()
  make_official(source)
  expected = made(records)
  kills = 10 if full else 1
  for i in range(kills):
    arguments = ['--source', source, '--data_dir', tmp_path / str(i), '--workers', '1', *SIZES]
    process = subprocess.Popen(
      [sys.executable, '-m', 'data_prep.build', *map(str, arguments)],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    for _ in range(rng.randint(1, 8)):  # clips that are decoded
      process.stderr.readline()
    time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.communicate()
    again = run(*arguments, module='data_prep.build')
    assert again.returncode == 0, again.stderr
    assert {path.name for path in pathlib.Path(tmp_path / str(i)).iterdir()} == {'affwild2'}
    same += made(tmp_path / str(i)) == expected
  record('SIGKILL of data_prep.build: kills, identical outputs', [kills, same])
  assert same == kills
