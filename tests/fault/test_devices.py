"""Tests that one device, several devices and several processes reach the same parameters.

They see the same data in the same order.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from avjax import files
from fault.harness import ROOT, final_state, flags, run

# Twelve windows a batch do not divide by eight devices: the batch is padded to sixteen rows that
# count nowhere.
SETTINGS = ['--config.batch_size=12', '--config.schedule.max_epochs=3']


@pytest.fixture(scope='module')
def settings(request):
  """The short form has one epoch, of the first stage."""
  return (
    SETTINGS
    if request.config.getoption('--full')
    else [*SETTINGS[:1], '--config.schedule.max_epochs=1']
  )


def on_devices(count, workdir, records, settings):
  done = run(
    *flags(workdir, records, *settings),
    env={'XLA_FLAGS': f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count={count}'},
  )
  assert done.returncode == 0 and f'{count} device(s)' in done.stderr, done.stderr
  return workdir


def multihost(workdir, records, *settings, processes=2):
  words = map(str, ('launch/multihost_cpu.sh', processes, 1, *flags(workdir, records, *settings)))
  return subprocess.Popen(
    ['bash', *words],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': str(ROOT)},
  )


@pytest.fixture(scope='module')
def single(records, settings, tmp_path_factory):
  return on_devices(1, tmp_path_factory.mktemp('single') / 'run', records, settings)


# A bias whose effect the next batch norm takes out has a gradient of zero, of which rounding leaves
# 1e-9; Adam makes a whole step of it, in whatever direction. Such biases, and the running means
# that follow them, differ from one layout to another as from one compiler to another; everything
# else moves by 1e-2 in these runs and agrees.
WITHOUT_EFFECT = re.compile(
  r"params.*(norm[12]|dense|hidden|residual)'\]\['bias'\]|batch_stats.*'mean'\]"
)


def difference(one, other):
  """Returns the largest difference of any parameter, statistic or moment.

  Both runs must have seen the same batches.
  """
  losses = [
    [json.loads(line)['train_loss'] for line in (folder / 'metrics.jsonl').read_text().splitlines()]
    for folder in (one, other)
  ]
  assert losses[0] == pytest.approx(losses[1], abs=1e-4)
  (a, meta_a), (b, meta_b) = final_state(one), final_state(other)
  assert (
    meta_a['schedule']['stage'] == meta_b['schedule']['stage']
    and meta_a['batches_done'] == meta_b['batches_done']
  )
  leaves = zip(jax.tree_util.tree_flatten_with_path(a)[0], jax.tree.leaves(b), strict=True)
  return max(
    float(np.abs(x.astype(float) - y.astype(float)).max())
    for (path, x), y in leaves
    if not WITHOUT_EFFECT.search(jax.tree_util.keystr(path))
  )


@pytest.mark.slow
def test_several_devices(single, records, settings, tmp_path, full, record):
  if not full:
    pytest.skip('make fault runs it')
  for count in (2, 8):
    found = difference(single, on_devices(count, tmp_path / str(count), records, settings))
    record(f'{count} devices: largest difference of a parameter to one device', found)
    assert found < 1e-5


@pytest.mark.slow
def test_two_processes(single, records, settings, tmp_path, record):
  process = multihost(tmp_path / 'run', records, *settings)
  out, err = process.communicate(timeout=500)
  assert process.returncode == 0, err
  assert out.count('best epoch') == 1 and '2 device(s)' in err  # one of them speaks
  found = difference(single, tmp_path / 'run')
  record('2 processes: largest difference of a parameter to one', found)
  assert found < 1e-5


def free_port():
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def wait_for_epoch(workdir, process):
  while not (workdir / 'metrics.jsonl').exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)


@pytest.mark.slow
def test_a_lost_process_is_named_and_the_same_command_goes_on(
  single, records, tmp_path, full, record
):
  workdir = tmp_path / 'run'
  process = multihost(workdir, records, *SETTINGS)
  wait_for_epoch(workdir, process)
  subprocess.run(['pkill', '-KILL', '-f', f'[-]-process=1 .*--workdir={workdir}'], check=True)
  lost = time.time()
  _, err = process.communicate(timeout=300)
  record('2 processes, one killed: seconds until the other ends', round(time.time() - lost, 1))
  (line,) = (line for line in err.splitlines() if line.startswith('error:'))
  assert process.returncode == 76 and 'process 1 of this run is lost; start the same' in line, err
  assert 'Traceback' not in err and time.time() - lost < 60
  if full:
    process = multihost(workdir, records, *SETTINGS)
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0 and 'resumed after' in err, err
    assert difference(single, workdir) < 1e-5


@pytest.mark.slow
def test_a_folder_that_is_locked_ends_both(records, tmp_path):
  """The first process alone meets the lock; both end with the same line."""
  with files.locked(tmp_path / 'run', busy=''):
    process = multihost(tmp_path / 'run', records, *SETTINGS)
    _, err = process.communicate(timeout=300)
  line = f'error: another process is training in {tmp_path / "run"}\n'
  assert process.returncode == 2 and err == 2 * line


@pytest.mark.slow
def test_an_error_of_one_process_ends_both(records, tmp_path):
  """What damages a record after the start is met by one process only, that whose rows it is in."""
  copy = shutil.copytree(records, tmp_path / 'records')
  process = multihost(tmp_path / 'run', copy, *SETTINGS)
  wait_for_epoch(tmp_path / 'run', process)
  for path in copy.rglob('*.tfrecord*'):
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
  _, err = process.communicate(timeout=300)
  assert process.returncode and 'is damaged; copy it again' in err, err
  assert 'Traceback' not in err


# The first save of a state takes five seconds, within which the process gets a TERM.
TERM_WHILE_SAVING = """
import os, signal, sys, time
from avjax import errors, main
from avjax.runs.checkpoint import Checkpoints

