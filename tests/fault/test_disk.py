"""Tests a disk that is full or read-only, and a machine without any network."""

import os
import shutil
import subprocess
import sys

import pytest

from fault.harness import (
  ROOT,
  call,
  files,
  final_state,
  fingerprint,
  flags,
  one_line,
  run,
)


@pytest.fixture(scope='module')
def begun(request, records, tmp_path_factory):
  """A run that has done one epoch out of two."""
  if not request.config.getoption('--full'):
    pytest.skip('make fault runs it')
  workdir = tmp_path_factory.mktemp('begun') / 'run'
  from fault.harness import drive

  stopped = drive(15, 'train:1:0', flags(workdir, records))
  assert stopped.returncode == 0, stopped.stderr
  return workdir


def test_no_room(begun, records, tmp_path):
  """A full disk gives one clear line and exit code 2; with room again the run continues."""
  workdir = tmp_path / 'run'
  shutil.copytree(begun, workdir)
  before = fingerprint(workdir)
  for blocks in (4, 64):  # kB that a file may have: too few for the event file, for a checkpoint
    done = run(
      *flags(workdir, records), under=['bash', '-c', f'ulimit -f {blocks}; exec "$@"', 'bash']
    )
    assert done.returncode == 2 and one_line(done.stderr.splitlines()[-1]), done.stderr
    assert (
      'cannot be written' in done.stderr
      and 'File too large' in done.stderr
      and 'Traceback' not in done.stderr
    )
    assert fingerprint(workdir) == before
  done = call(*flags(workdir, records))
  assert done.returncode == 0 and 'resumed after 1 epochs' in done.stderr, done.stderr


def test_a_place_that_cannot_be_written(records):
  done = call(*flags('/proc/run', records))
  assert done.returncode == 2 and one_line(done.stderr) and '/proc/run' in done.stderr


def mounted(script, *arguments):
  """Runs a shell script in a mount and network namespace of its own.

  It skips the test where such a namespace is not permitted.
  """
  done = subprocess.run(
    ['unshare', '--mount', '--net', 'bash', '-c', script, 'bash', *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHON': sys.executable},
  )
  if 'unshare failed' in done.stderr or 'unshare: ' in done.stderr:
    pytest.skip('namespaces may not be made here')
  return done


@pytest.mark.skipif(not shutil.which('unshare'), reason='needs unshare')
def test_full_and_closed_file_systems(begun, records, tmp_path, full, record):
  """A run on a file system that is full or mounted read-only ends well, and needs no network.

  The file systems and the missing network are real.
  """
  if not full:
    pytest.skip('make fault runs it')
  command = f'"$PYTHON" -m avjax.main {" ".join(flags("$1/run", records))}'
  # This fills the disk but for 60 kB.
  fill = (
    'dd if=/dev/zero of="$1/fill" bs=1k '
    'count=$(($(df --output=avail -k "$1" | tail -1) - 60)) status=none'
  )
  full_disk = mounted(
    f'mount -t tmpfs -o size=5m none "$1" && cp -r "$2" "$1/run" && {fill} && {command}',
    tmp_path,
    begun,
  )
  assert (
    full_disk.returncode == 2
    and one_line(full_disk.stderr.splitlines()[-1])
    and 'Traceback' not in full_disk.stderr
  ), full_disk.stderr
  shutil.copytree(begun, tmp_path / 'run')
  before = files(tmp_path / 'run')
  closed = mounted(
    f'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && {command}', tmp_path
  )
  assert (
    closed.returncode == 2
    and one_line(closed.stderr.splitlines()[-1])
    and 'Traceback' not in closed.stderr
  ), closed.stderr
  assert files(tmp_path / 'run') == before
  alone = mounted(command, tmp_path)
  assert alone.returncode == 0, alone.stderr
  again = mounted('"$PYTHON" -m avjax.evaluate "$1/run"', tmp_path)
  assert again.returncode == 0 and again.stdout == alone.stdout, again.stderr
  _, meta = final_state(tmp_path / 'run')
  assert meta['schedule']['done']
  record(
    'a full file system, a read-only one, no network',
    [
      full_disk.stderr.splitlines()[-1].replace(str(tmp_path), 'RUNS'),
      closed.stderr.splitlines()[-1].replace(str(tmp_path), 'RUNS'),
      'trains and evaluates',
    ],
  )
