"""Tests that faces are found once, as avjax.predict finds them, and kept while nothing differs."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from fault.harness import made_run
from official_set import SIZES, write_video
from PIL import Image
from plain_set import make_plain, write_face_film, write_rows

import avjax
from avjax.data import manifest, records
from avjax.errors import InputError
from avjax.inference import face_source
from avjax.media import faces
from data_prep import build, cluster, contact_sheet, contents, found_faces
from data_prep.sources import SOURCES

LAYOUT = records.Layout(12, 8, 16)
REPOSITORY = pathlib.Path(__file__).parents[2]


def words(source, data_dir, *options):
  given = ['--layout', 'plain', '--source', source, '--data_dir', data_dir, '--workers', '1']
  return [*map(str, given), *SIZES, *map(str, options)]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Three films of a face, with labels."""
  return make_plain(tmp_path_factory.mktemp('own') / 'set')


@pytest.fixture(scope='module')
def built(source, tmp_path_factory):
  """The folder of the records made from `source`."""
  folder = tmp_path_factory.mktemp('built') / 'records'
  assert build.main(words(source, folder, '--contact_sheet')) == 0
  return folder


def job_of(source, data_dir, name='a'):
  """Returns the job of a clip."""
  args = build.parse_args(words(source, data_dir))
  jobs = [job for members in SOURCES['plain'].plan(args).values() for job in members]
  return next(job for job in jobs if job.clip.name == name)


