"""Tests what the records of a stranger can do to a person who opens them: nothing but one line."""

import json
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
from hostile_records import copy_records, edit_manifest, edit_records, masked_crc, set_array, sign

from avjax.data.dataset import Records
from avjax.data.names import check_name
from avjax.data.records import check_layout
from avjax.errors import InputError
from avjax.evaluation import protocol
from avjax.evaluation.results import evaluate_run
from data_prep import verify

pytestmark = pytest.mark.attack('records')

OLD = pathlib.Path(__file__).parents[2] / 'data' / 'made_by_656e7a9'
LAYOUT = {'length': 12, 'stride': 8, 'face': 16}
SHARD = 'affwild2-chunk5.tfrecord-00000-of-00001'
# Names that lead elsewhere, that a terminal or a table obeys, or that no file system takes.
BAD_NAMES = [
  '/tmp/x',
  '../x',
  '..',
  '.',
  '.hidden',
  '',
  'a/b',
  'a\\b',
  'C:x',
  'a\0b',
  'a\nb',
  'a\x1b[31m',
  'a\u202eb',
  '=1+1',
  '-rf',
  '@x',
  '~root',
  '<b>',
  'a"b',
  'a$b',
  'a*',
  'a.',
  'a ',
  ' a',
  'a' * 201,
  '\u00e9' * 101,
]
GOOD_NAMES = [
  '122-60-1920x1080-1_left',
  'video7',
  '_x',
  'Zo\u00eb',
  'Zoe\u0308',
  '\u5f20\u4e09 01',
  '\u0939\u093f\u0928\u094d\u0926\u0940',
  'a..b',
  'Tom & Ann (1) [x]',
  'a' * 200,
]


def read(folder):
  """Reads every record, as training and evaluation do."""
  data = Records(folder, LAYOUT)
  return [batch for split in data.manifest['chunks'] for batch in data.batches([split], 2)]


def refused(folder, words):
  """Checks that records are refused in one line, when they are read and when they are verified."""
  for opened in (read, verify.verify):
    with pytest.raises(InputError, match=words) as error:
      opened(folder)
    assert '\n' not in str(error.value) and len(str(error.value)) < 600


def test_no_module_that_a_file_of_the_records_names_is_imported(records, tmp_path, monkeypatch):
  folder, _ = copy_records(records, tmp_path / 'records')
  (tmp_path / 'strangers_module.py').write_text("raise SystemExit('imported')\n")
  monkeypatch.syspath_prepend(tmp_path)
  path = folder / 'features.json'
  text = path.read_text()
  path.write_text(text.replace('tensorflow_datasets.core.features.text', 'strangers_module.text'))
  assert path.read_text() != text
  sign(path)
  assert len(read(folder)) > 0
  with pytest.raises(InputError, match=r'features.json does not describe the records; copy it'):
    verify.verify(folder)
  assert 'strangers_module' not in sys.modules
  for name in ('features.json', 'dataset_info.json'):
    path.with_name(name).write_text('[')
    sign(path.with_name(name))
  assert len(read(folder)) > 0  # avjax reads neither


@pytest.mark.parametrize('name', BAD_NAMES)
def test_names_that_a_file_cannot_safely_have(name):
  with pytest.raises(InputError, match='^here: .* cannot be a name: it takes letters') as error:
    check_name(name, 'here')
  assert str(error.value).isascii() and str(error.value).isprintable()


def test_names_that_honest_sets_have():
  for name in GOOD_NAMES:
    assert check_name(name, 'here') == name


@pytest.mark.parametrize('clip', [b'/tmp/x', b'../../x', b'a/b', b'102', b'\xff', b'', b'200\n'])
def test_a_record_of_no_clip_of_its_split_writes_nothing(tmp_path, clip):
  run = pathlib.Path(shutil.copytree(OLD / 'run', tmp_path / 'run'))
  folder, shard = copy_records(OLD / 'records', tmp_path / 'records')

  def rename(fields, index):
    if index == 1:
      fields['clip'].bytes_list.value[:] = [clip]

  edit_records(shard, rename)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(InputError, match=r'has a record of .* not a clip of its split') as error:
    evaluate_run(run, 'validation', data_dir=folder)
  assert str(error.value).isprintable()
  assert sorted(tmp_path.rglob('*')) == before
  refused(folder, 'has a record of')


