"""Tests builds whose source or records are on a bucket, against a server on the loopback."""

import itertools
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from bucket_server import get, put
from fault.harness import ROOT, run
from fault.harness import files as tree
from official_set import ANNOTATIONS, SIZES

from avjax import files
from avjax.data import manifest
from avjax.errors import InputError
from avjax.files import bucket_lock, buckets, reading
from data_prep import build, contents, places


def words(source, data_dir, *more):
  return ['--source', str(source), '--data_dir', str(data_dir), '--workers', '1', *SIZES, *more]


def refusal(function, *arguments):
  with pytest.raises(InputError) as refused:
    function(*arguments)
  assert '\n' not in str(refused.value)
  return str(refused.value)


def of_records(found):
  """Returns what is there without the list of times, which are others in each copy."""
  name = f'{manifest.NAME}/{contents.NAME}'
  return {key: content for key, content in found.items() if key != name}


def read_whole(address):
  """Reads records as every reader does; tells whether there are any."""
  try:
    bucket, folder = manifest.bring_manifest(address)
  except InputError as error:
    assert 'holds no finished records' in str(error)
    return False
  made = manifest.read_manifest(folder)
  manifest.bring_shards(bucket, folder, made, made['shards'])  # compares each SHA-256
  return True


@pytest.fixture
def source(official, address):
  """The address of the data set on a bucket, with what lies about there besides."""
  put(official, f'{address}/affwild2')
  for name in ('batch1.zip', 'batch1/.hidden', 'batch1/a folder of the console/'):
    files.Bucket(f'{address}/affwild2').write(f'/{name}', b'not needed')
  return f'{address}/affwild2'


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(server, source, built, address, tmp_path):
  """All bytes are those of a local build, and the same command again has nothing to do."""
  records = f'{address}/records'
  done = run(*words(source, records), module='data_prep.build')
  assert done.returncode == 0, done.stderr
  assert f'written to {records}, and removed here' in done.stdout
  assert of_records(get(records)) == of_records(tree(built)) and read_whole(records)
  assert not [*(tmp_path / 'cache/avjax/builds').iterdir()]
  before = get(records)
  server.requests.clear()
  done = run(*words(source, records), module='data_prep.build')
  assert done.returncode == 0, done.stderr
  assert f'{records}/affwild2/1.0.0 is complete' in done.stdout and 'nothing to do' in done.stdout
  sent = {path.rpartition('/')[2] for method, path, _ in server.requests if method == 'POST'}
  assert all(files.locks.LOCK in name for name in sent)
  message = refusal(build.main, words(source, records, '--face', '20'))
  assert message.startswith(f'{records}/affwild2/1.0.0 holds records with a different layout')
  # A crop that has changed on the bucket is noticed, as on a disk.
  crop = '/cropped_aligned/103/00005.jpg'
  files.Bucket(source).write(crop, files.Bucket(source).read('/cropped_aligned/103/00004.jpg')[0])
  assert 'other videos or crops' in refusal(build.main, words(source, records))
  assert get(records) == before


def test_only_what_has_changed_is_copied(server, source, official, tmp_path):
  """And what is gone on the bucket is gone here; what nobody needs is not copied."""

  def bring():
    """Returns the copy, and the names of the files that have been written."""
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*') if path.is_file()}
    folder = places.bring_source(source)
    return folder, {
      str(path.relative_to(folder))
      for path in folder.rglob('*')
      if path.is_file() and before.get(path) != path.stat().st_mtime_ns
    }

  wanted = {name: x for name, x in tree(official).items() if not name.endswith('.DS_Store')}
  folder, copied = bring()
  assert folder.name == 'affwild2' and tree(folder) == wanted and copied == wanted.keys()
  server.statuses.clear()
  assert bring()[1] == set() and server.statuses == {200: 1, 304: len(wanted)}
  bucket, name = files.Bucket(source), f'{ANNOTATIONS}/Train_Set/103.txt'
  bucket.write(f'/{name}', wanted[name] + b'\n')  # one of another size, and one of the same
  bucket.write('/batch1/103.mp4', bytes(len(wanted['batch1/103.mp4'])))
  crops = [name for name in wanted if name.startswith('cropped_aligned/104/')]
  for crop in crops:
    bucket.write(f'/{crop}', None)
  (folder / 'batch1/104.avi').write_bytes(b'damaged here')
  (folder / 'batch1/new.avi').write_bytes(b'not of the bucket')
  assert bring()[1] == {name, 'batch1/103.mp4', 'batch1/104.avi'}
  assert tree(folder) == {
    **{name: x for name, x in wanted.items() if name not in crops},
    name: wanted[name] + b'\n',
    'batch1/103.mp4': bytes(len(wanted['batch1/103.mp4'])),
  }
  assert not (folder / 'cropped_aligned/104').exists()


