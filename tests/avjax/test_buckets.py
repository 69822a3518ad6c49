"""Tests copies of what is on a bucket, against a server of Google Cloud Storage on the loopback.

No test meets a real bucket.
"""

import collections
import errno
import itertools
import json
import os
import pathlib
import tempfile
import threading
import time

import numpy as np
import pytest
from bucket_server import get, put
from fault.harness import call, flags
from fault.harness import files as tree

from avjax import errors, files
from avjax.data import dataset, manifest
from avjax.errors import InputError, PassingError
from avjax.files import bucket_lock, buckets
from avjax.runs import copies
from avjax.weights import files as weight_files

LAYOUT = {'length': 12, 'stride': 8, 'face': 16}
FAULTS = ('500', '503', '429', 'cut', 'cut the answer', 'slow')


def trying(monkeypatch, retries):
  """Has a request tried again so many times, and after tenths of a second."""
  again = {'max_retries': retries, 'initial_delay': '50ms', 'max_delay': '200ms'}
  monkeypatch.setattr(buckets, 'RETRIES', again)


def at_first(fault, times):
  """Returns a fault of the proxy that each request meets so many times, and then no more."""
  lock, met = threading.Lock(), collections.Counter()

  def find(method, path):
    request = method, path.partition('&tensorstore=')[0]  # a number that each try has of its own
    with lock:
      met[request] += 1
      return fault if met[request] % (times + 1) else None

  return find


def refusal(function, *arguments, kind=InputError):
  with pytest.raises(InputError) as refused:
    function(*arguments)
  assert refused.type is kind
  assert '\n' not in str(refused.value)
  return str(refused.value)


# Copies.

NAMES = ('a', 'b/c', 'b/d/e', 'ä ö', '#?&%25+', 'empty')


def test_a_copy_there_and_back(server, address):
  """What has changed is written, what is gone is removed, and nothing else is sent."""
  bucket = files.Bucket(address)
  for name in NAMES:
    bucket.write(f'/{name}', b'' if name == 'empty' else name.encode() * 1000)
  bucket.write('/a folder of the console/', b'')
  files.Bucket(f'{address}2').write('/another', b'')  # begins with the same letters
  copy = files.Copy(address)
  path = copy.fetch()
  assert path.name == address.rsplit('/', 1)[-1]
  assert tree(path) == {name: b'' if name == 'empty' else name.encode() * 1000 for name in NAMES}
  (path / 'a').write_bytes(b'new')
  (path / 'b' / 'c').unlink()
  (path / 'f' / 'g').parent.mkdir()
  (path / 'f' / 'g').write_bytes(b'also new')
  (path / f'{files.writing.TEMPORARY}12345678').write_bytes(b'not finished')
  before = len(server.requests)
  copy.publish()
  sent = [method for method, *_ in server.requests[before:]]
  assert sorted(sent) == ['DELETE', 'POST', 'POST']
  found = get(address)
  assert found.pop('a folder of the console/', b'') == b''
  expected = tree(path)
  del expected[f'{files.writing.TEMPORARY}12345678']
  assert found == expected
  before = len(server.requests)
  copy.publish()
  assert len(server.requests) == before


def test_a_copy_of_a_whole_bucket(server, address):
  """The bucket itself is a folder, too."""
  files.Bucket(address).write('/x', b'1')
  root, _, name = address.rpartition('/')
  assert f'/{name}/x' in files.Bucket(root).names()
  assert files.Bucket(root).read(f'/{name}/x')[0] == b'1'


@pytest.mark.parametrize('name', ['/../x', '/a/../../x', '/a//x', '/./x', '//etc/x'])
def test_names_that_lead_elsewhere(address, name):
  """Objects may have any name, and none is written outside of the copy."""
  bucket = files.Bucket(address)
  bucket.write('/fine', b'')
  bucket.write(name, b'hostile')
  copy = files.Copy(address)
  assert 'of which no file can be made' in refusal(copy.fetch)
  assert not tree(copy.path.parent)