def rename_clip(made, name):
  made['chunks']['chunk5']['clips'] = {name: 28}


def rename_split(made, name):
  made['chunks'][name] = made['chunks'].pop('chunk1')


def rename_shard(made, name):
  made['shards'][name] = made['shards'].pop(SHARD)


def rename_metadata(made, name):
  made['metadata'] = {name: '0' * 64}


@pytest.mark.parametrize('rename', [rename_clip, rename_split, rename_shard, rename_metadata])
@pytest.mark.parametrize('name', ['../x', '/etc/passwd', 'a/b', 'a\x1b[31m', '', 'a' * 1000])
def test_a_name_in_the_manifest_that_is_a_path(records, tmp_path, rename, name):
  folder, _ = copy_records(records, tmp_path / 'records')
  edit_manifest(folder, lambda made: rename(made, name))
  refused(folder, r'manifest.json is damaged: .*; copy it again')


def test_a_shard_outside_whose_name_begins_and_ends_well(records, tmp_path):
  folder, _ = copy_records(records, tmp_path / 'records')
  (folder / 'affwild2-x').mkdir()
  name = 'affwild2-x/../../../affwild2-chunk5.tfrecord-00000-of-00001'
  (folder / SHARD).rename(folder / name)
  edit_manifest(folder, lambda made: rename_shard(made, name))
  refused(folder, 'is not a shard of one of its splits')


SIZES = {
  'face': lambda made: made['layout'].update(face=200_000),
  'length': lambda made: made['layout'].update(length=10**9),
  'stride': lambda made: made['layout'].update(stride=0),
  'a fraction': lambda made: made['layout'].update(face=16.5),
  'true': lambda made: made['layout'].update(face=True),
  'face and length': lambda made: made['layout'].update(face=1024, length=4096),
  'features': lambda made: made['layout'].update(features={'clip': 10**9}),
  'another entry': lambda made: made['layout'].update(depth=3),
  'rows': lambda made: made.update(max_rows=10**9),
  'records': lambda made: (
    made['shards'][SHARD].update(records=10**12),
    made['chunks']['chunk5'].update(records=10**12),
  ),
  'records of a split': lambda made: made['chunks']['chunk5'].update(records=4),
  'bytes': lambda made: made['shards'][SHARD].update(bytes=-1),
  'frames': lambda made: made['chunks']['chunk5']['clips'].update({'200': 1e300}),
  'a list': lambda made: made.update(chunks=['chunk5']),
  'a number': lambda made: made.update(shards=5),
  'no SHA-256': lambda made: made['shards'][SHARD].pop('sha256'),
  'a SHA-256 of the description that is none': lambda made: made['metadata'].update(x=1),
  'a list of descriptions': lambda made: made.update(metadata=['x']),
}


@pytest.mark.parametrize('change', SIZES.values(), ids=SIZES)
def test_sizes_in_the_manifest_that_would_take_the_machine(records, tmp_path, change):
  folder, _ = copy_records(records, tmp_path / 'records')
  edit_manifest(folder, change)
  refused(folder, r'manifest.json is damaged: .*; copy it again')


def test_sizes_that_no_records_have():
  check_layout({'length': 300, 'stride': 200, 'face': 48}, 'config.data')
  for wrong, words in (
    (
      {'face': 200_000},
      r'^config.data.face is out of range: it takes whole numbers from 1',
    ),
    ({'length': 4096, 'face': 1024}, 'config.data is too large: a record would take 12,3.. MiB'),
    ({'features': {'clip': 65537}}, 'config.data.features.clip is out of range'),
  ):
    with pytest.raises(InputError, match=words):
      check_layout({**LAYOUT, **wrong}, 'config.data')


def test_a_length_that_no_record_has(records, tmp_path):
  """TensorFlow would take the memory of 2 to the power of 60 bytes, and end the process."""
  folder, shard = copy_records(records, tmp_path / 'records')
  content = shard.read_bytes()
  length = (2**60).to_bytes(8, 'little')
  shard.write_bytes(length + masked_crc(length) + content[12:])
  sign(shard)
  refused(folder, r'chunk5.* is damaged: its record 1 would have 1,152,921,504,606,846,976 bytes')
  shard.write_bytes(content + b'\0' * 7)
  sign(shard)
  refused(folder, r'chunk5.* is damaged: its record 4 would have')