def test_a_copy_that_was_cut_short_goes_on(server, source, official, monkeypatch):
  """What has come before is not sent again; a torn line of the list costs its file."""
  monkeypatch.setattr(places, 'AT_ONCE', 1)
  monkeypatch.setattr(reading, 'MOST_TEXT', 100)  # the list has no limit

  def reads():
    return [path for method, path, _ in server.requests if method == 'GET' and 'alt=media' in path]

  server.requests.clear()
  left = iter(range(50))
  with server.faults(lambda *_: '403' if next(left, None) is None else None):
    message = refusal(places.bring_source, source)
  assert message.startswith(f'{source}/')
  folder = places.cached('sources', files.Bucket(source))
  listed = folder.parent / places.COPIED
  whole = listed.read_text().splitlines()
  assert 40 < len(whole) < 60
  listed.write_text('\n'.join([*whole[:-1], whole[-1][:30]]))
  written = {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file()}
  places.bring_source(source)
  torn = json.loads(whole[-1])[0]
  same = {path for path in written if path.stat().st_mtime_ns == written[path]}
  assert {f'/{path.relative_to(folder)}' for path in written.keys() - same} == {torn}
  assert len(tree(folder)) == len([*official.rglob('*.*')]) - len([*official.rglob('.DS_Store')])


def test_a_source_that_is_none(address, source):
  for where in (f'{address}/none', 'gs://b'):
    assert where in refusal(build.main, words(where, '/nowhere'))
  files.Bucket(source).write('/batch1//x.jpg', b'hostile')
  assert 'of which no file can be made' in refusal(places.bring_source, source)


def build_there(built, records):
  """Does what a build does which has these records as its result."""
  with places.records_on(files.Bucket(records)) as (folder, check):
    if not (folder / manifest.NAME).exists():
      shutil.copytree(built, folder)
    assert check(folder / manifest.NAME / manifest.VERSION) == manifest.read_manifest(built)


def test_a_kill_at_any_request_leaves_whole_records_or_none(server, address, built, monkeypatch):
  """After each number of requests none gets through: that is what a kill leaves there.

  The next build finishes it, and removes what one with other sizes of shards has left.
  """
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  found = set()
  for number in itertools.count():
    records = f'{address}/{number}'
    left, ended = iter(range(number)), True
    with server.faults(lambda *_, left=left: '403' if next(left, None) is None else None):
      try:
        build_there(built, records)
      except InputError:
        ended = False
    bucket = files.Bucket(records)
    bucket.write(f'/{files.locks.LOCK}', None)
    there = read_whole(records)
    found.add((there, ended))
    if bucket.read(places.UNFINISHED)[0] is not None and not there:
      bucket.write(f'{places.FOLDER}affwild2-chunk0.tfrecord-00007-of-00008', b'left')
    build_there(built, records)
    assert get(records) == tree(built) and read_whole(records)
    if ended:
      break
  assert found == {(False, False), (True, False), (True, True)} and number > 12


def test_a_build_that_stood_still_overwrites_nothing(server, address, tmp_path, monkeypatch):
  """At any of its requests; meanwhile another one has written records, with more shards.

  What a killed build has left is there at first, a shard of the same name among it.
  """
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  folders = {}
  for who, shards in (('first', 2), ('second', 4)):
    folders[who] = tmp_path / who
    for number in range(shards):
      places.write(folders[who] / f'{places.FOLDER[1:]}affwild2-{number}', who.encode())
    places.write(folders[who] / places.MANIFEST[1:], who.encode())
  ends = set()
  for number in itertools.count():
    bucket, count = files.Bucket(f'{address}/{number}'), itertools.count()
    for name in (f'{places.FOLDER}affwild2-1', f'{places.FOLDER}affwild2-3', places.UNFINISHED):
      bucket.write(name, b'left')
    lock = files.Lock(bucket, 'building records')

    def stand_still(*_, number=number, bucket=bucket, count=count, lock=lock):
      if next(count) == number:
        found = json.loads(bucket.read(lock.name)[0])
        found['time'] -= bucket_lock.STALE + 30
        bucket.write(lock.name, json.dumps(found).encode())
        lock.renewed -= bucket_lock.STALE + 30
        other = files.Lock(bucket, 'building records')
        if bucket.read(places.MANIFEST)[0] is None:
          places.send(bucket, other, folders['second'])
        other.release()

    with server.faults(stand_still):
      try:
        places.send(bucket, lock, folders['first'])
        error = ''
      except InputError as refused:
        error = str(refused)
    lock.release()
    found = get(bucket.address)
    wrote = found[places.MANIFEST[1:]].decode()
    unfinished = dict.fromkeys(found.keys() & {places.UNFINISHED[1:]}, b'')
    assert found == tree(folders[wrote]) | unfinished
    assert 'another process has begun building records' in error or (wrote, error) == ('first', '')
    ends.add((wrote, bool(error)))
    if next(count) <= number:
      break
  assert ends == {('second', True), ('first', False), ('first', True)} and number > 12


