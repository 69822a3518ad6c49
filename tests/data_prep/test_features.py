"""Tests features of other backbones: each row is joined with its own frame, and what does not fit
is refused.
"""

import numpy as np
import pytest
from official_set import CLIPS, SIZES
from test_build import contents, read

from avjax.data import manifest, records
from avjax.errors import InputError
from data_prep import build, clips, features
from data_prep.sources import SOURCES


def write(folder, width=3, scale=1.0):
  """Writes one file per clip. Its row of frame k holds k, k + 0.5, k + 1, ... times scale; for one
  person of the pair they are negative.
  """
  folder.mkdir()
  for name, (frames, *_) in CLIPS.items():
    rows = np.arange(1, frames + 1)[:, None] + np.arange(width) / 2
    np.save(
      folder / f'{name}.npy', np.float64(scale * rows * (-1 if name == '10-25-64x48_right' else 1))
    )
  return folder


@pytest.fixture
def folder(tmp_path):
  return write(tmp_path / 'clip')


def jobs(source, folder, tolerate=()):
  args = build.parse_args(
    [
      '--source',
      str(source),
      '--data_dir',
      'unused',
      '--tolerate',
      ','.join(tolerate),
      '--features',
      f'clip={folder}',
    ]
  )
  return {job.clip.name: job for jobs in SOURCES[args.layout].plan(args).values() for job in jobs}


def decode(source, folder, tolerate=()):
  planned = jobs(source, folder, tolerate)
  return clips.decode_clip(
    planned['104'], records.Layout(12, 8, 16, features.widths(planned.values()))
  )


@pytest.mark.slow
def test_each_row_arrives_with_its_frame(official, folder, tmp_path, capsys):
  command = [
    '--source',
    str(official),
    '--data_dir',
    str(tmp_path / 'records'),
    *SIZES,
    '--features',
    f'clip={folder}',
    '--features',
    f'sound={write(tmp_path / "sound", 2, 0.1)}',
    '--workers',
  ]
  assert build.main([*command, '2']) == 0
  assert 'features: clip, 3 numbers a frame\n' in capsys.readouterr().out
  assert manifest.read_manifest(tmp_path / 'records')['layout']['features'] == {
    'clip': 3,
    'sound': 2,
  }
  found = read(tmp_path / 'records')
  assert {clip for clip, _ in found} == {
    name for name, (_, annotated, *_) in CLIPS.items() if annotated != ()
  }
  for (clip, _), record in found.items():
    frames = np.where(record['real'], record['frames'], np.nan)[:, None] * (
      -1 if clip == '10-25-64x48_right' else 1
    )
    for name, width, scale in (('clip', 3, 1), ('sound', 2, 0.1)):
      rows = record[f'features/{name}']
      expected = scale * (frames + np.sign(frames) * np.arange(width) / 2)
      assert rows.dtype == np.float32 and rows.shape == (12, width)
      np.testing.assert_allclose(rows, np.nan_to_num(expected), rtol=1e-6)

  before = contents(tmp_path / 'records')
  assert build.main([*command, '1']) == 0 and 'nothing to do' in capsys.readouterr().out
  # Another backbone, files of the same size.
  np.save(folder / '103.npy', np.load(folder / '103.npy') + 1)
  with pytest.raises(InputError, match='a different source'):
    build.main([*command, '1'])
  with pytest.raises(InputError, match='a different layout and source'):
    build.main([*command[:12], '--workers', '1'])  # clip alone
  assert contents(tmp_path / 'records') == before