@pytest.mark.parametrize(
  'wrong', ['gs://', 'gs://a', 'gs://Bucket/x', 'gs://bucket/../x', 'gs://bucket//x', 'gs:///x']
)
def test_addresses_that_are_none(wrong):
  assert 'is no address of a folder on a bucket' in refusal(files.Bucket, wrong)


def test_messages_name_the_address(address):
  """Nobody knows the copy; what is printed, logged and raised has the address in its place."""
  copy = files.Copy(address)
  assert refusal(files.read_json, copy.path / 'x.json').startswith(f'{address}/x.json: ')
  assert errors.visible(f'in {copy.path}\n') == f'in {address}\\n'


def test_errors_of_the_own_disk(address, monkeypatch):
  """They name the folder of this machine, since nobody could mend them on the bucket."""
  files.Bucket(address).write('/x', b'1')
  copy = files.Copy(address)

  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  assert refusal(copy.fetch) == (
    f'the copy of {address}/x in {tempfile.gettempdir()}, which TMPDIR names: '
    'No space left on device; make room and start again'
  )
  cache = files.cache_folder('records')
  errors.COPIED_FROM[str(cache / 'x')] = address
  with pytest.raises(InputError) as refused, errors.writing(cache / 'x' / 'shard'):
    full()
  assert str(refused.value).startswith(f'the copy of {address}/shard in {cache}: No space left')


# A run on a bucket, killed while it is written.


def state_of(path):
  """Returns what a run would continue from: (step, content) of its newest state.

  Each state is whole, and the best one that the newest names is there.
  """
  newest, folder = None, path / 'checkpoints'
  for kind in ('best', 'last'):
    for step in sorted((folder / kind).glob('*'), key=lambda step: int(step.name)):
      content = (step / 'state' / 'x').read_text()
      assert (step / 'meta').read_text() == content and (step / copies.MARK).exists()
      newest = int(step.name), content
  if newest:
    assert (folder / 'best' / str(newest[0]) / 'state' / 'x').exists()
  return newest


def save_state(path, step, content='once'):
  """Writes files as a run does when an epoch has ended: two states of each kind are kept."""
  for kind in ('best', 'last'):
    for old in (path / 'checkpoints' / kind).glob('*'):
      if int(old.name) < step - 1:
        for file in sorted(old.rglob('*'), reverse=True):
          file.rmdir() if file.is_dir() else file.unlink()
        old.rmdir()
    folder = path / 'checkpoints' / kind / str(step)
    (folder / 'state').mkdir(parents=True, exist_ok=True)
    (folder / 'state' / 'x').write_text(content)
    (folder / 'meta').write_text(content)
    (folder / copies.MARK).write_text('{}')
  with (path / 'metrics.jsonl').open('a') as file:
    file.write(f'{step}\n')


@pytest.mark.parametrize(
  'step, content, before, after',
  [
    (4, 'once', (3, 'once'), [(3, 'once'), (4, 'once')]),
    # The newest state is written anew; while it is, the one before it counts.
    (3, 'again', (3, 'once'), [(3, 'once'), (2, 'once'), (3, 'again')]),
  ],
)
def test_a_kill_at_any_request_leaves_a_run(
  server, address, monkeypatch, step, content, before, after
):
  """After each number of requests of a publication, none gets through: that is what a kill leaves.

  What is then on the bucket is a run: each of its states is whole, and the best state that the
  newest one names is there. The next publication removes the rest.
  """
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  for number in itertools.count():
    folder = f'{address}/{number}'
    copy = copies.RunCopy(folder)
    (copy.path / 'versions.json').write_text('{}')
    (copy.path / 'config.json').write_text('{}')
    for old in (1, 2, 3):
      save_state(copy.path, old)
    copy.publish()
    assert state_of(copies.RunCopy(folder).fetch()) == before
    save_state(copy.path, step, content)
    left, killed = iter(range(number)), False
    with server.faults(lambda *_, left=left: '403' if next(left, None) is None else None):
      try:
        copy.publish()
      except InputError:
        killed = True
    again = copies.RunCopy(folder)
    assert state_of(again.fetch()) in (after if killed else after[-1:])
    found = tree(again.path)
    again.publish()
    assert get(folder) == found
    if not killed:
      break
  assert number > 8


