"""Tests that the data set is found as people unpack and copy it: archives within folders of their
own, names in other spellings, byte order marks, and what operating systems leave in folders.
"""

import pathlib
import shutil

import numpy as np
import pytest
from official_set import ANNOTATIONS

from avjax import files
from avjax.errors import InputError
from data_prep import build
from data_prep.sources import SOURCES

RELEASE, VA = ANNOTATIONS.split('/')
LIST = (
  'test_set/names_of_videos_in_each_test_set/'
  'Valence_Arousal_Estimation_Challenge_test_set_release.txt'
)
PARTS = (
  'batch1',
  'new_vids',
  'cropped_aligned',
  'cropped_aligned_new_50_vids',
  'test_set',
  RELEASE,
)
PLAN = {
  'chunk0': ['10-25-64x48_left', '10-25-64x48_right'],
  'chunk1': [],
  'chunk2': ['102', '103'],
  'chunk3': ['1035'],
  'chunk4': ['104', 'video7'],
  'chunk5': ['200'],
  'test': ['300'],
}


def plan(source, *options):
  args = build.parse_args(['--source', str(source), '--data_dir', 'unused', *map(str, options)])
  return SOURCES[args.layout].plan(args)


def names(source, *options):
  return {split: [job.clip.name for job in jobs] for split, jobs in plan(source, *options).items()}


def move(source, old, new):
  """Moves source/old to source/new, which may be within old."""
  (source / old).rename(source / 'moving')
  (source / new).parent.mkdir(parents=True, exist_ok=True)
  (source / 'moving').rename(source / new)


def rename_all(source, folder, ending, new):
  """Gives all files of a folder that have this ending another one."""
  for path in sorted((source / folder).glob(f'*{ending}')):
    path.rename(path.with_suffix(new))


def litter(source):
  """Leaves in every folder, but those of single clips, what macOS, Windows and servers do."""
  for folder in [source, *(path for path in sorted(source.rglob('*')) if path.is_dir())]:
    for name in ('Thumbs.db', 'desktop.ini', '.DS_Store', '._102.mp4', '._102.txt', '._00000.jpg'):
      (folder / name).write_bytes(b'\0\5\x16\7')
    for name in ('__MACOSX', '@eaDir'):
      (folder / name).mkdir()
      (folder / name / '._300.avi').touch()


LAYOUTS = {
  'a folder around a release': [(RELEASE, '3rd ABAW Annotations/Third ABAW Annotations')],
  'two folders around a release': [(RELEASE, 'annotations/annotations/Third ABAW Annotations')],
  'a release with blanks replaced': [(RELEASE, '6th_ABAW_Annotations')],
  'a release without a name': [(ANNOTATIONS, VA)],
  'the release of 2020': [
    (f'{ANNOTATIONS}/Train_Set', f'{ANNOTATIONS}/Training_Set'),
    (ANNOTATIONS, 'annotations/VA_Set'),
  ],
  'sets within sets': [
    (f'{ANNOTATIONS}/{name}', f'{ANNOTATIONS}/{name}/{name}')
    for name in ('Train_Set', 'Validation_Set')
  ],
  'crops within crops': [('cropped_aligned', 'cropped_aligned/cropped_aligned')],
  'crops two folders down': [('cropped_aligned', 'cropped_aligned/x/cropped_aligned')],
  'crops beside crops': [
    ('cropped_aligned', 'cropped_aligned/cropped_aligned'),
    ('cropped_aligned_new_50_vids', 'cropped_aligned/cropped_aligned_new_50_vids'),
  ],
  'crops in the folder of a batch': [
    ('cropped_aligned', 'batch1 (1)/cropped_aligned'),
    ('cropped_aligned_new_50_vids', 'batch2/cropped_aligned_new_50_vids'),
  ],
  'a batch within a batch': [('batch1', 'batch1/batch1')],
  'a batch two folders down': [('batch1', 'videos/batch1-20240311T1200Z-001/batch1')],
  'a test set within a test set': [('test_set', 'test_set/test_set')],
  'all in a folder': [(part, f'Aff-Wild2/{part}') for part in PARTS],
  'all two folders down': [(part, f'Aff-Wild2/data/{part}') for part in PARTS],
  'other spellings': [
    ('batch1', 'Batch 1'),
    ('cropped_aligned', 'Cropped-Aligned'),
    (f'{ANNOTATIONS}/Train_Set', f'{ANNOTATIONS}/train_set'),
    (LIST, LIST.replace('.txt', '.TXT')),
  ],
}


