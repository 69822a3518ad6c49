"""Tests what other users of a machine can do to a person who starts runs there with launch/."""

import os
import re
import shlex
import socket
import subprocess
import sys

import cloud
import pytest
from fault.harness import ROOT

from avjax.system import sharding

pytestmark = pytest.mark.attack('other users of the machine')

GCLOUD = """#!/usr/bin/env bash
# Keeps the words it is called with; of scp also what it would copy, and who may read that.
printf '%q ' "$@" >> "$SEEN/words"; echo >> "$SEEN/words"
if [ "$4" = scp ]; then
  cp "$5" "$SEEN/archive.tar.gz"
  stat -c '%a %F' "$(dirname "$5")" > "$SEEN/folder"
fi
exit "${FAIL:-0}"
"""


@pytest.fixture
def repository(tmp_path):
  return cloud.make_checkout(tmp_path / 'checkout')


def launch_tpu(repository, shared, seen, *words, cwd=None, **variables):
  """Runs launch/tpu_vm.sh with a gcloud that only keeps what it was given in the folder `seen`."""
  (seen / 'bin').mkdir(parents=True)
  (seen / 'bin/gcloud').write_text(GCLOUD)
  (seen / 'bin/gcloud').chmod(0o755)
  path = f'{seen / "bin"}:{os.environ["PATH"]}'
  return subprocess.run(
    ['bash', repository / 'launch/tpu_vm.sh', 'name', 'zone', 'configs/grjca.py', *words],
    cwd=cwd or repository,
    env={**os.environ, 'TMPDIR': str(shared), 'SEEN': str(seen), 'PATH': path, **variables},
    capture_output=True,
    text=True,
  )


@pytest.mark.skipif(sys.platform != 'linux', reason='stat has other options')
def test_tpu_vm_in_a_shared_temporary_folder(repository, tmp_path):
  """Another user has put a link and a file of his own at the names that can be guessed."""
  shared, mine, seen = tmp_path / 'shared', tmp_path / 'mine', tmp_path / 'seen'
  shared.mkdir()
  mine.write_text('precious')
  (shared / 'avjax.tar.gz').symlink_to(mine)
  (shared / 'avjax').mkdir()
  done = launch_tpu(repository, shared, seen, '/mnt/records', '/mnt/run')
  assert (done.returncode, done.stderr) == (0, '')
  assert mine.read_text() == 'precious'
  assert sorted(path.name for path in shared.iterdir()) == ['avjax', 'avjax.tar.gz']
  assert (seen / 'folder').read_text() == '700 directory\n'
  names = subprocess.run(['tar', 'tzf', seen / 'archive.tar.gz'], capture_output=True, text=True)
  assert names.stdout.splitlines()[0].startswith('avjax-') and 'launch/tpu_vm.sh' in names.stdout


def test_tpu_vm_leaves_nothing_where_a_step_fails(repository, tmp_path):
  (tmp_path / 'shared').mkdir()
  words = ('/mnt/records', '/mnt/run')
  done = launch_tpu(repository, tmp_path / 'shared', tmp_path / 'seen', *words, FAIL='7')
  assert done.returncode == 7
  assert not list((tmp_path / 'shared').iterdir())
  assert len((tmp_path / 'seen/words').read_text().splitlines()) == 1


def test_tpu_vm_sends_its_own_checkout(repository, tmp_path):
  """Whatever repository the current folder is of; names of files reach the hosts as they are."""
  other, shared, seen = tmp_path / 'other', tmp_path / 'sha red', tmp_path / 'seen'
  other.mkdir()
  shared.mkdir()
  subprocess.run(['git', 'init', '--quiet'], cwd=other, check=True)
  records, run = "/mnt/$(touch hacked); 'r'", '/mnt/a b'
  done = launch_tpu(repository, shared, seen, records, run, cwd=other)
  assert (done.returncode, done.stderr) == (0, '')
  lines = [shlex.split(line) for line in (seen / 'words').read_text().splitlines()]
  copied = lines[0][4].rpartition('/')[2]
  assert lines[0][5] == f'name:{copied}'
  unpack, train = (line[-1].removeprefix('--command=') for line in lines[1:])
  assert unpack.startswith(f"trap 'rm -f {copied}' EXIT; tar xzf {copied} && ln -sfn avjax-")
  assert shlex.split(train)[-3:] == [
    '--config=configs/grjca.py',
    f'--workdir={run}',
    f'--config.data.dir={records}',
  ]


def test_a_coordinator_of_this_machine_is_not_reached_from_others():
  """127.0.0.2 stands for the address of another network: only who listens on all has it."""
  program = """
import socket, sys
from avjax.system import sharding
port = sys.argv[1]
sharding.start(f'127.0.0.1:{port}', 1, 0)
for host in ('127.0.0.1', '127.0.0.2'):
  with socket.socket() as caller:
    print(caller.connect_ex((host, int(port))) == 0)
"""
  with socket.socket() as free:
    free.bind(('', 0))
    port = free.getsockname()[1]
  done = subprocess.run(
    [sys.executable, '-c', program, str(port)], cwd=ROOT, capture_output=True, text=True
  )
  assert done.stdout.split() == ['True', 'False'], done.stderr


def test_which_coordinators_are_of_this_machine():
  own = ('localhost:1', '127.0.0.1:1', '127.3.2.1:1', '[::1]:1')
  others = (None, '', 'host:1', '10.0.0.1:1', '0.0.0.0:1', '[::]:1', 'localhost.example:1')
  assert all(map(sharding.is_local, own)) and not any(map(sharding.is_local, others))


def test_multihost_cpu_listens_on_this_machine_only():
  words = ['--dry-run', '2', '1', '--config=configs/grjca.py']
  done = subprocess.run(
    ['bash', ROOT / 'launch/multihost_cpu.sh', *words], capture_output=True, text=True, check=True
  )
  coordinators = re.findall('--coordinator=([^ ]*)', done.stdout)
  assert len(coordinators) == 2 and all(map(sharding.is_local, coordinators))