save, saved = Checkpoints.save, []

def slowly(self, manager, *rest):
  save(self, manager, *rest)
  if manager is self.last and not saved and '--process=0' in sys.argv:
    saved.append(True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)

Checkpoints.save = slowly
errors.run_command(main.main, sys.argv, buckets=main.BUCKETS)
"""


@pytest.mark.slow
def test_a_sigterm_while_an_epoch_is_saved_stops_both(records, tmp_path):
  several = [f'--coordinator=127.0.0.1:{free_port()}', '--processes=2']
  words = flags(tmp_path / 'run', records, *SETTINGS[:1], '--config.schedule.max_epochs=100')
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', TERM_WHILE_SAVING, *several, f'--process={number}', *map(str, words)],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    for number in range(2)
  ]
  said = [process.communicate(timeout=400)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], said
  assert 'stopped and saved after' in said[0]
  assert len((tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()) < 100


@pytest.mark.slow
def test_one_sigterm_stops_all_and_other_processes_go_on(single, records, tmp_path, full, record):
  """A run goes on with another number of processes: two, then one, then four."""
  if not full:
    pytest.skip('make fault runs it')
  workdir = tmp_path / 'run'
  for processes in (2, 1):
    done = len((workdir / 'metrics.jsonl').read_text().splitlines()) if processes == 1 else 0
    process = multihost(workdir, records, *SETTINGS, processes=processes)
    wait_for_epoch(workdir, process)
    while len((workdir / 'metrics.jsonl').read_text().splitlines()) == done:
      assert process.poll() is None, process.communicate()
      time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    asked = time.time()
    _, err = process.communicate(timeout=300)
    record(f'{processes} processes, one SIGTERM: seconds to the end', round(time.time() - asked, 1))
    assert process.returncode == 0 and 'stopped and saved' in err, err
  process = multihost(workdir, records, *SETTINGS, processes=4)
  _, err = process.communicate(timeout=500)
  assert process.returncode == 0 and 'resumed after' in err, err
  found = difference(single, workdir)
  record('2, 1 and 4 processes in turn: largest difference of a parameter to one', found)
  assert found < 1e-5
