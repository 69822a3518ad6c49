import pathlib

import pytest

from avjax.data.splits import CHUNKS, fold_chunks
from avjax.errors import InputError
from data_prep.sources.affwild2 import Clip, find_roots, list_clips, split_clips

ANNOTATIONS = '8th ABAW Annotations/VA_Estimation_Challenge'


def listed(source, **kwargs):
  return list_clips(find_roots(source), **kwargs)


def clips(names, partition='train'):
  return [
    Clip(name, pathlib.Path(name.split('_')[0] + '.mp4'), pathlib.Path(name), None, partition)
    for name in names
  ]


def test_fold_0_is_official_and_every_chunk_is_held_out_once():
  assert fold_chunks(0) == (('chunk0', 'chunk1', 'chunk2', 'chunk3', 'chunk4'), 'chunk5')
  assert [fold_chunks(k)[1] for k in range(6)] == [
    'chunk5',
    'chunk4',
    'chunk3',
    'chunk2',
    'chunk1',
    'chunk0',
  ]
  for fold in range(6):
    train, held_out = fold_chunks(fold)
    assert sorted((*train, held_out)) == sorted(CHUNKS)
  with pytest.raises(InputError):
    fold_chunks(6)


def test_the_official_sizes_of_the_chunks():
  names = [f'{i:03d}' for i in range(356)]
  splits = split_clips(
    clips(names) + clips([f'v{i}' for i in range(76)], 'validation') + clips(['t'], 'test')
  )
  assert [len(splits[chunk]) for chunk in (*CHUNKS, 'test')] == [71, 71, 71, 71, 72, 76, 1]
  assert [clip.name for chunk in CHUNKS[:5] for clip in splits[chunk]] == names


@pytest.mark.parametrize('at', range(9))
def test_two_subjects_of_a_video_stay_together(at):
  names = [f'{i}' for i in range(8)]
  names[at:at] = [f'{at - 1 if at else 0}5_left', f'{at - 1 if at else 0}5_right']
  splits = split_clips(clips(names))
  homes = [
    {chunk for chunk in CHUNKS for clip in splits[chunk] if clip.name.endswith(side)}
    for side in ('_left', '_right')
  ]
  assert len(homes[0]) == 1 and homes[0] == homes[1]
  assert sorted(clip.name for chunk in CHUNKS for clip in splits[chunk]) == sorted(names)


def test_clips_of_the_official_layout(official):
  found = {clip.name: clip for clip in listed(official)}
  assert list(found) == [
    '10-25-64x48_left',
    '10-25-64x48_right',
    '102',
    '103',
    '1035',
    '104',
    '200',
    '300',
    'video7',
  ]
  assert found['10-25-64x48_right'].video == official / 'batch1/10-25-64x48.avi'
  assert found['video7'].crops == official / 'cropped_aligned_new_50_vids/video7'
  assert found['video7'].annotation == official / ANNOTATIONS / 'Train_Set/video7.txt'
  assert [found[name].partition for name in ('102', '200', '300')] == [
    'train',
    'validation',
    'test',
  ]
  assert found['300'].annotation is None


def test_a_video_of_the_clips_own_name_comes_before_the_shared_one(broken):
  (broken / 'batch1/10-25-64x48_left.mp4').write_bytes(b'')
  found = {clip.name: clip.video.name for clip in listed(broken)}
  assert found['10-25-64x48_left'] == '10-25-64x48_left.mp4'
  assert found['10-25-64x48_right'] == '10-25-64x48.avi'


def test_every_root_is_a_parameter(broken, tmp_path):
  expected = [clip.name for clip in listed(broken)]
  moved = tmp_path / 'elsewhere'
  moved.mkdir()
  (broken / 'batch1').rename(moved / 'raw')
  (broken / 'new_vids').rename(moved / 'raw/new_vids')
  (broken / 'cropped_aligned').rename(moved / 'a')
  (broken / 'cropped_aligned_new_50_vids').rename(moved / 'b')
  (broken / '8th ABAW Annotations').rename(moved / 'labels')
  (broken / 'test_set/names_of_videos_in_each_test_set').rename(moved / 'test')
  roots = find_roots(
    moved,
    videos=[moved / 'raw'],
    crops=[moved / 'a', moved / 'b'],
    annotations=moved / 'labels',
    test_list=next((moved / 'test').glob('*.txt')),
  )
  assert [clip.name for clip in list_clips(roots)] == expected
  assert (
    find_roots(
      moved, [moved / 'raw'], [moved / 'a'], moved / 'labels/VA_Estimation_Challenge'
    ).test_list
    is None
  )


@pytest.mark.parametrize(
  'damage, words',
  [
    (lambda s: (s / 'batch1/102.avi').unlink(), '1 clip has no video: 102'),
    (lambda s: (s / 'cropped_aligned/102').rename(s / 'x'), '1 clip has no folder of crops: 102'),
    (
      lambda s: (s / ANNOTATIONS / 'Train_Set/102.txt').unlink(),
      '1 video has no annotation .*: 102; .* unlisted',
    ),
    (
      lambda s: (s / 'cropped_aligned/999').mkdir(),
      '1 folder of crops has no annotation .*: 999; .*--tolerate unlisted',
    ),
    (lambda s: (s / 'new_vids/102.mp4').touch(), '102 occurs twice'),
    (lambda s: (s / ANNOTATIONS / 'Validation_Set/102.txt').touch(), '102 occurs twice'),
  ],
)
def test_what_does_not_fit_is_named(broken, damage, words):
  damage(broken)
  with pytest.raises(InputError, match=words):
    listed(broken)


def test_unlisted_videos_and_crops_can_be_left_out(broken):
  (broken / ANNOTATIONS / 'Train_Set/102.txt').unlink()
  with pytest.raises(InputError, match='--tolerate unlisted'):
    listed(broken)
  assert '102' not in [clip.name for clip in listed(broken, ignore_unlisted=True)]


def test_a_missing_folder_is_named(tmp_path):
  with pytest.raises(InputError, match=f'{tmp_path}/nothing is not a folder'):
    find_roots(tmp_path / 'nothing')
