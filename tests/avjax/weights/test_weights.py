"""Files of weights: others' as they are published, and ours."""

import hashlib
import json
import pathlib
import random
import sys

import numpy as np
import pytest
import safetensors.numpy

from avjax.errors import InputError
from avjax.weights import files as weight_files


def test_a_file_that_is_not_what_its_name_says(tmp_path):
  path = tmp_path / 'vggish-10086976.pth'
  path.write_bytes(b'PK not the file that these digits are of')
  with pytest.raises(InputError, match='does not begin with the 10086976 of its name.* rename it'):
    weight_files.read_published(path)
  saved = tmp_path / 'x.safetensors'
  safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, saved)
  for name, digits in (
    ('resnet50-0676ba61.pth', True),
    ('model_state_dict-20240131.pth', False),
    ('resnet50.pth', False),
  ):
    (tmp_path / name).write_bytes(saved.read_bytes())
    if digits:
      with pytest.raises(InputError, match='0676ba61'):
        weight_files.read_published(tmp_path / name)
    else:
      assert weight_files.read_published(tmp_path / name).keys() == {'a'}


def test_what_lies_beside_a_file_does_not_matter(tmp_path):
  path = tmp_path / 'weights.safetensors'
  safetensors.numpy.save_file({'a': np.zeros(2, np.float32)}, path)
  (tmp_path / 'weights.safetensors.index').write_bytes(b'of something else')
  assert weight_files.read_published(path).keys() == {'a'}
  assert weight_files.sha256_of_source(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_without_torch_the_way_to_it_is_said(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'torch', None)
  (tmp_path / 'weights.pth').write_bytes(b'PK\3\4 whatever')
  with pytest.raises(InputError, match=r'needs torch, pip install .*\[convert\]'):
    weight_files.read_published(tmp_path / 'weights.pth')


# Files of ours.


@pytest.fixture
def saved(tmp_path):
  path = tmp_path / 'saved.safetensors'
  arrays = {
    'params/a/kernel': np.arange(6, dtype=np.float32).reshape(2, 3),
    'batch_stats/a/mean': np.ones(40, np.float32),
  }
  weight_files.save(
    path, arrays, {'architecture': 'ir50', 'source': 'x.pth', 'source_sha256': 'f' * 64}
  )
  return path, arrays


def test_save_and_load(saved):
  path, arrays = saved
  loaded, metadata = weight_files.load(path)
  assert metadata == {'architecture': 'ir50', 'source': 'x.pth', 'source_sha256': 'f' * 64}
  assert loaded.keys() == arrays.keys() and all(
    (loaded[name] == x).all() for name, x in arrays.items()
  )
  assert safetensors.numpy.load_file(path).keys() == arrays.keys()  # and anyone else can read it
  with pytest.raises(InputError, match='not overwritten'):
    weight_files.save(path, arrays, {})
  assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_leaves_nothing(saved, monkeypatch):
  """Nor is anything of the user's in its way taken for our own."""
  path, arrays = saved
  mine = path.with_name('other.safetensors.partial')
  mine.write_text('mine')
  weight_files.save(path.with_name('other.safetensors'), arrays, {})
  assert mine.read_text() == 'mine'
  before = {entry.name for entry in path.parent.iterdir()}

  def full(*_):
    raise OSError(28, 'No space left on device')

  with monkeypatch.context() as patched:
    patched.setattr(pathlib.Path, 'write_bytes', full)
    with pytest.raises(InputError, match='No space left'):
      weight_files.save(path.parent / 'deeper' / 'x.safetensors', arrays, {})
  with pytest.raises(InputError, match='unprintable'):
    weight_files.save(
      path.parent / 'deeper' / 'x.safetensors', arrays, {'source': 'x.pth\nall is well'}
    )
  with pytest.raises(InputError, match='cannot be written: File exists'):
    weight_files.save(path / 'x.safetensors', arrays, {})
  assert {entry.name for entry in path.parent.iterdir()} == before


def test_hostile_safetensors(saved, tmp_path):
  """200 damaged files: flipped, cut, grown; and headers that lie. Each is refused in one line."""
  path, _ = saved
  data, rng, bad = path.read_bytes(), random.Random(0), tmp_path / 'bad.safetensors'
  header = json.loads(data[8 : 8 + int.from_bytes(data[:8], 'little')])
  payload = data[8 + int.from_bytes(data[:8], 'little') :]

  def with_header(change):
    text = json.dumps(change(json.loads(json.dumps(header)))).encode()
    return len(text).to_bytes(8, 'little') + text + payload

  def overlap(h):
    h['params/a/kernel']['data_offsets'] = h['batch_stats/a/mean']['data_offsets']
    return h

  damaged = []
  for _ in range(100):
    flipped = bytearray(data)
    flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    damaged.append(bytes(flipped))
  damaged += [data[: rng.randrange(len(data))] for _ in range(50)]
  damaged += [
    data[:i] + rng.randbytes(rng.randint(1, 9)) + data[i:]
    for i in (rng.randrange(len(data)) for _ in range(44))
  ]
  damaged += [
    with_header(overlap),
    with_header(lambda h: {k: v for k, v in h.items() if k != '__metadata__'}),
    with_header(lambda h: h | {'params/a/kernel': 3}),
    (1 << 60).to_bytes(8, 'little') + data[8:],
    (100 << 20).to_bytes(8, 'little') + data[8:],
    b'[' * 10_000,
  ]
  assert len(damaged) == 200
  for content in damaged:
    bad.write_bytes(content)
    with pytest.raises(InputError) as refused:
      weight_files.load(bad)
    assert str(bad) in str(refused.value) and '\n' not in str(refused.value)
