"""Tests what the folder of a data set can do to a person who makes records of it."""

import os

import numpy as np
import pytest
from official_set import ANNOTATIONS, SIZES

from avjax.errors import InputError
from data_prep import build, features

pytestmark = pytest.mark.attack('sources of records: crops, lists, features')

LIST = (
  'test_set/names_of_videos_in_each_test_set/'
  'Valence_Arousal_Estimation_Challenge_test_set_release.txt'
)
PIPES = (
  'batch1/102.avi',
  f'{ANNOTATIONS}/Train_Set/102.txt',
  'cropped_aligned/102/00005.jpg',
  'unreadable.txt',
  LIST,
)
PIPE = 'is a named pipe or a device; give a regular file'


def make(source, data_dir, *options):
  return build.main(
    ['--source', str(source), '--data_dir', str(data_dir), '--workers', '1', *SIZES, *options]
  )


@pytest.mark.parametrize('name', PIPES)
def test_a_pipe_where_a_file_is_expected(broken, tmp_path, name):
  path = broken / name
  path.unlink(missing_ok=True)
  os.mkfifo(path)
  with pytest.raises(InputError, match=f'{path.name} {PIPE}'):
    make(broken, tmp_path / 'records')
  assert not (tmp_path / 'records/affwild2').exists()


def test_pipes_in_the_folder_of_the_records(official, built, tmp_path):
  folder = tmp_path / 'records'
  (folder / 'affwild2').mkdir(parents=True)
  os.mkfifo(folder / 'affwild2/source.json')
  with pytest.raises(InputError, match=f'source.json {PIPE}; remove'):
    make(official, folder)


def test_a_clip_whose_name_is_no_name(broken, tmp_path):
  for name in ('=1+1', 'a\x1b[31m', '-rf'):
    for path in list(broken.rglob('102*')):
      path.rename(path.with_name(path.name.replace('102', name)))
    with pytest.raises(InputError, match='a clip of the data set: .* cannot be a name: it takes'):
      make(broken, tmp_path / 'records')
    for path in list(broken.rglob(f'{name}*')):
      path.rename(path.with_name(path.name.replace(name, '102')))
  assert not (tmp_path / 'records').exists()


def test_a_test_list_that_names_other_folders(broken, tmp_path):
  path = broken / LIST
  path.write_text('../../../etc/..\n')
  with pytest.raises(InputError, match=r'1 clip has no video: \.\.; looked in'):
    make(broken, tmp_path / 'records')


def test_sizes_that_no_machine_should_be_asked_for(official, tmp_path):
  for options, words in (
    (['--face', '200000'], 'the layout of the records.face is out of range: .* from 1 to 1024'),
    (['--length', '4096', '--face', '1024'], 'the layout of the records is too large'),
  ):
    with pytest.raises(InputError, match=words):
      make(official, tmp_path / 'records', *options)
  features = tmp_path / 'features'
  features.mkdir()
  for clip in ('102', '103', '104', '1035', 'video7', '200', '300'):
    np.save(features / f'{clip}.npy', np.zeros((1, 65537), np.float16))
  for clip in ('10-25-64x48_left', '10-25-64x48_right'):
    np.save(features / f'{clip}.npy', np.zeros((1, 65537), np.float16))
  with pytest.raises(InputError, match='the layout of the records.features.wide is out of range'):
    make(official, tmp_path / 'records', '--features', f'wide={features}')
  assert not (tmp_path / 'records').exists()


@pytest.mark.parametrize(
  'header',
  [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1180591620717411303424, 4)}",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True, True)}",
    '{(',  # NumPy's parser raises TokenError
    '-' * 9000 + '1',  # and Python's a MemoryError
    '{[]: 1}',
  ],
)
def test_a_header_of_features_that_no_table_has(tmp_path, header):
  path = tmp_path / '102.npy'
  head = header.encode() + b'\n'
  path.write_bytes(b'\x93NUMPY\x01\x00' + len(head).to_bytes(2, 'little') + head + bytes(64))
  with pytest.raises(InputError, match='102.npy cannot be read as a .npy file: '):
    features.open_rows(path)


def test_a_build_writes_nothing_through_a_link(official, tmp_path):
  (tmp_path / 'outside').mkdir()
  for name in ('affwild2', 'affwild2.incomplete'):
    data_dir = tmp_path / f'in {name}'
    data_dir.mkdir()
    (data_dir / name).symlink_to(tmp_path / 'outside')
    with pytest.raises(InputError, match=f'{name}.* leads out of .* by a link'):
      make(official, data_dir)
  assert not list((tmp_path / 'outside').iterdir())