def test_what_does_not_fit_is_refused(official, folder):
  good = np.load(folder / '104.npy')

  def refused(words, value, **kind):
    np.save(folder / '104.npy', value, **kind)
    with pytest.raises(InputError, match=words):
      decode(official, folder)

  refused(r'104.npy has 19 rows, but .*104.avi has 20 frames; write one row for each', good[:-1])
  refused(r'104.npy has 21 rows, but .*104.avi has 20 frames', np.concatenate([good, good[:1]]))
  refused(r'104.npy has 2 columns, but .*_left.npy has 3', good[:, :2])
  refused(r'104.npy does not hold a table of floating-point numbers', good.astype(int))
  refused(r'104.npy does not hold a table', good[0])
  refused(r'104.npy does not hold a table', good[:, :0])
  refused(r'104.npy cannot be read as a .npy file', np.array([{}]), allow_pickle=True)
  refused(
    r'104.npy has a number that is not finite in the row of frame 20',
    np.where(good == 21, np.nan, good),
  )
  refused(
    r'104.npy has a number that is not finite in the row of frame 20',
    np.where(good == 21, 1e300, good),
  )
  for damage in (b'', b'\x93NUMPY\x01\x00', (folder / '103.npy').read_bytes()[:150]):
    (folder / '104.npy').write_bytes(damage)
    with pytest.raises(InputError, match=r'104.npy cannot be read as a .npy file'):
      decode(official, folder)
  (folder / '104.npy').unlink()
  with pytest.raises(
    InputError, match=r'--features clip: .* has no 104.npy; each clip needs a file of its own'
  ):
    decode(official, folder)


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda rows: rows[:-1], r'104.npy has 19 rows, but .*104.avi has 20 frames'),
    (lambda rows: np.concatenate([rows, rows]), r'104.npy has 40 rows, but .* has 20 frames'),
    (
      lambda rows: np.where(rows == 21, np.nan, rows),
      r'104.npy has a number that is not finite in the row of frame 20',
    ),
  ],
)
def test_all_of_them_are_checked_before_any_clip_is_decoded(
  official, folder, tmp_path, capfd, change, words
):
  np.save(folder / '104.npy', change(np.load(folder / '104.npy')))
  command = ['--source', str(official), '--data_dir', str(tmp_path / 'records'), *SIZES]
  with pytest.raises(InputError, match=words):
    build.main([*command, '--features', f'clip={folder}', '--workers', '1'])
  printed = capfd.readouterr().err.splitlines()
  assert printed and all(line.startswith('checked clips: ') for line in printed)
  assert list((tmp_path / 'records').iterdir()) == []


def test_only_rows_of_annotated_frames_are_checked(official, folder):
  rows = np.load(folder / '102.npy')
  rows[[0, 44]] = np.nan  # frames 1 and 45 are not annotated
  np.save(folder / '102.npy', rows)
  clips.check_inputs(jobs(official, folder)['102'])


def test_a_header_that_counts_no_frames_is_not_trusted(official, folder, monkeypatch):
  monkeypatch.setattr(clips.Decoder, 'frames_in_header', lambda self, path: 0)
  clips.check_inputs(jobs(official, folder)['104'])
  np.save(folder / '104.npy', np.load(folder / '104.npy')[:-1])
  with pytest.raises(InputError, match=r'has 20 frames'):
    clips.check_inputs(jobs(official, folder)['104'])


def test_they_are_never_cut_or_lent(official, folder):
  """Rows are not cut to another length, whatever is tolerated; people do not share one file."""
  good = np.load(folder / '104.npy')
  for rows in (good[:17], good[:0]):
    np.save(folder / '104.npy', rows)
    with pytest.raises(InputError, match=f'104.npy has {len(rows)} rows'):
      decode(official, folder, ['length'])
  np.save(folder / '104.npy', good)
  (folder / '10-25-64x48_right.npy').rename(folder / '10-25-64x48.npy')
  with pytest.raises(InputError, match=r'no 10-25-64x48_right.npy'):
    jobs(official, folder)


def test_options_that_name_no_features(tmp_path):
  for options, words in (
    (['clip'], 'is not NAME=DIR'),
    ([f'Clip={tmp_path}'], 'is not NAME=DIR'),
    ([f'a/b={tmp_path}'], 'is not NAME=DIR'),
    ([f'a={tmp_path}', f'a={tmp_path}'], 'given twice'),
    ([f'a={tmp_path}/none'], 'is not a folder'),
  ):
    with pytest.raises(InputError, match=words):
      features.parse_folders(options)