FIELDS = {
  'a face that is too large': lambda f: set_array(f, 'faces', np.zeros(12 * 16 * 16 * 3 + 3, 'u1')),
  'too few frames': lambda f: set_array(f, 'frames', np.ones(3, np.int32)),
  'a frame before the first': lambda f: set_array(f, 'frames', np.full(12, -5, np.int32)),
  'a time that is no number': lambda f: set_array(f, 'times', np.full(12, np.nan, np.float32)),
  'a label out of range': lambda f: set_array(f, 'va', np.full((12, 2), 7, np.float32)),
  'a start beyond the end': lambda f: set_array(f, 'starts', np.full(12, 2**30, np.int32)),
  'sound that is no number': lambda f: set_array(f, 'log_mel', np.full((99, 64), np.nan, 'f2')),
  'more rows than any': lambda f: set_array(f, 'log_mel', np.zeros((9999, 64), np.float16)),
  'a field that is missing': lambda f: f.pop('faces'),
  'a field of another kind': lambda f: f['faces'].int64_list.value.extend([1]),
}


VALUES = [
  # Bits of float16: NaN twice, infinity, -infinity.
  *(('log_mel', np.uint16, bits) for bits in (0x7E01, 0xFE00, 0x7C00, 0xFC00)),
  *((name, np.float32, x) for name in ('times', 'va') for x in (np.nan, np.inf, -np.inf)),
  ('va', np.float32, np.nextafter(np.float32(1), np.float32(2))),
  ('va', np.float32, np.nextafter(np.float32(-1), np.float32(-2))),
  ('frames', np.int32, 0),
  ('starts', np.int32, -1),
  *((name, np.uint8, 2) for name in ('real', 'annotated', 'face_present', 'audio_present')),
]


@pytest.mark.parametrize('name, dtype, value', VALUES)
def test_a_single_value_that_no_record_has(records, tmp_path, name, dtype, value):
  """It is the last of its field; all others are right."""
  folder, shard = copy_records(records, tmp_path / 'records')
  right = {'real': np.ones(12, np.uint8), 'frames': np.arange(1, 13, dtype=np.int32)}

  def change(fields, index):
    if index != 2:
      return
    for field, values in right.items():
      set_array(fields, field, values)
    values = np.frombuffer(fields[name].bytes_list.value[0], dtype).copy()
    values[-1] = value
    set_array(fields, name, values)

  edit_records(shard, change)
  with pytest.raises(InputError, match=f'has a record with {name} that no build writes'):
    list(Records(folder, LAYOUT).batches(['chunk5'], 3))


def test_the_largest_values_that_a_record_has(records, tmp_path):
  folder, shard = copy_records(records, tmp_path / 'records')
  rows = Records(folder, LAYOUT).manifest['max_rows']
  log_mel = np.resize(np.array([65504, -65504, -0.0], np.float16), (rows, 64))
  largest = np.finfo(np.float32).max

  def change(fields, index):
    set_array(fields, 'log_mel', log_mel)
    set_array(fields, 'va', np.resize(np.array([1, -1], np.float32), 24))
    set_array(fields, 'times', np.resize(np.array([largest, -largest], np.float32), 12))
    set_array(fields, 'starts', np.resize(np.array([0, rows - 96], np.int32), 12))

  edit_records(shard, change)
  (batch,) = Records(folder, LAYOUT).batches(['chunk5'], 3)
  np.testing.assert_array_equal(batch['log_mel'], np.stack([log_mel] * 3), strict=True)
  np.testing.assert_array_equal(batch['va'][1, 0], [1, -1])