@pytest.mark.parametrize('moves', LAYOUTS.values(), ids=LAYOUTS)
def test_parts_are_found_where_archives_leave_them(broken, moves):
  for old, new in moves:
    move(broken, old, new)
  assert names(broken) == PLAN


def test_other_tasks_of_a_release_are_left_out(broken):
  for task in ('AU_Detection_Challenge', 'EXPR_Recognition_Challenge'):
    shutil.copytree(broken / ANNOTATIONS, broken / RELEASE / task)
  assert names(broken) == names(broken, '--annotations', broken / RELEASE) == PLAN


def test_options_name_the_folders_around_as_well(broken):
  move(broken, 'batch1', 'a/batch1/batch1')
  move(broken, 'new_vids', 'a/new_vids')
  move(broken, 'cropped_aligned', 'b/cropped_aligned/cropped_aligned')
  move(broken, 'cropped_aligned_new_50_vids', 'b/other/x')
  move(broken, RELEASE, f'c/{RELEASE}')
  options = ('--videos', broken / 'a', '--crops', broken / 'b', '--annotations', broken / 'c')
  assert names(broken, *options) == PLAN


@pytest.mark.parametrize(
  'damage, words',
  [
    (
      lambda s: [move(s, name, f'a/b/c/d/{name}') for name in ('batch1', 'new_vids')],
      'holds none of the folders batch1, batch2, new_vids, batch3, nor does a folder up to 3 '
      'levels below it; name folders with --videos, or another --source',
    ),
    (
      lambda s: [move(s, name, name[::-1]) for name in PARTS if name.startswith('cropped')],
      'holds none of the folders cropped_aligned, cropped_aligned_new_50_vids, nor .* with --crops',
    ),
    (
      lambda s: move(s, f'{ANNOTATIONS}', 'a/b/c/d/VA_Set'),
      'holds no folders Train_Set and Validation_Set, nor does a folder up to 4 levels below it; '
      'name that of the annotations with --annotations',
    ),
    (
      lambda s: shutil.rmtree(s / ANNOTATIONS / 'Validation_Set'),
      f'{VA} holds no folder Validation_Set; unpack the annotations again',
    ),
    (
      lambda s: shutil.copytree(s / RELEASE, s / '9th ABAW Annotations'),
      f'several sets of annotations, .*/{ANNOTATIONS}, .*/9th .*; .* with --annotations',
    ),
    (
      lambda s: shutil.copytree(s / 'batch1', s / 'old' / 'batch1'),
      '10-25-64x48 occurs twice: .*/old/batch1/.*; remove one of them, or .* with --videos',
    ),
    (lambda s: (s / 'batch1/102.avi').unlink(), 'no video: 102; looked in .*/batch1.*--videos'),
    (lambda s: shutil.rmtree(s / 'cropped_aligned/102'), 'no folder of crops: 102;.*--crops'),
    (
      lambda s: shutil.rmtree(s / 'test_set'),
      '1 video has no annotation and there is no --test_list: 300',
    ),
  ],
)
def test_what_is_missing_is_said_with_where_it_was_looked_for(broken, damage, words):
  damage(broken)
  with pytest.raises(InputError, match=words):
    plan(broken)


def test_what_systems_leave_in_folders_is_left_out(broken):
  litter(broken)
  assert names(broken) == PLAN
  assert [path.name for path in files.visible(broken)] == sorted(PARTS)