def bytes_of(folder):
  """Returns {path: bytes} of all files under a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def never(*args, **options):
  raise AssertionError('faces are looked for again')


@pytest.mark.slow
def test_a_model_sees_the_pixels_of_the_records(source, built, tmp_path, monkeypatch):
  """Bit for bit, of every frame, in prediction as in training."""
  import tensorflow_datasets as tfds

  config = tiny.get_config()
  config.model.audio.tower, config.model.fusion = 'none', {'name': 'visual'}
  run = made_run(tmp_path / 'run', config)
  given = []

  def noted(image, size):
    given.append(real(image, size))
    return given[-1]

  real = faces.fit
  monkeypatch.setattr(faces, 'fit', noted)
  found = avjax.predict_video(source / 'videos/b.avi', run)
  assert found.face_found.sum() == len(given) == 14
  recorded = {}
  builder = tfds.builder_from_directory(str(manifest.version_folder(built)))
  for split in builder.info.splits:
    for record in builder.as_dataset(split=split).as_numpy_iterator():
      if record['clip'] == b'b':
        assert record['face_present'][record['real']].all()
        frames = record['frames'][record['real']]
        recorded |= dict(zip(frames.tolist(), record['faces'][record['real']], strict=True))
  assert sorted(recorded) == list(range(1, 15))
  np.testing.assert_array_equal(np.stack([recorded[k] for k in range(1, 15)]), np.stack(given))
  assert len({face.tobytes() for face in given}) > 7  # the face moves, so frames differ


@pytest.mark.slow
def test_faces_are_found_once_and_may_be_removed(source, built, tmp_path, monkeypatch, capsys):
  """Another --length finds those that are there; finished records need them no more."""
  cache = shutil.copytree(built / 'crops', tmp_path / 'cache')
  made = json.loads((cache / 'a/made_from.json').read_text())
  assert (made['frames'], made['faces'], made['remarks']) == (14, 14, [])
  assert len(list((cache / 'a').glob('*.png'))) == 14
  before = bytes_of(cache)
  monkeypatch.setattr(found_faces, 'find_faces', never)
  job = job_of(source, tmp_path / 'none')
  sha256 = contents.examine_clip(job)['sha256']
  assert found_faces.keep_faces(job.clip.video, sha256, 'largest', cache / 'a') == made
  assert bytes_of(cache) == before
  kept = shutil.copytree(built, tmp_path / 'records')
  shutil.rmtree(kept / 'crops')
  assert build.main(words(source, kept)) == 0
  assert 'nothing to do' in capsys.readouterr().out and not (kept / 'crops').exists()


def test_faces_are_found_again_where_something_differs(source, tmp_path, monkeypatch):
  """Another video, another face, or other programs; a folder of something else is left alone."""
  calls = []

  def find(video, face, folder):
    calls.append(face)
    Image.new('RGB', (112, 112)).save(folder / f'{len(calls):05d}.png')
    return {'frames': 1, 'faces': 1, 'remarks': []}

  monkeypatch.setattr(found_faces, 'find_faces', find)
  crops, video = tmp_path / 'cache/a', source / 'videos/a.avi'
  for sha256, face, count in (
    ('0', 'left', 1),
    ('0', 'left', 1),
    ('1', 'left', 2),
    ('1', 'right', 3),
    ('1', 'right', 3),
  ):
    found_faces.keep_faces(video, sha256, face, crops)
    assert len(calls) == count
    assert [path.name for path in sorted(crops.iterdir())] == [f'0000{count}.png', 'made_from.json']
  monkeypatch.setattr(face_source, 'VERSION', 0)
  found_faces.keep_faces(video, '1', 'right', crops)
  assert len(calls) == 4 and [path.name for path in crops.parent.iterdir()] == ['a']
  (crops / 'made_from.json').write_text('{')
  with pytest.raises(InputError, match=f'made_from.json is damaged: .*; remove {crops}$'):
    found_faces.keep_faces(video, '1', 'right', crops)
  (crops / 'made_from.json').unlink()
  with pytest.raises(InputError, match=f'{crops} exists but has no made_from.json.*--crops_cache'):
    found_faces.keep_faces(video, '1', 'right', crops)
  assert (crops / '00004.png').exists() and len(calls) == 4


def test_a_search_that_fails_leaves_nothing(source, tmp_path):
  """Here since there are not so many people; the line names the video."""
  with pytest.raises(InputError, match=r'videos/a.avi: there is no face 3: 1 person is seen'):
    found_faces.keep_faces(source / 'videos/a.avi', '0', '3', tmp_path / 'cache/a')
  assert list((tmp_path / 'cache').iterdir()) == []


@pytest.mark.slow
def test_whose_face_is_found_is_chosen(tmp_path):
  """Two people stand side by side: the larger one on the left."""
  write_face_film(tmp_path / 'two.avi', 8, people=2)
  boxes = {}
  for face in ('largest', 'left', 'right', '2'):
    made = found_faces.keep_faces(tmp_path / 'two.avi', '0', face, tmp_path / face)
    assert made['faces'] == 8
    boxes[face] = faces.open_crop(tmp_path / face / '00001.png').tobytes()
  assert boxes['largest'] == boxes['left'] != boxes['right'] == boxes['2']


@pytest.mark.slow
def test_a_build_killed_while_it_finds_faces_goes_on(source, built, tmp_path):
  """What was found is kept, no half of a clip is, and the records are the same."""
  records_folder = tmp_path / 'records'
  line = [sys.executable, '-m', 'data_prep.build', *words(source, records_folder)]
  options = {'env': {**os.environ, 'PYTHONPATH': str(REPOSITORY)}, 'cwd': REPOSITORY}
  crops, end = records_folder / 'crops', time.monotonic() + 300
  with subprocess.Popen(line, **options, start_new_session=True) as process:
    while not ((crops / 'a').exists() and list(crops.glob('.avjax-*/new/*.png'))):
      assert process.poll() is None and time.monotonic() < end
      time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
  assert not (crops / 'c').exists() and not (records_folder / 'affwild2').exists()
  first = (crops / 'a/00001.png').stat().st_mtime_ns
  assert subprocess.run(line, capture_output=True, **options).returncode == 0
  assert (crops / 'a/00001.png').stat().st_mtime_ns == first
  assert bytes_of(crops) == bytes_of(built / 'crops')
  assert sorted(path.name for path in crops.iterdir()) == ['a', 'b', 'c']
  folders = [manifest.version_folder(folder) for folder in (records_folder, built)]
  assert bytes_of(folders[0]) == bytes_of(folders[1])


@pytest.mark.slow
def test_a_worker_of_dask_finds_the_same_faces(source, built, tmp_path):
  """A job with labels in time travels as a file, and what comes back is what is decoded here."""
  root = shutil.copytree(source, tmp_path / 'set')
  for who, value in (('ann', 0.2), ('bob', 0.4)):
    rows = [f'{k / 10},{value},{-value}' for k in range(6)]
    write_rows(root / f'labels/d/{who}.csv', 'time,valence,arousal', *rows)
  shutil.copy(root / 'videos/a.avi', root / 'videos/d.avi')
  write_rows(root / 'splits.csv', 'name,subject', 'a,x', 'b,y', 'c,z', 'd,w')
  job = job_of(root, tmp_path / 'here', 'd')
  cluster.save_job(tmp_path / 'd.job.npz', job, LAYOUT)
  loaded, layout, _ = cluster.load_job(tmp_path / 'd.job.npz')
  assert layout == LAYOUT and (loaded.face, loaded.subject) == ('largest', 'w')
  assert loaded.timed.tobytes() == job.timed.tobytes()
  assert [trace.annotator for trace in loaded.timed.traces] == ['ann', 'bob']
  assert cluster.decode_job(str(tmp_path / 'd.job.npz')) == {}
  clip, seen = cluster.load_clip(tmp_path / 'd.clip.npz')
  assert (tmp_path / 'here/crops/d/made_from.json').exists()
  expected, known = contents.decode(job_of(root, tmp_path / 'there', 'd'), LAYOUT)
  assert seen == known and clip.face_present.all()
  np.testing.assert_allclose(clip.labels, np.tile([0.3, -0.3], (14, 1)), atol=1e-7)
  for name in ('frames', 'times', 'labels', 'annotated', 'faces', 'face_present', 'log_mel'):
    np.testing.assert_array_equal(getattr(clip, name), getattr(expected, name))


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_built_and_writes_nothing(source, tmp_path, capsys):
  root = shutil.copytree(source, tmp_path / 'set')
  (root / 'labels/a.csv').unlink()
  for who, value in (('ann', 0.0), ('bob', 0.1)):
    rows = [f'{k / 10},{value + k / 10},{k / 10}' for k in range(4)]  # up to 0.3 s of 0.56
    write_rows(root / f'labels/a/{who}.csv', 'time,valence,arousal', *rows)
  write_rows(root / 'splits.csv', 'name,split,subject', 'a,p,x', 'b,p,y', 'c,q,z')
  crops = root / 'crops/b'
  crops.mkdir(parents=True)
  Image.new('RGB', (8, 8)).save(crops / '00001.jpg')
  before = bytes_of(tmp_path)
  assert build.main(words(root, tmp_path / 'records', '--dry-run', '--annotators', 'ewe')) == 0
  said = capsys.readouterr().out
  rows = {line.split()[0]: line.split()[1:] for line in said.splitlines()}
  # Of a's 14 frames, the last label is at 0.3 s, and frames at 0, .04, ..., .28 and .32 have one.
  assert rows['p'] == ['2', '2', '28', '1', '0.9'] and rows['q'] == ['1', '1', '14', '1', '0.6']
  assert rows['all'] == ['3', '3', '42', '2', '1.5']
  assert 'faces: given as crops for 1 clips, to be found for 2' in said
  assert re.search(r'CCC of 0\.\d+ in valence and 1.000 in arousal, over 1 clips', said)
  assert bytes_of(tmp_path) == before and not (tmp_path / 'records').exists()
  with pytest.raises(InputError, match='--dry-run looks at no pictures'):
    build.parse_args(words(root, tmp_path / 'records', '--dry-run', '--contact_sheet'))


@pytest.mark.slow
def test_labels_of_another_video_are_noticed(source, tmp_path, capsys):
  root = shutil.copytree(source, tmp_path / 'set')
  rows = [f'{second},0,0' for second in range(20)]
  write_rows(root / 'labels/a.csv', 'time,valence,arousal', *rows)
  for options in ([], ['--dry-run']):
    with pytest.raises(InputError) as error:
      build.main(words(root, tmp_path / 'records', *options))
    assert re.search(
      r'labels/a.csv goes on for 18.5 s after the end of \S*videos/a.avi, which lasts 0.5 s; is it '
      'of another video, or are its times not in seconds.*--tolerate length$',
      str(error.value),
    )
  capsys.readouterr()
  assert build.main(words(root, tmp_path / 'records', '--tolerate', 'length', '--dry-run')) == 0
  assert (
    'rows of labels after the end of the video, which are left out: 19, in 1 of the clips, most in '
    'a\n'
  ) in capsys.readouterr().out
  assert build.main(words(root, tmp_path / 'records', '--tolerate', 'length')) == 0
  assert manifest.read_manifest(tmp_path / 'records')['masked']['rows_beyond_video'] == 19
  write_rows(root / 'labels/a.csv', 'time,valence,arousal', '1.2,0,0', '1.3,0,0')
  with pytest.raises(
    InputError, match=r'a has no annotated frame: .*labels/a.csv gives no valence'
  ):
    build.main(words(root, tmp_path / 'other', '--tolerate', 'length'))


@pytest.mark.slow
def test_a_contact_sheet_shows_a_face_every_second(built, tmp_path):
  assert sorted(path.name for path in (built / 'contact_sheets').iterdir()) == [
    'a.jpg', 'b.jpg', 'c.jpg',
  ]  # fmt: skip
  write_video(tmp_path / 'long.avi', 60)
  crops = tmp_path / 'crops/long'
  crops.mkdir(parents=True)
  for k in (1, 51):  # at 0 s and 2 s, and none at 1 s
    Image.new('RGB', (112, 112), (250, 10, 10)).save(crops / f'{k:05d}.png')
  job = cluster.Job(
    clip=cluster.Clip('long', tmp_path / 'long.avi', crops, None, 'test'),
    crop_ids=np.array([1, 51], np.int32),
    labels=None,
    annotated=None,
    unreadable=frozenset(),
    features={},
  )
  contact_sheet.draw(job, tmp_path / 'sheets')
  sheet = np.asarray(Image.open(tmp_path / 'sheets/long.jpg')).astype(int)
  side, caption = contact_sheet.SIDE, contact_sheet.CAPTION
  assert sheet.shape == (2 * caption + side, contact_sheet.COLUMNS * side, 3)
  tiles = [sheet[caption + 20 : caption + 30, i * side + 20 : i * side + 70] for i in range(4)]
  means = [tile.mean(axis=(0, 1)) for tile in tiles]
  for i, colour in enumerate(((250, 10, 10), (200, 200, 200), (250, 10, 10), (255, 255, 255))):
    assert np.abs(means[i] - colour).max() < 12, (i, means)