SIZES_OF_FIELDS = {
  'a part of a row': ('log_mel', lambda longest: longest - 64),
  'a row too many': ('log_mel', lambda longest: longest + 128),
  'half the faces': ('faces', lambda _: 12 * 16 * 16 * 3 // 2),
}


@pytest.mark.parametrize('of_all', [False, True], ids=['one', 'all'])
@pytest.mark.parametrize('name, size', SIZES_OF_FIELDS.values(), ids=SIZES_OF_FIELDS)
def test_a_field_of_another_size(records, tmp_path, name, size, of_all):
  """Nothing of a record is cut, and no two records become one."""
  folder, shard = copy_records(records, tmp_path / 'records')
  longest = 128 * Records(folder, LAYOUT).manifest['max_rows']

  def change(fields, index):
    if index < (2 if of_all else 1):  # of the first batch, of two
      set_array(fields, name, np.zeros(size(longest), np.uint8))

  edit_records(shard, change)
  with pytest.raises(InputError, match='is damaged'):
    list(Records(folder, LAYOUT).batches(['chunk5'], 2))


@pytest.mark.parametrize('change', FIELDS.values(), ids=FIELDS)
def test_values_that_no_record_has(records, tmp_path, change):
  folder, shard = copy_records(records, tmp_path / 'records')
  edit_records(shard, lambda fields, index: change(fields) if index == 2 else None)
  refused(folder, r'is damaged|that no build writes')


def test_a_high_frame_id_takes_no_memory(tmp_path):
  import resource

  run = pathlib.Path(shutil.copytree(OLD / 'run', tmp_path / 'run'))
  folder, shard = copy_records(OLD / 'records', tmp_path / 'records')
  high = np.arange(2**31 - 13, 2**31 - 1, dtype=np.int32)
  edit_records(shard, lambda fields, _: set_array(fields, 'frames', high))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  evaluate_run(run, 'validation', data_dir=folder)
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + (1 << 20)  # KiB: 1 GiB
  rows = (run / 'predictions/validation/200.csv').read_text().splitlines()
  assert len(rows) == 13 and rows[-1].startswith('2147483646,')


@pytest.mark.parametrize('name', [SHARD, 'manifest.json', 'features.json'])
def test_a_link_out_of_the_records_or_a_pipe_in_them(records, tmp_path, name):
  folder, _ = copy_records(records, tmp_path / 'records')
  (folder / name).rename(tmp_path / 'outside')
  (folder / name).symlink_to(tmp_path / 'outside')
  with pytest.raises(InputError, match=f'{name} leads out of .* by a link; put the file'):
    verify.verify(tmp_path / 'records')
  (folder / name).unlink()
  os.mkfifo(folder / name)
  with pytest.raises(
    InputError, match='is not a file|is missing or changed|holds no|is a named pipe'
  ):
    verify.verify(tmp_path / 'records')


def test_links_that_a_person_may_have_made(records, tmp_path):
  """The path that is typed may be a link; one within the folder may lead to another part of it."""
  copy_records(records, tmp_path / 'records')
  (tmp_path / 'link').symlink_to(tmp_path / 'records')
  (tmp_path / 'records/affwild2').rename(tmp_path / 'records/store')
  (tmp_path / 'records/affwild2').symlink_to('store')
  assert verify.verify(tmp_path / 'link').startswith('OK')
  assert verify.verify(tmp_path / 'link/affwild2/1.0.0').startswith('OK')


def test_the_manifest_may_have_any_json(records, tmp_path):
  folder, _ = copy_records(records, tmp_path / 'records')
  for text in (
    '[' * 100_000,
    '{"layout": 1e999}',
    '{}',
    'null',
    '1' * 5000,
    json.dumps('x' * 9999),
  ):
    (folder / 'manifest.json').write_text(text)
    refused(folder, 'manifest.json is damaged')


def test_predictions_of_a_clip_that_no_set_has(tmp_path):
  folder = tmp_path / 'predictions'
  folder.mkdir()
  (folder / '=1+1.csv').write_text('frame,time,valence\n1,0,0.5\n')
  with pytest.raises(InputError, match=r"predictions of a clip: '=1\+1' cannot be a name"):
    protocol.read_predictions(folder, 'valence')
  (folder / '=1+1.csv').rename(folder / '102.csv')
  assert protocol.read_predictions(folder, 'valence') == {'102': {1: 0.5}}
  for text in (
    'frame,time,arousal\n1,0,0.5\n',
    'frame,time,valence\n1\n',
    'frame,time,valence\nx,0,1\n',
  ):
    (folder / '102.csv').write_text(text)
    with pytest.raises(InputError, match=r'102.csv is damaged; .*again: '):
      protocol.read_predictions(folder, 'valence')
