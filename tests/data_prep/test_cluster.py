"""Tests that clips decoded on a Dask cluster give the bytes of the local build, also where its
processes die.

The cluster runs on the loopback: a scheduler and four workers, each a process that a test can kill.
"""

import collections
import contextlib
import dataclasses
import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import distributed
import numpy as np
import pytest
from official_set import CLIPS, SIZES

from avjax.data import manifest, records
from avjax.errors import InputError
from data_prep import build, clips, cluster, contents, shards
from data_prep.sources import SOURCES

LAYOUT = records.Layout(12, 8, 16)
REPOSITORY = pathlib.Path(__file__).parents[2]
FIRST = '10-25-64x48_left'  # of the clips, so that none is read before it

# Each worker writes down what it decodes. While there is a file `hold`, the worker that begins with
# the first clip goes no further.
PRELOAD = """
import os, pathlib, time
from data_prep import contents

folder = pathlib.Path(FOLDER)

def note(name, clip):
  with open(folder / name, 'a') as file:
    file.write(f'{os.getpid()} {clip}\\n')

def noted(job, layout):
  note('begun', job.clip.name)
  while job.clip.name == FIRST and (folder / 'hold').exists():
    time.sleep(.01)
  decoded = contents.unnoted(job, layout)
  note('decoded', job.clip.name)
  return decoded

if not hasattr(contents, 'unnoted'):  # Dask runs this file twice
  contents.unnoted, contents.decode = contents.decode, noted
"""


LOCAL = ['--host', '127.0.0.1', '--no-dashboard']


class Cluster:
  """A scheduler and its workers, and what they have decoded."""

  def __init__(self, folder):
    self.folder, self.processes = folder, []
    self.log = (folder / 'log').open('w')  # for whoever looks why a test has failed

  def begin(self, workers):
    """Starts the scheduler and so many workers."""
    folder = self.folder
    (folder / 'preload.py').write_text(f'FOLDER, FIRST = {str(folder)!r}, {FIRST!r}\n{PRELOAD}')
    file = folder / 'scheduler.json'
    self.start('scheduler', *LOCAL, '--port', '0', '--scheduler-file', file)
    # It is not written in one step.
    wait_for(lambda: file.exists() and file.read_text().endswith('}'))
    self.address = json.loads(file.read_text())['address'].removeprefix('tcp://')
    for _ in range(workers):
      self.start_worker()

  def start_worker(self):
    folder = self.folder / f'worker{len(self.processes)}'
    words = ['--no-nanny', '--nthreads', '1', '--local-directory', folder]
    self.start('worker', self.address, *LOCAL, *words, '--preload', self.folder / 'preload.py')

  def start(self, *words):
    """Starts a process of the cluster, as a person does with the command dask."""
    self.processes.append(
      subprocess.Popen(
        [sys.executable, '-m', 'dask', *map(str, words)],
        env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
        stdout=self.log,
        stderr=subprocess.STDOUT,
      )
    )

  def noted(self, name):
    """Returns [(process, clip)] that the workers have written down as begun or decoded."""
    path = self.folder / name
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), clip) for pid, _, clip in (line.partition(' ') for line in lines)]

  def stop(self):
    for process in self.processes:
      process.kill()
      process.wait()
    self.log.close()


def wait_for(condition):
  """Waits until condition() is true, and returns what it gives."""
  end = time.monotonic() + 300
  while not (found := condition()):
    assert time.monotonic() < end, 'nothing has come of it in five minutes'
    time.sleep(0.02)
  return found


@pytest.fixture
def running(tmp_path):
  (tmp_path / 'cluster').mkdir()
  started = Cluster(tmp_path / 'cluster')
  try:
    started.begin(workers=4)
    yield started
  finally:
    started.stop()


def files_within(folder, ending):
  """Returns the files that end so; folders may vanish meanwhile, which pathlib does not bear."""
  return {
    pathlib.Path(parent, name)
    for parent, _, names in os.walk(folder)
    for name in names
    if name.endswith(ending)
  }


def words(source, data_dir, address):
  return ['--source', str(source), '--data_dir', str(data_dir), '--scheduler', address, *SIZES]


