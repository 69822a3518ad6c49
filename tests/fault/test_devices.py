"""Tests that one device, several devices and several processes reach the same parameters.

They see the same data in the same order.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

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


def multihost(workdir, records, *settings):
  return subprocess.Popen(
    ['bash', str(ROOT / 'launch/multihost_cpu.sh'), '2', '1', *flags(workdir, records, *settings)],
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
  assert out.count('CCC') == 1 and '2 device(s)' in err  # one of them speaks
  found = difference(single, tmp_path / 'run')
  record('2 processes: largest difference of a parameter to one', found)
  assert found < 1e-5


@pytest.mark.slow
def test_one_sigterm_stops_both_processes_at_the_same_batch(
  single, records, tmp_path, full, record
):
  if not full:
    pytest.skip('make fault runs it')
  process = multihost(tmp_path / 'run', records, *SETTINGS)
  while not (tmp_path / 'run' / 'metrics.jsonl').exists():
    assert process.poll() is None, process.communicate()
    time.sleep(0.1)
  process.send_signal(signal.SIGTERM)
  asked = time.time()
  _, err = process.communicate(timeout=300)
  record('2 processes, one SIGTERM: seconds to the end', round(time.time() - asked, 1))
  assert process.returncode == 0 and 'stopped and saved' in err, err
  process = multihost(tmp_path / 'run', records, *SETTINGS)
  _, err = process.communicate(timeout=500)
  assert process.returncode == 0 and 'resumed after' in err, err
  assert difference(single, tmp_path / 'run') < 1e-5
