"""Tests runs on a bucket against runs in a folder of this machine: trained, killed, gone on with.

The server is one on the loopback; no test meets a real bucket.
"""

import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from bucket_server import WAITS, get, put

from avjax import files
from avjax.files import bucket_lock
from avjax.inference.stream import StreamingPredictor
from avjax.weights import files as weight_files
from fault.harness import ROOT, call, drive, fingerprint, flags, run
from fault.harness import files as tree

SHORT = ['--config.schedule.max_epochs=2']


@pytest.fixture(scope='module')
def whole(records, tmp_path_factory):
  """A run that nothing disturbs, with folders and records on this machine."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  done = call(*flags(workdir, records, *SHORT))
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout


@pytest.fixture
def on_bucket(address, records):
  """The flags of the same run with everything on a bucket, and its address."""
  put(records, f'{address}/records')
  return flags(f'{address}/run', f'{address}/records', *SHORT), f'{address}/run'


def downloaded(address, folder):
  """Copies a folder of a bucket to this machine, as other programs do."""
  for name, content in get(address).items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
  return folder


def let_it_seem_dead(address, seconds=bucket_lock.STALE):
  """Makes the lock of a killed run so old that the next start takes it; returns its owner."""
  bucket, name = files.Bucket(address), f'/{files.locks.LOCK}'
  found = json.loads(bucket.read(name)[0])
  bucket.write(name, json.dumps({**found, 'time': found['time'] - seconds}).encode())
  return found['owner']


def check_equal(whole, address, done, folder):
  """Checks that a run on a bucket has ended as the one on this machine, in all bytes that count."""
  assert done.returncode == 0, done.stderr
  assert done.stdout.replace(address, '') == whole[1].replace(str(whole[0]), '')
  run = downloaded(address, folder)
  assert fingerprint(run) == fingerprint(whole[0])
  same = 'results_validation.json', 'predictions/validation/200.csv'
  for name in same:
    assert (run / name).read_bytes() == (whole[0] / name).read_bytes(), name
  assert files.locks.LOCK not in tree(run)
  return run


def own_lines(text):
  """Returns the lines of stderr without those that TensorStore logs about credentials."""
  return [line for line in text.splitlines() if 'google_auth_provider' not in line]


@pytest.mark.slow
def test_trained_killed_and_resumed(whole, on_bucket, tmp_path):
  """A run that SIGKILL ends goes on from the bucket, and ends as one that nobody disturbs.

  The next start waits until the lock is old, and names its owner.
  """
  words, address = on_bucket
  killed = drive(signal.SIGKILL, 'train:1:2', words)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  owner = let_it_seem_dead(address, bucket_lock.STALE - 45)
  done = run(*words)
  assert f'{address}: {owner} was training there' in done.stderr
  assert 'resumed after 1 epochs' in done.stderr
  check_equal(whole, address, done, tmp_path / 'run')


@pytest.mark.slow
def test_killed_while_the_bucket_is_written(whole, server, on_bucket, tmp_path, full):
  """SIGKILL at an object of the first or second state; the next start ends as if nothing was."""
  words, address = on_bucket
  for number in range(3, 51, 4) if full else (42,):
    running, posts = [], iter(range(10**6))

    def kill(method, path, running=running, posts=posts, number=number):
      if method == 'POST' and '/checkpoints/' in path and next(posts) == number:
        os.kill(running[0].pid, signal.SIGKILL)
        return 'cut'
      return None

    with server.faults(kill):
      running.append(
        subprocess.Popen(
          [sys.executable, '-m', 'avjax.main', *words],
          cwd=ROOT,
          stdout=subprocess.DEVNULL,
          stderr=subprocess.DEVNULL,
        )
      )
      assert running[0].wait(300) == -signal.SIGKILL
    let_it_seem_dead(address)
    done = run(*words)
    assert number < 34 or 'resumed after 1 epochs' in done.stderr, done.stderr
    check_equal(whole, address, done, tmp_path / str(number))
    for name in files.Bucket(address).names():
      files.Bucket(address).write(name, None)


@pytest.mark.slow
def test_stopped_and_started_again_at_once(whole, on_bucket, tmp_path):
  """SIGTERM saves the state on the bucket and releases the lock."""
  words, address = on_bucket
  stopped = drive(signal.SIGTERM, 'train:1:2', words)
  assert stopped.returncode == 0, stopped.stderr
  assert 'stopped and saved after 1 epochs and 2 of 5 batches' in get(address)['train.log'].decode()
  done = run(*words)
  assert 'resumed after 1 epochs and 2 of 5 batches' in done.stderr
  check_equal(whole, address, done, tmp_path / 'run')


@pytest.mark.slow
def test_a_server_with_faults_makes_no_difference(whole, server, on_bucket, tmp_path):
  """Every seventh request has a fault of another kind."""
  words, address = on_bucket
  kinds = ['500', '503', 'cut', 'cut the answer', 'slow']
  count = iter(range(10**6))

  def fault(method, path):
    number = next(count)
    return kinds[number // 7 % len(kinds)] if number % 7 == 6 else None

  with server.faults(fault):
    done = run(*words)
  assert sum(bool(fault) for _, _, fault in server.requests) >= len(kinds)
  check_equal(whole, address, done, tmp_path / 'run')


@pytest.mark.slow
def test_evaluated_and_exported(whole, on_bucket, tmp_path):
  """The best state on the bucket gives what the one on this machine gives: all bytes are equal.

  Only two texts of a model differ, since its config says where the records are.
  """
  words, address = on_bucket
  check_equal(whole, address, call(*words), tmp_path / 'run')
  before = get(address)
  for name in ('results_validation.json', 'traces_validation.png'):
    files.Bucket(address).write(f'/{name}', None)
  done = call(address, module='avjax.evaluate')  # the config of a stranger may name any bucket
  assert done.returncode == 2 and 'name them with --data_dir' in done.stderr
  data_dir = '--data_dir', f'{address.rpartition("/")[0]}/records'
  for where in (address, whole[0]):
    done = call(where, '--report', *data_dir, module='avjax.evaluate')
    assert done.returncode == 0, done.stderr
    assert f'report       {where}/report.html' in done.stdout
  after = get(address)
  assert after.keys() == before.keys() | {'report.html'}
  assert all(after[name] == before[name] for name in before)
  models = f'{address}/model', tmp_path / 'model'
  for where, model in zip((address, whole[0]), models, strict=True):
    done = call(where, '--output', model, module='avjax.export')
    assert done.returncode == 0, done.stderr
    assert f'{model}/weights.safetensors' in done.stdout
    again = call(where, '--output', model, module='avjax.export')
    assert again.returncode == 2 and f'{model} exists' in again.stderr
    done = run('--check', model, module='avjax.export')
    assert done.returncode == 0, done.stderr
  exported, local = get(models[0]), tree(models[1])
  assert exported.keys() == local.keys()
  assert exported['model.stablehlo'] == local['model.stablehlo']
  arrays = [weight_files.load(files.below(model, 'weights.safetensors'))[0] for model in models]
  assert weight_files.digest(arrays[0], {}) == weight_files.digest(arrays[1], {})
  predictors = [StreamingPredictor(place) for place in (whole[0], address, models[0])]
  arrays = [jax.tree.leaves(predictor.variables) for predictor in predictors]
  for first, *others in zip(*arrays, strict=True):
    for other in others:
      np.testing.assert_array_equal(first, other)
  gathered = call('--runs', address.rpartition('/')[0], *data_dir, module='avjax.evaluate')
  assert gathered.returncode == 0, gathered.stderr
  assert {'summary.json', 'summary.md', 'submission_best.txt'} <= get(
    address.rpartition('/')[0]
  ).keys()


def test_a_submission_on_a_bucket(address):
  """It is checked, and so is its template, as on this machine."""
  text = 'image_location,valence,arousal\nclip/00001.jpg,0.1,0.2\n'
  for name in ('submission.txt', 'template.txt'):
    files.Bucket(address).write(f'/{name}', text.encode())
  words = f'{address}/submission.txt', '--template', f'{address}/template.txt'
  done = call(*words, module='avjax.submission')
  assert done.stdout == f'{words[0]} is valid: 1 rows of 1 clips\n', done.stderr
  files.Bucket(address).write('/submission.txt', text.replace('0.2', '2').encode())
  done = call(*words, module='avjax.submission')
  assert done.returncode == 2 and done.stderr.startswith(f'error: {words[0]}, line 2')


@pytest.mark.slow
def test_a_connection_that_hangs(server, address):
  """One on which nothing comes is cut and tried again: after a minute, or what a variable says."""
  text = 'image_location,valence,arousal\nclip/00001.jpg,0.1,0.2\n'
  files.Bucket(address).write('/x.txt', text.encode())
  first = iter(['hangs'])
  begin = time.monotonic()
  with server.faults(lambda method, path: next(first, None)):
    done = run(
      *(f'{address}/x.txt', '--template', f'{address}/x.txt'),
      module='avjax.submission',
      env={'TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS': '1'},
    )
  assert done.returncode == 0, done.stderr
  assert time.monotonic() - begin < WAITS['hangs'] and not next(first, None)


@pytest.mark.slow
def test_a_run_that_continues_another(on_bucket, address):
  """config.resume and config.init take what is on a bucket."""
  words, source = on_bucket
  assert call(*words).returncode == 0
  done = call(
    *flags(f'{address}/fork', f'{address}/records'),
    f'--config.resume={source}',
    '--config.schedule.max_epochs=3',
  )
  assert done.returncode == 0, done.stderr
  assert f'continues from {source} after 2 epochs' in done.stderr
  assert call(source, '--output', f'{address}/model', module='avjax.export').returncode == 0
  for name in ('model/weights.safetensors', 'model', 'fork'):
    weights = f'--config.init.model={address}/{name}'
    done = call(*flags(f'{address}/begun_{name[-4:]}', f'{address}/records', *SHORT), weights)
    assert done.returncode == 0 and 'whole model: model from' in done.stderr, done.stderr


def several(words):
  """Runs avjax.main in two processes."""
  return subprocess.run(
    ['bash', str(ROOT / 'launch/multihost_cpu.sh'), '2', '1', *words],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
    timeout=600,
  )


@pytest.mark.slow
def test_several_processes(whole, on_bucket, tmp_path):
  """Each has its copy, the first one writes to the bucket, and all read what is there."""
  words, address = on_bucket
  done = several(words)
  assert done.returncode == 0, done.stderr
  first = json.loads((whole[0] / 'results_validation.json').read_text())
  found = json.loads(get(address)['results_validation.json'])
  assert found['valence']['ccc'] == pytest.approx(first['valence']['ccc'], abs=1e-3)
  again = several(words)  # from the state on the bucket, where nothing is left to do
  assert again.returncode == 0 and 'resumed after 2 epochs' in again.stderr, again.stderr


@pytest.mark.slow
def test_what_one_of_several_processes_is_refused_ends_all(on_bucket, monkeypatch):
  """Each ends with the same line and exit code 2, though the first one alone meets the lock."""
  monkeypatch.setattr(bucket_lock, 'BEAT', 0.2)
  words, address = on_bucket
  lock = files.Lock(files.Bucket(address))
  done = several(words)
  lock.release()
  waiting, *refused = own_lines(done.stderr)
  assert done.returncode == 2 and 'waiting to see whether' in waiting
  assert len(refused) == 2 and refused[0] == refused[1], done.stderr
  assert refused[0].startswith(f'error: {address}: process {os.getpid()} on ')
  assert get(address) == {}
