"""Tests that a labelled clip without a usable label is refused by the dry run and the build alike,
in one line that names the clip and says why.
"""

import shutil

import pytest
from official_set import SIZES, write_video
from plain_set import make_plain, write_rows

from avjax.errors import InputError
from data_prep import build

TIMED, COUNTED = 'time,valence,arousal', 'frame,valence,arousal'


@pytest.fixture(scope='module')
def films(tmp_path_factory):
  return make_plain(tmp_path_factory.mktemp('films') / 'set')


def annotators(root, **rows):
  (root / 'labels/a.csv').unlink()
  for who, lines in rows.items():
    write_rows(root / f'labels/a/{who}.csv', COUNTED, *lines)


def zero_weight(root, *alone):
  """Ann and bob agree in clip b, and cid goes the other way there; a has cid alone, and `alone`."""
  (root / 'labels/b.csv').unlink()
  for who, sign in (('ann', 1), ('bob', 1), ('cid', -1)):
    rows = [f'{k},{sign * k / 20},{sign * k / 20}' for k in range(1, 9)]
    write_rows(root / f'labels/b/{who}.csv', COUNTED, *rows)
  annotators(root, **({'cid': ['1,0.1,0.1', '2,0.2,0.2']} | dict(alone)))


USELESS = {
  'empty': (
    lambda root: write_rows(root / 'labels/a.csv', COUNTED, '1,,', '2,nan,'),
    (),
    '^1 clip.* labels whose cells are all empty: a; .*--tolerate unlisted',
  ),
  'one_dimension': (
    lambda root: write_rows(root / 'labels/a.csv', COUNTED, '1,0.1,', '2,0.2,'),
    (),
    r'^1 clip.* no labels in one dimension: a \(arousal\); ',
  ),
  'never_both': (
    lambda root: write_rows(root / 'labels/a.csv', COUNTED, '1,0.1,', '2,0.2,', '3,,0.2'),
    (),
    'a has no annotated frame: .*labels/a.csv gives valence and arousal, but never both',
  ),
  'weight_0': (
    zero_weight,
    ('--annotators', 'ewe'),
    r'^1 clip.* ewe gives the weight 0: a \(cid in valence and arousal\); .*--annotators mean',
  ),
  'weight_0_within': (
    lambda root: zero_weight(root, ('ann', ['90,0.1,0.1'])),
    ('--annotators', 'ewe', '--tolerate', 'length'),
    'a has no annotated frame: .*labels/a gives valence within the video only by annotators to',
  ),
  'later': (
    lambda root: write_rows(root / 'labels/a.csv', TIMED, '1.2,0,0', '1.3,0,0'),
    ('--tolerate', 'length'),
    'a has no annotated frame: .*gives no valence within .* 0.5 s; times are in seconds from its',
  ),
  'later_frames': (
    lambda root: write_rows(root / 'labels/a.csv', COUNTED, '90,0,0', '91,0,0'),
    ('--tolerate', 'length'),
    'a has no annotated frame: .*gives no valence within .* 0.5 s; frames are counted from the fi',
  ),
}


USELESS['earlier'] = (
  lambda root: write_rows(root / 'labels/a.csv', TIMED, '-50,0,0', '0,0,0', '0.1,0,0'),
  (),
  r'^\S*labels/a.csv begins 50.0 s before \S*a.avi: times are in .*; .* --tolerate length$',
)


@pytest.mark.parametrize('name', USELESS)
def test_the_dry_run_and_the_build_refuse_it_and_say_why(films, tmp_path, name):
  change, options, message = USELESS[name]
  root = shutil.copytree(films, tmp_path / 'set')
  change(root)
  words = ['--layout', 'plain', '--source', root, '--data_dir', tmp_path / 'records', *SIZES]
  said = []
  for dry in ([], ['--dry-run']):
    with pytest.raises(InputError, match=message) as error:
      build.main([*map(str, words), '--workers', '1', *options, *dry])
    said.append(str(error.value))
  assert said[0] == said[1] and '\n' not in said[0]
  assert not (tmp_path / 'records/crops').exists()  # no face has been looked for


def test_every_video_that_does_not_fit_is_named(films, tmp_path):
  root = shutil.copytree(films, tmp_path / 'set')
  (root / 'videos/a.avi').write_text('no film')
  (root / 'videos/b.avi').write_text('no film')
  write_rows(root / 'labels/c.csv', TIMED, '90,0,0', '91,0,0')
  words = ['--layout', 'plain', '--source', root, '--data_dir', tmp_path / 'records', *SIZES]
  for dry in ([], ['--dry-run']):
    with pytest.raises(InputError) as error:
      build.main([*map(str, words), '--workers', '1', *dry])
    assert len(error.value.args) == 3
    for name, said in zip(('c.csv', 'a.avi', 'b.avi'), sorted(error.value.args), strict=True):
      assert name in said