@pytest.mark.slow
def test_a_build_killed_while_the_bucket_is_written(server, address, official, built):
  """The same command writes the records again, without decoding anything."""
  records = f'{address}/records'
  running, posts = [], iter(range(10**6))

  def kill(method, path):
    if method == 'POST' and '.tfrecord' in path and next(posts) == 3:
      os.kill(running[0].pid, signal.SIGKILL)
      return 'cut'
    return None

  line = [sys.executable, '-m', 'data_prep.build', *words(official, records)]
  with server.faults(kill):
    running.append(
      subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    )
    assert running[0].wait(300) == -signal.SIGKILL
  assert not read_whole(records) and get(records)
  bucket, name = files.Bucket(records), f'/{files.locks.LOCK}'
  found = json.loads(bucket.read(name)[0])  # it is taken for dead after STALE seconds
  bucket.write(name, json.dumps({**found, 'time': found['time'] - bucket_lock.STALE}).encode())
  done = run(*words(official, records), module='data_prep.build')
  assert done.returncode == 0 and 'clips:' not in done.stderr, done.stderr
  assert of_records(get(records)) == of_records(tree(built))


def test_two_builds_at_once(address, official, built, monkeypatch):
  """The second one is refused in one line that names the first, and writes nothing."""
  monkeypatch.setattr(bucket_lock, 'BEAT', 0.2)
  first = files.Lock(files.Bucket(address), 'building records')
  before = get(address).keys()
  message = refusal(build.main, words(official, address))
  assert f'{address}: process {os.getpid()} on ' in message and 'is building records' in message
  assert get(address).keys() == before == {files.locks.LOCK}
  first.release()


def test_records_on_a_bucket_are_never_overwritten(server, address, official, built):
  """What is not whole, or not of a build, is told as on a disk."""
  line = words(official, address)
  bucket = files.Bucket(address)
  bucket.write(f'{places.FOLDER}something', b'of somebody')
  assert 'exists but has no manifest.json' in refusal(build.main, line)
  assert get(address) == {'affwild2/1.0.0/something': b'of somebody'}
  put(built, address)
  shard = next(name for name in bucket.names() if '.tfrecord' in name)
  content = bucket.read(shard)[0]
  bucket.write(shard, None)
  assert refusal(build.main, line).startswith(f'shard {address}{shard} is missing')
  bucket.write(shard, content)
  bucket.write(f'{shard}9', b'')
  assert refusal(build.main, line).startswith(f'shard {address}{shard}9 is not in the manifest')
  bucket.write(f'{shard}9', None)
  assert build.main(line) == 0
  with server.faults(lambda method, path: '403' if '/o?startOffset' in path else None):
    assert 'is missing' in refusal(build.main, line)
    bucket.write(places.MANIFEST, None)
    assert 'may not be listed by you' in refusal(build.main, line)


def test_records_that_were_not_sent_and_are_others(address, official, built):
  """The message names the folder of this machine, since nothing is on the bucket."""
  folder = places.cached('builds', files.Bucket(address))
  shutil.copytree(built, folder)
  line = words(official, address, '--face', '20')
  message = refusal(build.main, line)
  assert message.startswith(f'{folder}/affwild2/1.0.0 holds records with a different layout')
  assert get(address) == {}


def test_a_cluster_sees_no_copies(address, official):
  for source, data_dir in ((address, 'records'), (official, address)):
    line = words(source, data_dir, '--scheduler', '127.0.0.1:9')
    assert refusal(build.main, line).startswith('--scheduler takes no gs://')
  assert get(address) == {}


@pytest.mark.parametrize(
  'module, line',
  [
    ('verify', ['gs://bucket/records']),
    ('mini', ['--output', 'gs://bucket/mini']),
    ('mini', ['--output=s3://bucket/mini']),
    ('build', ['--source', 's3://bucket/affwild2', '--data_dir', 'records']),
    ('build', ['--source=affwild2', '--data_dir=s3://bucket/records']),
    ('build', ['--source=a', '--data_dir=b', '--features', 'clip=gs://bucket/clip']),
    ('build', ['--source=a', '--data_dir=b', '--videos', 'gs://bucket/videos']),
  ],
)
def test_other_addresses_are_refused(tmp_path, module, line):
  """In one line, before anything is written."""
  done = run(*line, module=f'data_prep.{module}', cwd=tmp_path)
  assert done.returncode == 2 and 'is not on this machine' in done.stderr
  assert done.stderr.count('\n') == 1 and done.stdout == '' and not [*tmp_path.iterdir()]


def test_a_scheduler_of_another_scheme(official, tmp_path):
  """The message says what is accepted."""
  line = words(official, tmp_path / 'records', '--scheduler', 'tls://10.0.0.5:8786')
  done = run(*line, module='data_prep.build')
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert done.stderr.startswith('error: --scheduler tls://10.0.0.5:8786 is not HOST:PORT, such as ')


def test_what_is_not_written_to_a_bucket(address, official):
  line = words(official, address, '--contact_sheet')
  assert refusal(build.main, line).startswith(
    '--contact_sheet writes into DATA_DIR, which must be '
  )
  assert build.main(words(official, address, '--dry-run')) == 0
  assert get(address) == {}


def test_a_path_stays_a_path():
  assert places.path('affwild2') == pathlib.Path('affwild2')
  assert places.path('gs://bucket/affwild2') == 'gs://bucket/affwild2'