def test_a_new_run_killed_at_any_request_can_begin(server, address, monkeypatch):
  """config.json is there only after versions.json, and anything else only after both."""
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  copy = copies.RunCopy(address)
  for name in ('a', 'config.json', 'train.log', 'versions.json'):
    (copy.path / name).write_text(name)
  before = len(server.requests)
  copy.publish()
  names = [path.partition('name=')[2].rpartition('/')[2] for _, path, _ in server.requests[before:]]
  assert names[:2] == ['versions.json', 'config.json'] and len(names) == 4


def test_what_is_not_needed_stays(address):
  """A copy without the arrays of the newest state does not remove them from the bucket."""
  run = copies.RunCopy(address)
  save_state(run.path, 1)
  run.publish()
  before = get(address)
  with copies.evaluated(address) as path:
    assert not (path / 'checkpoints/last/1/state').exists()
    assert (path / 'checkpoints/best/1/state/x').read_text() == 'once'
    (path / 'results.json').write_text('{}')
  assert get(address) == before | {'results.json': b'{}'}
  settings = copies.here(address, copies.SettingsCopy)
  assert not (settings / 'checkpoints/best/1/state').exists()


# The lock.


def age(address, seconds):
  """Makes the sign of life of an owner older."""
  bucket, name = files.Bucket(address), f'/{files.locks.LOCK}'
  found = json.loads(bucket.read(name)[0])
  found['time'] -= seconds
  bucket.write(name, json.dumps(found).encode())


@pytest.fixture
def quick_beats(monkeypatch):
  monkeypatch.setattr(bucket_lock, 'BEAT', 0.2)


@pytest.mark.usefixtures('quick_beats')
def test_one_owner_at_a_time(address):
  bucket = files.Bucket(address)
  first = files.Lock(bucket)
  message = refusal(files.Lock, bucket)
  assert message.startswith(f'{address}: process ') and 'is training there' in message
  first.check()
  first.release()
  assert bucket.names() == []
  files.Lock(bucket).release()


