"""Tests that what a killed process leaves half written is removed at the next start, and that
nothing else is.
"""

import fcntl
import os
import pathlib
import re
import signal
import subprocess
import sys

import pytest

from avjax import files
from avjax.errors import InputError
from avjax.inference.outputs import partial_folder
from avjax.runs import folder as run_folder

attack = pytest.mark.attack('files that are read, written and locked')
ROOT = pathlib.Path(__file__).parents[3]
PROGRAM = """
import pathlib
import sys
import time
from avjax import files
with files.{function}(pathlib.Path(sys.argv[1])) as partial:
  (partial / 'half' if partial.is_dir() else partial).write_text('half')
  print('begun', flush=True)
  time.sleep(600)
"""


@pytest.fixture
def begin():
  """Returns begin(function, path): starts a process that is half way through writing path."""
  running = []

  def start(function, path):
    process = subprocess.Popen(
      [sys.executable, '-c', PROGRAM.format(function=function), str(path)],
      stdout=subprocess.PIPE,
      text=True,
      cwd=ROOT,
    )
    running.append(process)
    assert process.stdout.readline() == 'begun\n'
    return process

  yield start
  for process in running:
    process.kill()
    process.wait()
    process.stdout.close()


def kill(process):
  process.send_signal(signal.SIGKILL)
  process.wait()


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_folders_of_killed_processes_are_removed_at_the_next_start(tmp_path, begin):
  mine = ['.avjax-notes', '.avjax-Results1', 'avjax-12345678', '.avjax-a_file_']
  for name in mine[:-1]:
    (tmp_path / name).mkdir()
  (tmp_path / mine[-1]).write_text('mine')
  at_work, killed = begin('temporary_folder', tmp_path), begin('in_one_step', tmp_path / 'model')
  before = set(names(tmp_path))
  kill(killed)
  assert set(names(tmp_path)) == before  # nobody could clean up
  with partial_folder(tmp_path) as folder:
    assert len(before - set(names(tmp_path))) == 1  # that of the killed process, not of the other
    assert folder.name in names(tmp_path)
  kill(at_work)
  with files.in_one_step(tmp_path / 'model') as partial:
    partial.write_text('whole')
  assert names(tmp_path) == sorted([*mine, 'model'])


def test_a_partial_file_is_removed_unless_it_is_being_written(tmp_path, begin):
  mine = ['.avjax-12345678', '.avjax-87654321.png', '.avjax-notes', 'notes.partial']
  for name in mine[:2]:
    (tmp_path / name).symlink_to(tmp_path / mine[2])
  for name in mine[2:]:
    (tmp_path / name).write_text('mine')
  process = begin('replacing', tmp_path / 'results_test.json')
  (partial,) = set(names(tmp_path)) - set(mine)
  assert re.fullmatch(r'\.avjax-[0-9a-f]{8}\.json', partial)
  files.remove_abandoned(tmp_path)
  assert set(names(tmp_path)) == {*mine, partial}
  kill(process)
  files.remove_abandoned(tmp_path)
  assert names(tmp_path) == mine


def test_a_run_begins_without_what_a_killed_one_left(tmp_path):
  for name in ('config.json', '.avjax-12345678.jsonl', '.avjax-87654321.json', 'mine.partial'):
    (tmp_path / name).write_text('{')
  run_folder.open_folder(None, tmp_path, {}, {})
  assert names(tmp_path) == ['config.json', 'mine.partial']


def test_a_mini_set_that_was_killed_at_once_is_begun_again(tmp_path, monkeypatch):
  from data_prep import mini

  monkeypatch.setattr(mini, 'find_places', lambda *_: pytest.fail('it begins', pytrace=False))
  (tmp_path / '.avjax-12345678.json').write_text('{')
  with pytest.raises(pytest.fail.Exception, match='it begins'):
    mini.generate(tmp_path, videos=17)
  assert names(tmp_path) == ['mini.partial.json']


def test_a_write_that_fails_leaves_the_old_file_alone(tmp_path):
  files.write_text(tmp_path / 'a', 'old')
  with pytest.raises(ZeroDivisionError), files.replacing(tmp_path / 'a') as partial:
    partial.write_text('half')
    _ = 1 / 0
  assert names(tmp_path) == ['a'] and (tmp_path / 'a').read_text() == 'old'


def test_many_processes_in_one_folder_keep_their_own(tmp_path):
  """Each start removes what it takes for abandoned; none of it may be another's in this moment."""
  program = (
    'import pathlib, sys\nfrom avjax import files\n'
    "path = pathlib.Path(sys.argv[1], 'last')\n"
    'for i in range(300):\n'
    '  files.write_text(path, str(i))\n'
    '  with files.temporary_folder(sys.argv[1]) as folder:\n'
    "    (folder / 'a').write_text('b')\n"
    "    assert (folder / 'a').read_text() == 'b'\n"
  )
  running = [
    subprocess.Popen([sys.executable, '-c', program, str(tmp_path)], cwd=ROOT) for _ in range(4)
  ]
  assert [process.wait() for process in running] == [0] * 4
  assert names(tmp_path) == ['last'] and (tmp_path / 'last').read_text() == '299'


