"""Tests that folds come from the manifest, and that a damaged shard is named."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from avjax.data import manifest
from avjax.data.dataset import Records
from avjax.data.splits import fold_chunks
from avjax.data.tfrecords import find_records, read_windows
from avjax.errors import InputError

LAYOUT = {'length': 12, 'stride': 8, 'face': 16}


@pytest.mark.slow
def test_folds_are_those_of_the_manifest(records, tmp_path):
  """The manifest may have the six official splits, or others."""
  data = Records(records, LAYOUT)
  assert [data.fold(k) for k in range(6)] == [fold_chunks(k) for k in range(6)]
  with pytest.raises(InputError, match='fold 6 does not exist: folds are 0 to 5'):
    data.fold(6)
  copy = shutil.copytree(records, tmp_path / 'records')
  path = manifest.version_folder(copy) / manifest.MANIFEST
  made = json.loads(path.read_text())
  made['chunks'] = {name: made['chunks'][name] for name in ('chunk0', 'chunk2', 'chunk4', 'test')}
  name = 'affwild2-chunk5.tfrecord-00000-of-00001'
  del made['shards'][name]
  (path.parent / name).unlink()
  path.write_text(json.dumps(made))
  data = Records(copy, LAYOUT)
  assert [data.fold(k) for k in range(3)] == [
    (('chunk0', 'chunk2'), 'chunk4'),
    (('chunk0', 'chunk4'), 'chunk2'),
    (('chunk2', 'chunk4'), 'chunk0'),
  ]
  with pytest.raises(InputError, match='folds are 0 to 2'):
    data.fold(3)


def test_a_damaged_shard_is_named_when_it_is_read(records, tmp_path):
  copy = shutil.copytree(records, tmp_path / 'records')
  data = Records(copy, LAYOUT)
  shard = manifest.version_folder(copy) / 'affwild2-chunk2.tfrecord-00000-of-00001'
  content = bytearray(shard.read_bytes())
  content[len(content) // 2] ^= 1
  shard.write_bytes(content)
  splits, _ = data.fold(0)
  for seed in (None, 0):
    with pytest.raises(InputError, match=r'chunk2.*is damaged; copy it again'):
      list(data.batches(splits, 2, seed))
  assert sum(len(batch['window']) for batch in data.batches(['chunk0'], 2)) == data.size(['chunk0'])


def test_a_seed_is_an_order(records):
  data = Records(records, LAYOUT)
  splits, _ = data.fold(0)

  def order(seed, skip=0):
    batches = list(data.batches(splits, 2, seed, skip))
    return [
      (clip, int(window))
      for batch in batches
      for clip, window in zip(batch['clip'], batch['window'], strict=True)
    ]

  assert order(1) == order(1) != order(2)
  assert order(1)[4:] == order(1, skip=2)
  # A run that is stopped in validation has all batches of its epoch behind it.
  assert order(1, skip=1000) == order(None, skip=1000) == []
  assert sorted(order(1)) == sorted(order(None)) and len(order(1)) == data.size(splits)
  # Without a seed, clip after clip and window after window, which is not the order of the files.
  assert order(None) == sorted(order(1)) and order(None, skip=2) == order(None)[4:]
  shards = [name for name in data.manifest['shards'] if manifest.split_of(name) in splits]
  paths = sorted(data.folder / name for name in shards)
  places = [(path, begin) for path in paths for begin in find_records(path, 1 << 20)]
  stored = read_windows(places)
  assert sorted(stored) == order(None) != stored
  assert (
    np.unique([batch['log_mel'].shape[1] for batch in data.batches(splits, 2)])
    == data.manifest['max_rows']
  )


@pytest.mark.parametrize('processes', [1, 2, 4, 8])
def test_processes_read_the_rows_of_a_batch_between_them(records, processes):
  data = Records(records, LAYOUT)
  splits, _ = data.fold(0)
  size = data.size(splits)
  batch_size = size // 2 - 1  # the third batch has two records, and most processes none of them
  padded = -(-batch_size // processes) * processes
  parts = np.split(np.arange(padded), processes)
  read = [list(data.batches(splits, batch_size, 3, rows=part.tolist())) for part in parts]
  whole = list(data.batches(splits, batch_size, 3))
  assert [len(batch['clip']) for batch in whole] == [batch_size, batch_size, size % batch_size]
  for batch, own in zip(whole, zip(*read, strict=True), strict=True):
    for part, rows in zip(parts, own, strict=True):
      assert rows.keys() == batch.keys()
      for name, values in rows.items():
        np.testing.assert_array_equal(values, batch[name][part[0] : part[-1] + 1])
        assert values.dtype == batch[name].dtype or name == 'clip'


def test_clips_are_left_out(records):
  """What is left is read in its order, and there are as many batches as with all."""
  data = Records(records, LAYOUT)
  splits, _ = data.fold(0)
  clips = sorted(clip for split in splits for clip in data.manifest['chunks'][split]['clips'])

  def read(**named):
    batches = list(data.batches(splits, 2, **named))
    return len(batches), [
      (clip.decode(), int(window))
      for batch in batches
      for clip, window in zip(batch['clip'], batch['window'], strict=True)
    ]

  count, whole = read()
  for without in (clips[::2], clips[1::2], clips):
    assert read(without=without) == (count, [row for row in whole if row[0] not in without])
  with pytest.raises(ValueError, match='one is read after another'):
    read(seed=0, without=clips)


def test_what_is_no_clip_is_read_by_all(records, tmp_path):
  """A record of a clip that the manifest does not have is in nobody's share, and is refused."""
  copy = shutil.copytree(records, tmp_path / 'records')
  path = manifest.version_folder(copy) / manifest.MANIFEST
  made = json.loads(path.read_text())
  chunk = made['chunks']['chunk5']
  chunk['clips'] = {'another': 1, 'other': 1}
  path.write_text(json.dumps(made))
  for without in (['another'], ['other']):
    with pytest.raises(InputError, match="record of '200', which is not a clip of its split"):
      list(Records(copy, LAYOUT).batches(['chunk5'], 2, without=without))