@pytest.mark.usefixtures('quick_beats')
def test_many_at_once(address):
  """Of many that come at the same moment one gets the lock."""
  found = []

  def come():
    try:
      found.append(files.Lock(files.Bucket(address)))
    except InputError as error:
      found.append(error)

  threads = [threading.Thread(target=come) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  (lock,) = (one for one in found if isinstance(one, files.Lock))
  assert len(found) == 8
  lock.release()


def test_an_owner_that_has_died(address):
  """The next one takes its place after STALE seconds, and not before.

  If the first one has only stood still, it writes nothing any more.
  """
  copy = copies.RunCopy(address)
  copy.lock = files.Lock(copy.bucket)
  (copy.path / 'x').write_text('the first')
  copy.publish()
  age(address, bucket_lock.STALE - 6)
  begin = time.monotonic()
  second = files.Lock(copy.bucket)
  assert time.monotonic() - begin > 1
  copy.lock.renewed -= bucket_lock.STALE + 30  # as long as the object says
  (copy.path / 'x').write_text('the first, again')
  assert 'another process has begun training there' in refusal(copy.publish)
  assert get(address)['x'] == b'the first'
  copy.lock.release()
  second.check()  # it is still the owner
  second.release()
  assert copy.bucket.names() == ['/x']


def test_what_the_owner_is_writing_is_left_to_it(address):
  """An evaluation beside a training removes no checkpoint whose last object is still on its way."""
  bucket = files.Bucket(address)
  for name in ('config.json', 'checkpoints/best/2/state/d', 'checkpoints/best/2/meta/m'):
    bucket.write(f'/{name}', b'{}')
  with copies.evaluated(address) as path:
    bucket.write('/checkpoints/best/2/_CHECKPOINT_METADATA', b'{}')  # the owner goes on
    (path / 'results_validation.json').write_text('{}')
  assert get(address).keys() == {
    'config.json',
    'results_validation.json',
    *(f'checkpoints/best/2/{name}' for name in ('state/d', 'meta/m', '_CHECKPOINT_METADATA')),
  }


def test_an_owner_that_stands_still_while_it_writes(server, address, monkeypatch):
  """When it goes on, and another has begun, it writes none of what is left."""
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  copy = copies.RunCopy(address)
  copy.lock = files.Lock(copy.bucket)
  (copy.path / 'versions.json').write_text('{}')
  (copy.path / 'config.json').write_text('{}')
  save_state(copy.path, 1)
  others = []

  def stand_still(method, path):
    if method == 'POST' and '/config.json' in path and not others:
      others.append(None)
      age(address, bucket_lock.STALE + 30)
      copy.lock.renewed -= bucket_lock.STALE + 30
      others.append(files.Lock(copy.bucket))

  with server.faults(stand_still):
    assert 'another process has begun' in refusal(copy.publish)
  assert get(address).keys() == {'versions.json', 'config.json', files.locks.LOCK}
  others[1].release()


def test_what_others_write_meanwhile(server, address):
  """The owner replaces what a program without a lock writes, and never what the next owner does."""
  copy = copies.RunCopy(address)
  copy.lock = files.Lock(copy.bucket)
  (copy.path / 'x').write_text('first')
  copy.publish()
  copy.bucket.write('/x', b'of an evaluation')
  (copy.path / 'x').write_text('second')
  copy.publish()
  assert get(address)['x'] == b'second'
  others = []

  def stand_still(method, path):
    if method == 'POST' and '/x&' in path and not others:
      others.append(None)
      age(address, bucket_lock.STALE + 30)
      copy.lock.renewed -= bucket_lock.STALE + 30
      others.append(files.Lock(copy.bucket))
      copy.bucket.write('/x', b'of the next owner')

  (copy.path / 'x').write_text('the third')
  with server.faults(stand_still):
    assert 'another process has begun' in refusal(copy.publish)
  assert get(address)['x'] == b'of the next owner'
  others[1].release()


def test_the_signs_of_life(address, monkeypatch):
  monkeypatch.setattr(bucket_lock, 'BEAT', 0.01)
  bucket = files.Bucket(address)
  lock = files.Lock(bucket)
  times, deadline = set(), time.monotonic() + 60
  while len(times) < 3 and time.monotonic() < deadline:
    times.add(json.loads(bucket.read(lock.name)[0])['time'])
  lock.release()
  assert len(times) == 3


@pytest.mark.parametrize(
  'content', [b'', b'[]', b'{"owner": 1}', b'\xff', b'{"owner": "a", "time": []}']
)
def test_a_lock_that_is_none(address, content):
  bucket = files.Bucket(address)
  bucket.write(f'/{files.locks.LOCK}', content)
  assert 'is not of avjax; remove it' in refusal(files.Lock, bucket)


@pytest.mark.usefixtures('quick_beats')
def test_a_second_trainer_is_refused(address, records):
  """It ends with one line that names the owner, and nothing is written."""
  lock = files.Lock(files.Bucket(address))
  before = get(address)
  done = call(*flags(address, records))
  lock.release()
  waiting, refused = done.stderr.splitlines()
  assert done.returncode == 2 and waiting.startswith(f'{address}: process ')
  assert refused.startswith(f'error: {address}: process ') and 'is training there' in refused
  assert set(before) == {files.locks.LOCK} and get(address) == {}


def test_what_a_run_refuses_is_not_written(address, records):
  done = call(*flags(address, records, '--config.batch_size=0'))
  assert done.returncode == 2 and done.stderr.count('\n') == 1
  assert get(address) == {}


# Faults between here and there.


@pytest.mark.parametrize('fault', FAULTS)
def test_faults_that_pass(server, address, monkeypatch, fault):
  """Each request fails twice; the copy, the publication and the lock are as without."""
  trying(monkeypatch, 8)
  with server.faults(at_first(fault, 2)):
    copy = copies.RunCopy(address)
    copy.lock = files.Lock(copy.bucket)
    copy.fetch()
    for name in ('a', 'b'):
      (copy.path / name).write_text(name * 1000)
    copy.publish()
    found = copies.RunCopy(address).fetch()
    copy.lock.release()
  assert tree(found) == tree(copy.path) and len(tree(found)) == 2
  assert get(address) == tree(found)


@pytest.mark.parametrize('fault', ['500', '503', 'cut', '403', '401', '404'])
def test_faults_that_stay(server, address, monkeypatch, fault):
  """Each ends in one line that begins with the address; what was there is there.

  Only of those that may pass by themselves it says so.
  """
  kind = InputError if fault.startswith('40') else PassingError
  trying(monkeypatch, 1)
  bucket = files.Bucket(address)
  bucket.write('/a', b'before')
  copy = copies.RunCopy(address)
  copy.fetch()
  (copy.path / 'a').write_text('after')
  with server.faults(lambda method, path: fault):
    assert refusal(copy.publish, kind=kind).startswith(f'{address}/a: ')
    assert refusal(copies.RunCopy(address).fetch, kind=kind).startswith(address)
    message = refusal(files.Lock, bucket, kind=kind)
    assert message.startswith(f'{address}/{files.locks.LOCK}: ')
  assert bucket.read('/a')[0] == b'before'
  copy.publish()
  assert bucket.read('/a')[0] == b'after'


def test_a_folder_that_may_not_be_listed(server, address, records):
  """TensorStore calls it empty. A run in it is neither begun anew nor overwritten."""
  run = copies.RunCopy(address)
  save_state(run.path, 1)
  run.publish()
  before = get(address)
  with server.faults(lambda method, path: '403' if '/o?startOffset' in path else None):
    done = call(*flags(address, records))
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert done.stderr.startswith(f'error: {address} holds nothing, or may not be listed')
    refusal(copies.here, address)
    with pytest.raises(InputError), files.new_folder(address, last='metrics.jsonl'):
      pytest.fail('it is refused before')
  assert get(address) == before


def test_a_run_that_cannot_be_copied_whole_is_left_alone(server, address, records):
  """What has not come is not taken for what the run has removed."""
  run = copies.RunCopy(address)
  for step in (1, 2):
    save_state(run.path, step)
  run.publish()
  before = get(address)
  with server.faults(lambda method, path: '403' if 'last/2/meta?alt' in path else None):
    done = call(*flags(address, records))
  assert done.returncode == 2 and done.stderr.startswith(
    f'error: {address}/checkpoints/last/2/meta'
  )
  assert get(address) == before


def test_of_many_values_few_wait(monkeypatch):
  """Each is called once, and after an error no more are."""
  monkeypatch.setattr(buckets, 'AT_ONCE', 3)
  taken, done = [], []

  class Values(list):
    def __iter__(self):
      for value in super().__iter__():
        taken.append(value)
        assert len(taken) - len(done) <= 6
        yield value

  files.at_once(done.append, Values(range(100)), 'counting')
  assert sorted(done) == taken == [*range(100)]
  files.at_once(done.append, [], 'counting none')
  done.clear()

  def meet(value):
    done.append(value)
    if value == 10:
      raise InputError('the tenth')

  assert refusal(files.at_once, meet, range(100), 'counting') == 'the tenth'
  assert 11 <= len(done) < 30


def test_no_server(address, monkeypatch, records):
  """The exit status is that of what may pass: clusters start the same command again."""
  trying(monkeypatch, 1)
  monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', 'http://127.0.0.1:9')
  message = refusal(lambda: copies.RunCopy(address).fetch(), kind=PassingError)
  assert 'see to the network' in message
  done = call(*flags(address, records))
  assert done.returncode == 75 and done.stderr.startswith(f'error: {address}')
  assert done.stderr.count('\n') == 1 and 'ABORTED: All 1 retry attempts failed' in done.stderr


# Records and weights.


def all_batches(data_dir):
  found = dataset.Records(data_dir, LAYOUT)
  splits = [*found.manifest['chunks']]
  return [*found.batches(splits, 4, seed=1), *found.batches(splits, 4)]


def test_records_on_a_bucket(server, address, records, tmp_path):
  """They are the same as here, in the same order, and copied once."""
  put(records, address)
  found = all_batches(address)
  for one, other in zip(found, all_batches(records), strict=True):
    for name in other:
      np.testing.assert_array_equal(one[name], other[name])
  before = len(server.requests)
  all_batches(f'{address}/affwild2/1.0.0/')
  assert not [path for _, path, _ in server.requests[before:] if '.tfrecord-' in path]
  (folder,) = (tmp_path / 'cache' / 'avjax' / 'records').iterdir()
  shard = sorted(folder.glob('*.tfrecord*'))[0]
  whole = shard.read_bytes()
  shard.write_bytes(whole[:-1])  # it is copied again
  all_batches(address)
  assert shard.read_bytes() == whole


def test_only_the_splits_that_are_read_are_copied(address, records, tmp_path):
  put(records, address)
  found = dataset.Records(address, LAYOUT)
  [*found.batches([found.fold(0)[1]], 4)]
  copied = {path.name for path in (tmp_path / 'cache').rglob('*.tfrecord*')}
  assert copied == {name for name in found.manifest['shards'] if 'chunk5' in name}


@pytest.mark.parametrize('what', ['no records', 'no shard', 'damaged shard', 'damaged manifest'])
def test_records_that_are_not_whole(address, records, tmp_path, what):
  if what != 'no records':
    put(records, address)
  bucket = files.Bucket(f'{address}/affwild2/1.0.0')
  name = next((name for name in bucket.names() if '.tfrecord' in name), '')
  if what == 'no shard':
    bucket.write(name, None)
  elif what == 'damaged shard':
    content = bytearray(bucket.read(name)[0])
    content[len(content) // 2] ^= 1
    bucket.write(name, bytes(content))
  elif what == 'damaged manifest':
    bucket.write('/manifest.json', b'{')
  message = refusal(all_batches, address)
  assert {
    'no records': f'{address} holds no finished records',
    'no shard': f'shard {bucket.address}{name} is missing',
    'damaged shard': f'{bucket.address}{name} is damaged',
    'damaged manifest': f'{bucket.address}/manifest.json is damaged',
  }[what] in message
  assert what == 'no records' or message.endswith(f'; {manifest.REMEDY}')
  assert not name or not [*tmp_path.rglob(name[1:])]  # what is damaged is not kept


def test_weights_on_a_bucket(address):
  arrays = {'params/x': np.arange(6.0).reshape(2, 3)}
  file = f'{address}/weights.safetensors'
  weight_files.save(file, arrays, {'architecture': 'x'})
  found, metadata = weight_files.load(file)
  np.testing.assert_array_equal(found['params/x'], arrays['params/x'])
  assert metadata == {'architecture': 'x'}
  before = get(address)
  assert 'exists; it is not overwritten' in refusal(weight_files.save, file, {}, {})
  assert get(address) == before
  with pytest.raises(InputError), files.new_file(f'{address}/another') as local:
    local.write_bytes(b'mine')
    files.Bucket(f'{address}/another').write('', b'theirs, meanwhile')
  assert get(address)['another'] == b'theirs, meanwhile'
  content = bytearray(before['weights.safetensors'])
  content[-1] ^= 1
  files.Bucket(file).write('', bytes(content))
  assert refusal(weight_files.load, file).startswith(f'{file} is damaged')
  assert refusal(weight_files.load, f'{address}/none') == f'{address}/none does not exist'


def test_a_checkpoint_of_tensorflow_has_several_files(address):
  for name in ('x.index', 'x.data-00000-of-00001', 'x.txt', 'xy.index'):
    files.Bucket(address).write(f'/{name}', name.encode())
  copy = pathlib.Path(files.copy_of_file(f'{address}/x'))
  assert tree(copy.parent) == {name: name.encode() for name in ('x.index', 'x.data-00000-of-00001')}


def test_a_new_folder_is_whole_or_not_there(server, address, monkeypatch):
  """The file by which a reader knows it comes last; nothing is overwritten."""
  monkeypatch.setattr(buckets, 'AT_ONCE', 1)
  before = len(server.requests)
  with files.new_folder(address, last='b') as folder:
    for name in 'abc':
      (folder / name).write_text(name)
  sent = [path[-1] for method, path, _ in server.requests[before:] if method == 'POST']
  assert sent[-1] == 'b' and sorted(sent) == ['a', 'b', 'c']

  def write_again():
    with files.new_folder(address, last='b'):
      pytest.fail('it is refused before')

  assert 'exists; it is not overwritten' in refusal(write_again)