def test_the_dry_run_refuses_places_that_the_build_refuses(films, tmp_path):
  """Before any video is decoded: a file in place of the records, other crops for found faces."""
  (tmp_path / 'file').touch()
  for name in 'ab':
    (tmp_path / 'records/crops' / name).mkdir(parents=True)
  before = sorted(tmp_path.rglob('*'))
  for place, words in (
    ('file', ['file is no folder; choose another --data_dir']),
    ('file/records', ['file is no folder; choose another --data_dir']),
    ('records', ['crops/a exists but has no made_from.json', 'crops/b exists but has no made_']),
  ):
    for dry in ([], ['--dry-run']):
      given = ['--layout', 'plain', '--source', films, '--data_dir', tmp_path / place, *SIZES]
      with pytest.raises(InputError) as error:
        build.main([*map(str, given), '--workers', '1', *dry])
      for word, said in zip(words, sorted(error.value.args), strict=True):
        assert word in said
  assert sorted(tmp_path.rglob('*')) == before


def test_the_dry_run_says_what_it_passes_over(films, tmp_path, capsys):
  """Five frames of cid's, who has the weight 0, and frames of 12.5 a second beside times."""
  root = shutil.copytree(films, tmp_path / 'set')
  late = [f'{k},0.2,0.2' for k in range(9, 14)]
  zero_weight(root, ('ann', ['1,0.1,0.1', '2,0.2,0.2']), ('cid', ['1,0.1,0.1', *late]))
  rows = [f'{k},{k * 0.08},0,0' for k in range(6)]
  write_rows(root / 'labels/c.csv', 'frame,time,valence,arousal', *rows)
  words = ['--layout', 'plain', '--source', root, '--data_dir', tmp_path / 'records', '--dry-run']
  options = ['--workers', '1', '--annotators', 'ewe', '--label_gap', '0.1']
  assert build.main([*map(str, words), *options]) == 0
  said = capsys.readouterr().out
  assert '0.2 s are labelled by annotators of weight 0 alone, and so are not annotated' in said
  assert (
    'times and frames of the labels contradict each other in 1 of the clips, most in c, by 5 '
    'frames of the video: the times count'
  ) in said


def test_the_dry_run_says_what_lies_before_the_video_and_between_labels(films, tmp_path, capsys):
  """Rows at -1, -0.5, 0 and 0.4 s of frames at 0, 0.04, ..., 0.52 s; the lag is no mistake."""
  root = shutil.copytree(films, tmp_path / 'set')
  write_rows(root / 'labels/a.csv', TIMED, '-1,0,0', '-0.5,0,0', '0,0,0', '0.4,0,0')
  words = ['--layout', 'plain', '--source', root, '--data_dir', tmp_path / 'records', '--dry-run']

  def said(*options):
    assert build.main([*map(str, words), '--workers', '1', *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    return [line for line in lines if line.startswith('rows') or '--label_gap' in line]

  early = 'rows of labels before the begin of the video, which are left out: 2, in 1 of the clips'
  assert said() == [f'{early}, most in a']
  # Of the frames at 0, 0.04, ..., 0.4 s, the first and the last have a label of their own.
  between = '0.4 s lie between labels more than 0.3 s apart, most in a, and so are not annotated; '
  assert said('--label_gap', '0.3') == [
    f'{between}--label_gap joins such labels',
    f'{early}, most in a',
  ]
  assert said('--label_lag', '0.2') == [f'{early}, most in a']


def test_the_dry_run_says_where_labels_and_videos_end(tmp_path, capsys):
  """A video may be 30 frames longer before that is said; each row after its end is left out."""
  for name, frames, rows in (('a', 60, 29), ('b', 60, 30), ('c', 10, 13), ('d', 10, 12)):
    (tmp_path / 'videos').mkdir(exist_ok=True)
    write_video(tmp_path / f'videos/{name}.mp4', frames)
    lines = [f'{k},0.1,0.2' for k in range(1, rows + 1)]
    write_rows(tmp_path / f'labels/{name}.csv', COUNTED, *lines, f'{rows + 1},,')
  write_video(tmp_path / 'videos/e.mp4', 60)
  write_rows(tmp_path / 'splits.csv', 'name,split', 'a,p', 'b,p', 'c,q', 'd,q', 'e,test')
  words = ['--layout', 'plain', '--source', tmp_path, '--data_dir', tmp_path / 'new', '--dry-run']
  assert build.main([*map(str, words), '--workers', '1']) == 0
  said = capsys.readouterr().out.splitlines()
  assert [line for line in said if line.startswith(('rows', 'videos'))] == [
    'rows of labels after the end of the video, which are left out: 5, in 2 of the clips, most in '
    'c',
    'videos go on for more than 30 frames after the last one that is annotated in 1 of the clips, '
    'longest in a: for 1.2 s',
  ]
  assert 'validates: q (in fold 0, which is trained by default)' in said