@pytest.mark.parametrize(
  'change, words',
  [
    (
      lambda text: text[:100],
      'manifest.json is damaged: .*; copy it again, or build the records again',
    ),
    (lambda text: '[]', 'manifest.json is damaged: it is not a JSON object; copy it again'),
    (
      lambda text: text.replace('"chunks"', '"chunk"'),
      'manifest.json is damaged: it lacks .chunks.; copy it again',
    ),
  ],
)
def test_a_damaged_manifest_says_what_to_do(records, tmp_path, change, words):
  copy = shutil.copytree(records, tmp_path / 'records')
  path = manifest.version_folder(copy) / manifest.MANIFEST
  path.write_text(change(path.read_text()))
  with pytest.raises(InputError, match=words):
    manifest.read_manifest(copy)


def test_evaluation_away_from_the_records_names_its_option(tmp_path, monkeypatch):
  """The old run was trained on --config.data.dir=records, relative to another folder."""
  from avjax.evaluation.results import evaluate_run

  run = pathlib.Path(__file__).parents[2] / 'data/made_by_656e7a9/run'
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    InputError,
    match='^records holds no finished records, seen from this folder; name their folder with '
    '--data_dir, or make them: ',
  ):
    evaluate_run(run, 'validation')


def part(number, content):
  """Returns a field of a protobuf message that has a length, below 128."""
  return bytes([number << 3 | 2, len(content)]) + content


def test_clip_and_window_of_what_is_no_record(tmp_path):
  """Whatever the bytes of a record are, its clip and window are found, or it has none."""
  clip = part(1, b'clip') + part(2, part(1, part(1, b'x_left')))
  window = part(1, b'window') + part(2, part(3, part(1, b'\xac\x02')))  # 300
  other = part(1, b'faces') + part(2, part(1, part(1, bytes(50))))
  example = part(1, part(1, clip) + part(1, other) + part(1, window))
  assert example.count(b'x_left') == 1 and len(example) < 128
  rng, path, found = np.random.default_rng(0), tmp_path / 'shard', []
  for case in range(300):
    changed = bytearray(example[: len(example) - case % 3])
    for at in rng.integers(0, len(changed), min(case, 3)):
      changed[at] = rng.integers(256)
    if case % 50 == 49:  # a length beyond all files
      changed[1:2] = b'\xff' * 9 + b'\x01'
    path.write_bytes(len(changed).to_bytes(8, 'little') + bytes(4) + changed + bytes(4))
    assert find_records(path, 200) == [0]
    found += read_windows([(path, 0)])
  assert found[0] == (b'x_left', 300)
  assert 20 < found.count((b'', 0)) < 280