@pytest.mark.parametrize(
  'content',
  [
    b'\xef\xbb\xbf300\r\n',
    '300\n'.encode('utf-16'),
    '\ufeff300\n'.encode('utf-16-be'),
    b'300.mp4\n',
    b'300.AVI\n',
    b'batch1/300.avi,\n',
    b'.\\batch1\\300.avi\r\n',
    b'"300"\n\n',
    b'300/\n',
    b'300.txt',
    b'300/00001.jpg\n300/00002.jpg,\n',
  ],
)
def test_a_test_list_is_read_however_it_is_written(broken, content):
  (broken / LIST).write_bytes(content)
  assert names(broken) == PLAN


def test_a_joined_list_has_marks_in_the_middle(broken):
  (broken / ANNOTATIONS / 'Train_Set/104.txt').unlink()
  (broken / LIST).write_bytes(b'\xef\xbb\xbf104\n\xef\xbb\xbf300\n')
  assert names(broken)['test'] == ['104', '300']


def test_a_list_that_is_no_text_is_named(broken):
  (broken / LIST).write_bytes(b'300\n\xe9t\xe9\n')
  with pytest.raises(InputError, match=f'{LIST} cannot be read as text: .*; save it as UTF-8'):
    plan(broken)


def test_annotations_and_the_list_of_broken_crops_may_have_marks(broken):
  before = {job.clip.name: job for jobs in plan(broken).values() for job in jobs}
  for encoding, folder in (('utf-16', 'Train_Set'), ('utf-8-sig', 'Validation_Set')):
    for path in (broken / ANNOTATIONS / folder).glob('*.txt'):
      path.write_text(path.read_text(), encoding=encoding)
  (broken / 'unreadable.txt').write_bytes(b'\xef\xbb\xbf104/00007.jpg\r\n102\\00008.jpg\r\n')
  after = {job.clip.name: job for jobs in plan(broken).values() for job in jobs}
  for name, job in before.items():
    np.testing.assert_array_equal(after[name].labels, job.labels)
  assert {'104/00007.jpg', '102/00008.jpg'} < after['104'].unreadable


def test_endings_may_be_in_capitals(broken):
  rename_all(broken, f'{ANNOTATIONS}/Train_Set', '.txt', '.TXT')
  rename_all(broken, 'batch1', '.avi', '.AVI')
  rename_all(broken, 'cropped_aligned/104', '.jpg', '.JPG')
  rename_all(broken, 'cropped_aligned/102', '.jpg', '.jpeg')
  assert names(broken) == PLAN


@pytest.mark.parametrize('name', ['00000.jpg', '0.png', '000000.JPG'])
def test_crops_that_are_counted_from_0_are_refused(broken, name):
  crops = broken / 'cropped_aligned/104'
  for k in range(1, 21):
    (crops / f'{k:05d}.jpg').rename(crops / (name if k == 1 else f'{k - 1:05d}.jpg'))
  with pytest.raises(
    InputError,
    match=f'104 has a crop {name}, but crops are counted from 1, the first frame; '
    'give each the next number, or remove this one',
  ):
    plan(broken)


def test_two_crops_of_one_frame_are_refused(broken):
  shutil.copy(broken / 'cropped_aligned/104/00002.jpg', broken / 'cropped_aligned/104/2.jpg')
  with pytest.raises(InputError, match='104 has two crops of frame 2, 00002.jpg and 2.jpg; remove'):
    plan(broken)


def test_hidden_files_are_no_videos_to_predict(tmp_path):
  from avjax.predict import find_videos

  for name in ('a.mp4', '._a.mp4', 'Thumbs.db'):
    (tmp_path / name).touch()
  assert find_videos(tmp_path) == [tmp_path / 'a.mp4']
  pathlib.Path(tmp_path / 'a.mp4').unlink()
  with pytest.raises(InputError, match='holds no videos'):
    find_videos(tmp_path)