@contextlib.contextmanager
def building(*arguments):
  """Starts data_prep.build in another process, and ends it if it has not ended by itself."""
  with subprocess.Popen(
    [sys.executable, '-m', 'data_prep.build', *arguments],
    env={**os.environ, 'PYTHONPATH': str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    try:
      yield process
    finally:
      process.kill()


def whole(data_dir):
  """Returns {path: bytes} of all files under data_dir; the times of sources are the same, too."""
  return {p.relative_to(data_dir): p.read_bytes() for p in data_dir.rglob('*') if p.is_file()}


def jobs_of(source, *options):
  args = build.parse_args(['--source', str(source), '--data_dir', 'unused', *options])
  return shards.recorded(SOURCES[args.layout].plan(args))


@pytest.mark.slow
def test_killed_workers_cost_their_clips_and_the_records_are_those_of_a_local_build(
  official, built, running, tmp_path
):
  """One is killed while it decodes the first clip, another after it has decoded some."""
  (running.folder / 'hold').touch()
  jobs = {job.clip.name for job in jobs_of(official)}
  with building(*words(official, tmp_path / 'records', running.address)) as build_process:
    # All but the first are kept: the build takes none before it.
    wait_for(lambda: len(files_within(tmp_path / 'records', '.clip.npz')) == len(jobs) - 1)
    (holding,) = (pid for pid, clip in running.noted('begun') if clip == FIRST)
    finished = running.noted('decoded')[0][0]
    os.kill(holding, signal.SIGKILL)
    os.kill(finished, signal.SIGKILL)
    (running.folder / 'hold').unlink()
    out, err = build_process.communicate()
  assert build_process.returncode == 0, err
  assert f'clips: {len(jobs)} of {len(jobs)}' in err and 'records: ' in out
  times = collections.Counter(clip for _, clip in running.noted('begun'))
  assert times == {name: 1 + (name == FIRST) for name in jobs}
  assert whole(tmp_path / 'records') == whole(built)


@pytest.mark.slow
def test_a_build_waits_for_new_workers(official, built, running, tmp_path):
  (running.folder / 'hold').touch()
  with building(*words(official, tmp_path / 'records', running.address)) as build_process:
    wait_for(lambda: FIRST in [clip for _, clip in running.noted('begun')])
    for worker in running.processes[1:]:
      worker.kill()
    for line in build_process.stderr:
      if line == 'all workers have gone; the build waits for new ones\n':
        break
    (running.folder / 'hold').unlink()
    running.start_worker()
    _, err = build_process.communicate()
  assert build_process.returncode == 0, err
  assert whole(tmp_path / 'records') == whole(built)


@pytest.mark.slow
def test_a_clip_that_kills_every_worker_is_named(official, running, tmp_path):
  (running.folder / 'hold').touch()
  with building(*words(official, tmp_path / 'records', running.address)) as build_process:
    for n in range(4):
      wait_for(lambda n=n: [clip for _, clip in running.noted('begun')].count(FIRST) > n)
      os.kill([pid for pid, clip in running.noted('begun') if clip == FIRST][-1], signal.SIGKILL)
    _, err = build_process.communicate()
  assert build_process.returncode == 2
  assert re.fullmatch(
    r'error: 4 workers died of .*/10-25-64x48\.avi, probably for lack of memory; '
    'start fewer of them on a machine',
    err.splitlines()[-1],
  )
  assert list((tmp_path / 'records').iterdir()) == []


class Deaths:
  """Stands for a client, and the future of its job, whose workers die some times before it is done.

  begins: whether they had begun to decode it.
  """

  def __init__(self, deaths, begins):
    self.deaths, self.begins = deaths, begins

  def submit(self, function, path, **options):
    self.path, self.run = path, lambda: function(path)
    return self

  def result(self, timeout):
    if not self.deaths:
      return self.run()
    self.deaths -= 1
    if self.begins:
      with open(self.path.replace('.job.npz', '.begun'), 'a') as file:
        file.write('....')
    raise distributed.KilledWorker('decode_job', None, allowed_failures=3)


@pytest.mark.parametrize('begins', [False, True])
def test_only_deaths_within_a_clip_count(official, tmp_path, monkeypatch, begins):
  """Dask gives a clip up after the fourth worker that it was meant for, begun or not."""
  jobs, client = jobs_of(official)[:1], Deaths(2, begins)
  monkeypatch.setattr(cluster, 'threads', lambda client: 1)
  decoded = cluster.results(jobs, LAYOUT, client, tmp_path, collections.deque())
  if begins:
    with pytest.raises(InputError, match='^4 workers died of '):
      next(decoded)
  else:
    assert [clip.name for clip, _ in decoded] == [jobs[0].clip.name]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_lost_build_and_a_lost_scheduler(official, built, running, tmp_path):
  """A build follows one of other faces that was killed, a clip of which is still being decoded."""
  (running.folder / 'hold').touch()
  arguments = words(official, tmp_path / 'records', running.address)
  with building(*arguments, '--face', '24') as build_process:
    wait_for(lambda: FIRST in [clip for _, clip in running.noted('begun')])
    build_process.kill()
  left = files_within(tmp_path / 'records', '.job.npz')
  with building(*arguments) as build_process:
    wait_for(lambda: files_within(tmp_path / 'records', '.job.npz') - left)
    (running.folder / 'hold').unlink()
    assert build_process.wait() == 0, build_process.stderr.read()
  assert whole(tmp_path / 'records') == whole(built)
  (running.folder / 'hold').touch()
  before = len(running.noted('begun'))
  with building(*words(official, tmp_path / 'others', running.address)) as build_process:
    wait_for(lambda: FIRST in [clip for _, clip in running.noted('begun')[before:]])
    running.processes[0].kill()
    _, err = build_process.communicate()
  assert build_process.returncode == 2
  assert err.splitlines()[-1].startswith(
    f'error: the scheduler at tcp://{running.address} is lost;'
  )
  assert not [line for line in err.splitlines()[:-1] if not line.startswith('clips: ')]
  assert list((tmp_path / 'others').iterdir()) == []


@pytest.mark.slow
def test_little_waits_on_the_disk_and_bad_clips_are_named(
  official, built, broken, running, tmp_path, monkeypatch
):
  monkeypatch.setattr(cluster, 'AHEAD', 1)
  most, submitted = [], []
  save_job, submit = cluster.save_job, distributed.Client.submit

  def counted(path, *rest):
    save_job(path, *rest)
    most.append(len(list(path.parent.glob('*.job.npz'))))

  def seen(client, function, *arguments, **options):
    submitted.append((function, *arguments))
    return submit(client, function, *arguments, **options)

  monkeypatch.setattr(cluster, 'save_job', counted)
  monkeypatch.setattr(distributed.Client, 'submit', seen)
  assert build.main(words(official, tmp_path / 'records', running.address)) == 0
  assert whole(tmp_path / 'records') == whole(built)
  assert max(most) <= 4  # one for each worker
  assert {tuple(map(type, given)) for given in submitted} == {(type(cluster.decode_job), str)}
  os.truncate(broken / 'batch1/102.avi', 5000)
  with pytest.raises(InputError, match='102.avi') as on_cluster:
    build.main(words(broken, tmp_path / 'others', running.address))
  with pytest.raises(InputError) as local:
    build.main(words(broken, tmp_path / 'others', running.address)[:4] + SIZES)
  assert str(on_cluster.value) == str(local.value)
  assert list((tmp_path / 'others').iterdir()) == []


def test_jobs_and_clips_come_out_of_their_files_as_they_went_in(official, tmp_path):
  (tmp_path / 'clip').mkdir()
  for name, (frames, *_) in CLIPS.items():
    np.save(tmp_path / 'clip' / f'{name}.npy', np.random.default_rng(frames).random((frames, 3)))
  jobs = jobs_of(official, '--features', f'clip={tmp_path / "clip"}', '--tolerate', 'length')
  layout = records.Layout(12, 8, 16, {'clip': 3})
  assert any(job.labels is None for job in jobs) and any(job.labels is not None for job in jobs)
  for job in jobs:
    cluster.save_job(tmp_path / 'a.job.npz', job, layout)
    found, found_layout, _ = cluster.load_job(tmp_path / 'a.job.npz')
    assert found_layout == layout
    assert_same(vars(found), vars(job))
  clip, seen = contents.decode(jobs[0], layout)
  cluster.save_clip(tmp_path / 'a.clip.npz', clip, seen)
  found, found_seen = cluster.load_clip(tmp_path / 'a.clip.npz')
  assert found_seen == seen
  assert_same(vars(found), vars(clip))


def assert_same(found, wanted):
  """Two dicts are equal, and their arrays in type and shape, too."""
  assert found.keys() == wanted.keys()
  for name, value in wanted.items():
    if isinstance(value, dict):
      assert_same(found[name], value)
    elif isinstance(value, np.ndarray):
      assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
      np.testing.assert_array_equal(found[name], value)
    else:
      assert type(found[name]) is type(value) and found[name] == value, name


def test_what_a_worker_refuses(official, tmp_path, monkeypatch):
  job = next(job for job in jobs_of(official) if job.clip.name == '103')
  path = tmp_path / '103.job.npz'
  assert (
    f'does not find {path}; --data_dir must be on a disk' in cluster.decode_job(str(path))['error']
  )
  cluster.save_job(path, job, LAYOUT)
  with monkeypatch.context() as patch:
    patch.setattr('avjax.__version__', '0.0.1')
    assert 'has another avjax (0.0.1, not ' in cluster.decode_job(str(path))['error']
  gone = clips.Clip('103', tmp_path / 'gone.mp4', job.clip.crops, None, 'test')
  cluster.save_job(tmp_path / 'gone.job.npz', dataclasses.replace(job, clip=gone), LAYOUT)
  refused = cluster.decode_job(str(tmp_path / 'gone.job.npz'))['error']
  assert f'does not find {tmp_path}/gone.mp4; --source must be on a disk' in refused
  assert not list(tmp_path.glob('*.clip.npz'))
  assert cluster.decode_job(str(path)) == {}
  found, _ = cluster.load_clip(tmp_path / '103.clip.npz')
  assert_same(vars(found), vars(contents.decode(job, LAYOUT)[0]))
  # What another worker has finished is not decoded again, and a bug is told as text.
  monkeypatch.setattr(contents, 'decode', lambda *_: 1 / 0)
  assert cluster.decode_job(str(path)) == {}
  (tmp_path / '103.clip.npz').unlink()
  assert 'ZeroDivisionError' in cluster.decode_job(str(path))['bug']


def test_a_cluster_that_is_not_there(official, tmp_path, monkeypatch):
  monkeypatch.setattr(cluster, 'SECONDS', 1)
  for address, message in (
    *(
      (address, f'--scheduler {address} is not HOST:PORT, such as 10.0.0.5:8786; for TLS, set .*')
      for address in ('127.0.0.1', 'tls://127.0.0.1:8786')
    ),
    ('127.0.0.1:9', 'no Dask scheduler answers at 127.0.0.1:9 .*; start one with: dask scheduler'),
  ):
    with pytest.raises(InputError, match=f'^{message}$'):
      build.main(words(official, tmp_path / 'records', address))
  monkeypatch.setitem(sys.modules, 'distributed', None)
  with pytest.raises(InputError, match=r"needs dask.distributed .*: pip install 'avjax\[dask\]'$"):
    build.main(words(official, tmp_path / 'records', '127.0.0.1:9'))
  assert list((tmp_path / 'records').iterdir()) == []


def test_what_is_no_scheduler(official, tmp_path, monkeypatch):
  """Such as the dashboard of one, which stands at the next port."""
  monkeypatch.setattr(cluster, 'SECONDS', 1)
  with http.server.ThreadingHTTPServer(
    ('127.0.0.1', 0), http.server.BaseHTTPRequestHandler
  ) as other:
    threading.Thread(target=other.serve_forever, daemon=True).start()
    with pytest.raises(
      InputError, match=r'answers at .* \(it speaks another protocol\); start one'
    ):
      build.main(words(official, tmp_path / 'records', f'127.0.0.1:{other.server_port}'))
    other.shutdown()
  assert list((tmp_path / 'records').iterdir()) == []


def test_a_scheduler_without_workers(official, tmp_path, monkeypatch):
  monkeypatch.setattr(cluster, 'SECONDS', 1)
  empty = Cluster(tmp_path)
  try:
    empty.begin(workers=0)
    with pytest.raises(
      InputError,
      match=f'at {empty.address} has no workers; start some with: dask worker {empty.address}$',
    ):
      build.main(words(official, tmp_path / 'records', empty.address))
  finally:
    empty.stop()
  assert list((tmp_path / 'records').iterdir()) == []


def test_records_that_are_there_need_no_cluster(official, built, capfd):
  assert build.main(words(official, built, '127.0.0.1:9')) == 0
  assert 'nothing to do' in capfd.readouterr().out
  assert manifest.check_sizes(built)