def test_text_is_read_with_and_without_marks(tmp_path):
  path = tmp_path / 'list.txt'
  for encoding in ('utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be'):
    mark = '\ufeff' if encoding.endswith('e') else ''
    path.write_bytes(f'{mark}Größe\r\n'.encode(encoding))
    assert files.read_text(path) == 'Größe\r\n', encoding
  for content in (b'\xe9', 'Größe'.encode('utf-16-le'), 'list'.encode('utf-16-le')):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r'list.txt cannot be read as text: .*; save it as UTF-8'):
      files.read_text(path)
  os.remove(path)
  with pytest.raises(InputError, match=r'cannot be read as text: No such file or directory$'):
    files.read_text(path)
  path.write_bytes('\ufeff{"a": 1}'.encode())
  assert files.read_json(path) == {'a': 1}


@attack
def test_what_may_never_end_is_not_read(tmp_path):
  """A pipe that nobody writes to and a device are refused at once, also through a link."""
  os.mkfifo(tmp_path / 'pipe')
  (tmp_path / 'zeros').symlink_to('/dev/zero')
  for name in ('pipe', 'zeros'):
    path = tmp_path / name
    for read in (files.read_text, files.read_json, files.check_readable, files.sha256):
      with pytest.raises(InputError) as error:
        read(path)
      assert str(error.value) == f'{path} is a named pipe or a device; give a regular file'


@attack
def test_reading_is_bounded(tmp_path, monkeypatch):
  """A file of more bytes than its kind has is refused before it is read."""
  path = tmp_path / 'large'
  path.write_bytes(b'{}' + b' ' * (1 << 20))
  monkeypatch.setattr(files.reading, 'MOST_JSON', 1 << 20)
  with pytest.raises(InputError, match='is too large: at most 1 MiB are read of such a file$'):
    files.read_json(path)


@attack
def test_a_link_is_replaced_and_never_written_through(tmp_path):
  theirs = tmp_path / 'theirs'
  theirs.write_text('theirs')
  for name in ('link', 'link.partial'):
    (tmp_path / name).symlink_to(theirs)
  files.write_text(tmp_path / 'link', 'mine')
  assert not (tmp_path / 'link').is_symlink() and (tmp_path / 'link').read_text() == 'mine'
  os.link(theirs, tmp_path / 'second name')
  os.mkfifo(tmp_path / 'pipe')
  for name, words in (
    ('link.partial', 'is not a regular file; remove it'),
    ('pipe', 'is not a regular file; remove it'),
    ('second name', r'has a second name \(a hard link\), so that nothing is added to it; put a '),
  ):
    with pytest.raises(InputError, match=words):
      files.open_to_append(tmp_path / name)
  assert theirs.read_text() == 'theirs'


@attack
def test_only_who_may_write_in_a_folder_can_lock_it(tmp_path):
  """The folder may be read by all and locked by anybody; what counts is a file that is its own."""
  folder = tmp_path / 'run'
  with files.locked(folder, 'busy'):
    assert names(folder) == ['.avjax-lock']
    assert (folder / '.avjax-lock').stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match='^busy$'), files.locked(folder, 'busy'):
      pass
  assert names(folder) == []
  handle = os.open(folder, os.O_RDONLY)
  fcntl.flock(handle, fcntl.LOCK_EX)  # as another user can do
  folder.chmod(0o770)
  with files.locked(folder, 'busy'):
    assert (folder / '.avjax-lock').stat().st_mode & 0o777 == 0o660  # others of the group may wait
  os.close(handle)
  (folder / '.avjax-lock').symlink_to(tmp_path / 'elsewhere')
  with pytest.raises(InputError, match='avjax-lock: '), files.locked(folder, 'busy'):
    pass
  assert names(tmp_path) == ['run']


def test_many_processes_hold_one_lock_in_turn(tmp_path):
  """The file of the lock is removed by whoever held it, and never is the lock held twice."""
  program = (
    'import os, sys\nfrom avjax import errors, files\n'
    'done = 0\n'
    'while done < 100:\n'
    '  try:\n'
    "    with files.locked(sys.argv[1], 'busy'):\n"
    "      os.mkdir(sys.argv[1] + '/held')\n"
    "      os.rmdir(sys.argv[1] + '/held')\n"
    '      done += 1\n'
    '  except errors.InputError:\n'
    '    pass\n'
  )
  running = [
    subprocess.Popen([sys.executable, '-c', program, str(tmp_path)], cwd=ROOT) for _ in range(4)
  ]
  assert [process.wait() for process in running] == [0] * 4
  assert names(tmp_path) == []


@attack
@pytest.mark.parametrize('kind', ['link', 'pipe', 'dangling'])
def test_a_folder_that_holds_a_link(tmp_path, kind):
  folder = tmp_path / 'run'
  (folder / 'a' / 'b').mkdir(parents=True)
  (tmp_path / 'typed').symlink_to(folder)
  (folder / 'a' / 'file').write_text('')
  files.check_no_links(tmp_path / 'typed')  # the path that a person gives may be a link
  path = folder / 'a' / 'b' / '.x'
  os.mkfifo(path) if kind == 'pipe' else path.symlink_to(tmp_path / kind)
  (tmp_path / 'link').mkdir()
  what = 'named pipe, a device or a socket' if kind == 'pipe' else 'link'
  with pytest.raises(InputError) as error:
    files.check_no_links(folder)
  assert str(error.value) == (
    f'{path} is a {what}, which avjax does not use inside {folder}; '
    'put a file or folder there, or remove it'
  )
