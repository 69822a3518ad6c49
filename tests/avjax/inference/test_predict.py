"""Tests that the prediction of a video agrees with evaluation.

The files that it writes are tested too, and awkward videos.
"""

import csv
import json
import os
import pathlib
import shutil

import av
import numpy as np
import pytest
import tiny
from fault.harness import call, made_run, one_line
from official_set import tone, write_clip, write_video
from PIL import Image

import avjax
import avjax.inference.video as predict
from avjax.errors import InputError
from avjax.evaluation.results import evaluate_run
from avjax.inference.looking import look_at
from avjax.inference.video import interruptions, load_predictors, predict_with
from avjax.media import detection, faces, video
from avjax.media.decoder import Decoder
from avjax.reports import plots
from avjax.weights.exported import export_run
from configs import grjca
from data_prep import build, mini

MEDIA = pathlib.Path(__file__).parents[4] / 'shared/media'
ONE_FILE = ('csv', 'png', 'html')


@pytest.fixture
def clip(tmp_path):
  """A video of 30 frames with sound, and a folder of its faces; frames 5 and 6 have none."""
  return write_clip(tmp_path, 30, faceless=(5, 6))


def read_csv(path):
  """Returns {column: values} of a CSV that predict writes, NaN where a cell is empty."""
  with open(path, newline='') as file:
    rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
  return {name: np.array([float(row[name] or 'nan') for row in rows]) for name in rows[0]}


@pytest.mark.slow
def test_the_same_predictions_as_evaluation(tmp_path):
  """The raw video with the official crops gives what evaluation gives on the mini set.

  This holds for a run and for the model that it exports, and where windows overlap.
  """
  mini.generate(tmp_path / 'mini', videos=17, seconds=8, workers=2)
  config = grjca.get_config('mini')
  config.data.stride = 80
  config.data.dir = str(tmp_path / 'records')
  assert (
    build.main(
      [
        '--source',
        str(tmp_path / 'mini'),
        '--data_dir',
        config.data.dir,
        '--length',
        '120',
        '--stride',
        '80',
        '--face',
        '24',
        '--workers',
        '2',
      ]
    )
    == 0
  )
  folder = made_run(tmp_path / 'run', config)
  export_run(folder, tmp_path / 'model')
  for split, name, sources in (
    ('validation', 'video63.mp4', [folder, tmp_path / 'model']),
    ('test', '96-30-1280x720.mp4', [folder]),
  ):
    evaluate_run(folder, split)
    (path,) = (tmp_path / 'mini').rglob(name)
    (crops,) = (tmp_path / 'mini').glob(f'cropped*/{path.stem}')
    with open(folder / 'predictions' / split / f'{path.stem}.csv', newline='') as file:
      rows = list(csv.DictReader(file))
    for source in sources:
      found = avjax.predict_video(path, source, crops=crops)
      assert len(found.frames) == len(rows) and len(rows) > 150
      np.testing.assert_array_equal(found.frames, [int(row['frame']) for row in rows])
      for target in ('valence', 'arousal'):
        np.testing.assert_allclose(
          getattr(found, target), [float(row[target]) for row in rows], rtol=0, atol=1e-5
        )
      np.testing.assert_array_equal(found.face_found, [row['face_present'] == '1' for row in rows])
      np.testing.assert_array_equal(
        found.audio_present, [row['audio_present'] == '1' for row in rows]
      )


def test_each_frame_goes_through_the_towers_once(clip, tiny_run, monkeypatch):
  (predictor,), seen = load_predictors(tiny_run), []
  encode = predictor.encode
  predictor.encode = lambda variables, batch: (
    seen.append(batch['faces'].shape[1]) or encode(variables, batch)
  )
  options = dict.fromkeys(('output', 'film', 'sound'))
  options |= {
    'face': 'largest',
    'crops': clip[1],
    'overlay': False,
    'rotate': 'auto',
    'formats': (),
  }
  with Decoder() as decoder, look_at(decoder, clip[0], **options) as looked:
    predict_with([predictor], looked)
  assert sum(seen) == 32  # 30 frames in two blocks of 16, though windows of 12 every 8 hold 48
  assert predictor.features['visual'] == [] and predictor.count == 30


def test_what_is_written(clip, tiny_run, tmp_path):
  result = avjax.predict_video(clip[0], tiny_run, tmp_path / 'out', crops=clip[1], overlay=True)
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
    'clip.csv',
    'clip.html',
    'clip.png',
    'clip_overlay.mp4',
  ]
  for name in ('clip.html', 'clip_overlay.mp4'):  # they hold a face and a voice
    assert (tmp_path / 'out' / name).stat().st_mode & 0o777 == 0o600
  table = read_csv(tmp_path / 'out' / 'clip.csv')
  assert list(table)[:6] == ['frame', 'time', 'valence', 'arousal', 'face_found', 'audio_present']
  assert [name for name in table if name.startswith('gate')] == [
    f'gate_{m}_{k}' for m in ('audio', 'visual') for k in range(4)
  ]
  np.testing.assert_array_equal(table['frame'], np.arange(1, 31))
  np.testing.assert_allclose(table['time'], np.arange(30) / 25, atol=1e-4)
  np.testing.assert_array_equal(np.flatnonzero(table['face_found'] == 0), [4, 5])
  for target in ('valence', 'arousal'):
    np.testing.assert_allclose(table[target], getattr(result, target), rtol=0, atol=6e-7)
    assert np.abs(table[target]).max() <= 1
  np.testing.assert_allclose(sum(table[f'gate_visual_{k}'] for k in range(4)), 1, atol=1e-5)
  header = (tmp_path / 'out' / 'clip.csv').read_text().splitlines()[:2]
  assert (
    all(line.startswith('# ') for line in header)
    and 'no face in 2 of 30 frames' in header[0]
    and 'seconds' in header[1]
  )
  data = json.loads(
    (tmp_path / 'out' / 'clip.html')
    .read_text()
    .split('type="application/json"')[1]
    .split('>', 1)[1]
    .split('</script>')[0]
  )
  assert data['targets']['valence'] == [round(float(x), 6) for x in table['valence']]
  with av.open(str(tmp_path / 'out' / 'clip_overlay.mp4')) as film:
    assert film.streams.video[0].frames == 30 and film.streams.audio
  with pytest.raises(InputError, match='clip.csv exists and is not overwritten'):
    avjax.predict_video(clip[0], tiny_run, tmp_path / 'out', crops=clip[1])
  assert np.array_equal(read_csv(tmp_path / 'out' / 'clip.csv')['valence'], table['valence'])


@pytest.mark.slow
def test_two_runs_at_once_are_each_alone(clip, tmp_path):
  runs = []
  for target, seed in (('valence', 1), ('arousal', 2)):
    config = tiny.get_config(f'target={target}')
    config.data.stride = 12 if target == 'arousal' else 8
    runs.append(made_run(tmp_path / target, config, seed))
  both = avjax.predict_video(clip[0], runs, crops=clip[1])
  for folder, target in zip(runs, ('valence', 'arousal'), strict=True):
    alone = avjax.predict_video(clip[0], folder, crops=clip[1])
    assert list(alone.predictions) == [target]
    np.testing.assert_array_equal(getattr(both, target), getattr(alone, target))
    np.testing.assert_array_equal(both.gates[f'{target}/visual'], alone.gates['visual'])
  with pytest.raises(InputError, match='the runs predict valence, valence'):
    avjax.predict_video(clip[0], [runs[0], runs[0]], crops=clip[1])


@pytest.mark.slow
def test_where_nothing_was_seen_nothing_is_predicted(clip, tiny_run, tmp_path):
  """Without sound, frames without a face stay empty. Without any face, too, it is an error."""
  write_video(tmp_path / 'mute.mp4', 30)
  found = avjax.predict_video(tmp_path / 'mute.mp4', tiny_run, crops=clip[1])
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.valence)), [4, 5])
  np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.gates['visual'][:, 0])), [4, 5])
  assert 'no sound' in found.notes
  found = avjax.predict_video(clip[0], tiny_run)  # grey frames with a tone: audio only
  assert (
    not found.face_found.any()
    and np.isfinite(found.valence).all()
    and 'no face in 30 of 30 frames' in found.notes
  )
  with pytest.raises(InputError, match='no face is found in it and it has no sound'):
    avjax.predict_video(tmp_path / 'mute.mp4', tiny_run, tmp_path / 'out')
  assert not (tmp_path / 'out').exists()
  config = tiny.get_config()
  config.model.audio.tower, config.model.fusion = 'none', {'name': 'visual'}
  with pytest.raises(
    InputError, match='mute.mp4: no face|clip.mp4: no face is found in it; there is nothing'
  ):
    avjax.predict_video(clip[0], made_run(tmp_path / 'visual', config))


@pytest.mark.parametrize('rate, frames', [(8, 16), (120, 240), (25, 50), (25, 1)])
def test_unusual_rates_and_lengths(rate, frames, tiny_run, tmp_path):
  write_video(
    tmp_path / 'clip.mp4',
    frames,
    0.3 * np.sin(np.arange(44_100 * (frames // rate + 1)) / 20),
    rate=rate,
  )
  found = avjax.predict_video(tmp_path / 'clip.mp4', tiny_run, tmp_path / 'out')
  assert len(found.frames) == frames and np.isfinite(found.valence).all()
  np.testing.assert_allclose(found.times, np.arange(frames) / rate, atol=1e-3)
  assert any('frames a second' in note for note in found.notes) == (rate in (8, 120))
  assert all((tmp_path / 'out' / f'clip.{kind}').stat().st_size for kind in ONE_FILE)


def test_a_variable_rate_keeps_its_times(tiny_run, tmp_path):
  pts = np.cumsum([0, *[40, 80] * 14, 40])
  write_video(tmp_path / 'clip.mp4', 30, tone(45), pts=pts)
  found = avjax.predict_video(tmp_path / 'clip.mp4', tiny_run, tmp_path / 'out')
  np.testing.assert_allclose(found.times, pts / 1000, atol=1e-4)
  np.testing.assert_allclose(read_csv(tmp_path / 'out' / 'clip.csv')['time'], pts / 1000, atol=1e-4)


def test_a_very_large_picture(tiny_run, tmp_path):
  """An 8K video is read at a smaller size."""
  with av.open(str(tmp_path / 'clip.mp4'), 'w') as container:
    stream = container.add_stream('mpeg4', rate=25)
    stream.width, stream.height, stream.pix_fmt = 7680, 4320, 'yuv420p'
    for _ in range(2):
      container.mux(
        stream.encode(
          av.VideoFrame.from_ndarray(np.full((4320, 7680, 3), 90, np.uint8), format='rgb24')
        )
      )
    container.mux(stream.encode())
  assert next(video.read_frames(tmp_path / 'clip.mp4', 640)).shape == (360, 640, 3)
  with pytest.raises(InputError, match='no face is found in it and it has no sound'):
    avjax.predict_video(tmp_path / 'clip.mp4', tiny_run)


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_2(clip, tiny_run, tmp_path):
  (tmp_path / 'empty.mp4').write_bytes(b'')
  (tmp_path / 'text.mp4').write_text('not a video\n' * 100)
  (tmp_path / 'cut.mp4').write_bytes(clip[0].read_bytes()[:2000])
  config = tiny.get_config()
  config.model.visual.tower, config.data.features = 'features/clip', {'clip': 4}
  features = made_run(tmp_path / 'features', config)
  (tmp_path / 'nothing').mkdir()
  before = sorted(tmp_path.iterdir())
  for arguments, words in (
    ([tmp_path / 'empty.mp4'], 'empty.mp4 cannot be read as a video'),
    ([tmp_path / 'text.mp4'], 'text.mp4 cannot be read as a video'),
    ([tmp_path / 'cut.mp4'], 'cut.mp4'),
    ([tmp_path / 'none.mp4'], 'does not exist'),
    ([tmp_path / 'nothing'], 'holds no videos'),
    ([clip[0], '--stride', '13'], 'stride of 13'),
    ([clip[0], '--run', tmp_path / 'nothing'], 'config.json'),
    ([clip[0], '--run', features], 'features of another backbone (clip)'),
    ([clip[0], '--crops', tmp_path / 'none'], 'none is not a folder'),
  ):
    run_ = [] if '--run' in arguments else ['--run', tiny_run]
    done = call(*arguments, *run_, '--output', tmp_path / 'out', module='avjax.predict')
    assert done.returncode == 2 and one_line(done.stderr) and words in done.stderr, (
      arguments,
      done.stderr,
    )
    shutil.rmtree(tmp_path / 'out', ignore_errors=True)
  assert sorted(tmp_path.iterdir()) == before


def test_a_folder_of_videos(clip, tiny_run, tmp_path):
  """Good videos are predicted, a bad one is named, and the exit code says that there was one."""
  (tmp_path / 'videos').mkdir()
  for name in ('a.mp4', 'b.mp4'):
    shutil.copy(clip[0], tmp_path / 'videos' / name)
  (tmp_path / 'videos' / 'broken.avi').write_bytes(b'x' * 1000)
  done = call(
    tmp_path / 'videos', '--run', tiny_run, '--output', tmp_path / 'out', module='avjax.predict'
  )
  assert done.returncode == 2 and one_line(done.stderr) and 'broken.avi' in done.stderr
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
    f'{stem}.{kind}' for stem in 'ab' for kind in ('csv', 'html', 'png')
  ]


@pytest.mark.slow
def test_what_python_gets_wrong_is_said_before_the_work(clip, tiny_run, tmp_path):
  for words, arguments in (
    ('face banana is not one of', {'face': 'banana'}),
    ('face 0 is not one of', {'face': 0}),
    ('stride of 0 frames', {'stride': 0}),
    ('whole number of frames, not 2.5', {'stride': 2.5}),
    ('name a folder', {'output': ''}),
    ('holds no crop of frames 1 to 30', {'crops': tmp_path}),
  ):
    with pytest.raises(InputError, match=words):
      avjax.predict_video(clip[0], tiny_run, **arguments)
  with pytest.raises(InputError, match='no run is given'):
    avjax.predict_video(clip[0], [])


def test_a_crop_that_cannot_be_read_is_no_face_and_is_said(clip, tiny_run):
  (clip[1] / '00009.jpg').write_bytes(b'no picture')
  found = avjax.predict_video(clip[0], tiny_run, crops=clip[1])
  np.testing.assert_array_equal(np.flatnonzero(~found.face_found), [4, 5, 8])
  assert '1 of the crops cannot be read: no face in their frames' in found.notes


def test_what_somebody_else_writes_meanwhile_stays(clip, tiny_run, tmp_path, monkeypatch):
  original = plots.clip

  def slow(*arguments):
    (tmp_path / 'out' / 'clip.html').write_text('mine')
    original(*arguments)

  monkeypatch.setattr(plots, 'clip', slow)
  with pytest.raises(InputError, match='clip.html exists'):
    avjax.predict_video(clip[0], tiny_run, tmp_path / 'out', crops=clip[1])
  assert [(path.name, path.read_text()) for path in (tmp_path / 'out').iterdir()] == [
    ('clip.html', 'mine')
  ]


def test_an_interruption_is_one_line_whenever_it_comes(clip, tiny_run, tmp_path, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt

  for name in ('load_predictors', 'collect_prediction'):
    with monkeypatch.context() as patched:
      patched.setattr(predict, name, interrupted)
      done = call(
        clip[0],
        '--run',
        tiny_run,
        '--crops',
        clip[1],
        '--output',
        tmp_path / 'out',
        module='avjax.predict',
      )
    assert done.returncode == 130 and done.stderr.splitlines() == [
      'interrupted: nothing of clip.mp4 was kept'
    ]
    assert not (tmp_path / 'out').exists()


def test_two_frames_at_one_time_are_refused(clip, tiny_run, tmp_path):
  write_video(tmp_path / 'x.ts', 10)
  (tmp_path / 'xx.ts').write_bytes((tmp_path / 'x.ts').read_bytes() * 2)
  with pytest.raises(InputError, match='frames 1 and 2 are shown at the same time'):
    avjax.predict_video(tmp_path / 'xx.ts', tiny_run, tmp_path / 'out')


@pytest.mark.slow
def test_names_of_any_bytes(clip, tiny_run, tmp_path):
  (tmp_path / 'a:b').mkdir()
  path = tmp_path / 'a:b' / os.fsdecode(b'caf\xe9 <b> ' + '映像'.encode() + b'.mp4')
  shutil.copy(clip[0], path)
  done = call(
    path,
    '--run',
    tiny_run,
    '--output',
    tmp_path / 'out',
    '--crops',
    clip[1],
    module='avjax.predict',
  )
  assert done.returncode == 0 and 'caf' in done.stdout, done.stderr
  long = tmp_path / ('x' * 251 + '.mp4')
  shutil.copy(clip[0], long)
  with pytest.raises(InputError, match='is too long'):
    avjax.predict_video(long, tiny_run, tmp_path / 'out2')
  (tmp_path / 'file').write_text('mine')
  done = call(
    clip[0],
    '--run',
    tiny_run,
    '--output',
    tmp_path / 'file',
    '--crops',
    clip[1],
    module='avjax.predict',
  )
  assert (
    done.returncode == 2 and one_line(done.stderr) and (tmp_path / 'file').read_text() == 'mine'
  )


def test_an_exported_model_that_was_edited_is_refused(tiny_run, clip, tmp_path):
  export_run(tiny_run, tmp_path / 'model')
  description = json.loads((tmp_path / 'model' / 'model.json').read_text())
  description['config']['targets'] = ['arousal', 'valence']
  (tmp_path / 'model' / 'model.json').write_text(json.dumps(description))
  with pytest.raises(InputError, match='model.json has been changed'):
    avjax.predict_video(clip[0], tmp_path / 'model', crops=clip[1])


def test_what_is_lost_of_a_damaged_film_is_said(tiny_run, tmp_path):
  """A damaged .mkv is predicted as far as it can be decoded, and a remark says what is lost.

  The file ends early, or has a gap.
  """
  write_video(tmp_path / 'whole.mkv', 200, 0.3 * np.sin(np.arange(44_100 * 8) / 20))
  assert interruptions(video.read_timeline(tmp_path / 'whole.mkv')) == []
  whole = (tmp_path / 'whole.mkv').read_bytes()
  (tmp_path / 'short.mkv').write_bytes(whole[: len(whole) // 2])
  found = avjax.predict_video(tmp_path / 'short.mkv', tiny_run)
  assert (
    50 < len(found.frames) < 150
    and f'the file says that it lasts 8.0 s; its frames end after {len(found.frames) / 25:.1f} s'
    in found.notes
  )
  write_video(tmp_path / 'hole.mp4', 30, pts=np.arange(30) * 40 + 5000 * (np.arange(30) > 14))
  assert interruptions(video.read_timeline(tmp_path / 'hole.mp4')) == [
    'no new frame for 5.0 s after 0.6 s'
  ]


# Real clips.


@pytest.mark.slow
@pytest.mark.skipif(not MEDIA.is_dir(), reason=f'the real clips are not here: {MEDIA} is absent')
@pytest.mark.parametrize(
  'name',
  ['grid_s1_bbaf2n.mpg', 'grid_lrwp9a.mpg', 'WolfgangLanger_Pexels.mp4', 'openmpf_video_01.mp4'],
)
def test_real_clips(name, tiny_run, tmp_path):
  """In real clips with a face in every frame, it is found in at least 95 % of the frames.

  The face that is followed is always the same, and moves smoothly.
  """
  found = avjax.predict_video(MEDIA / name, tiny_run, tmp_path)
  assert found.face_found.mean() >= 0.95
  centre = found.boxes[:, :2] + found.boxes[:, 2:] / 2
  assert np.nanmax(np.abs(np.diff(centre, axis=0))) < 0.25
  assert np.isfinite(found.valence[found.face_found]).all()


@pytest.mark.slow
@pytest.mark.skipif(not MEDIA.is_dir(), reason=f'the real clips are not here: {MEDIA} is absent')
def test_people_of_a_group(tiny_run):
  left, right = (
    avjax.predict_video(MEDIA / 'openmpf_video_01.mp4', tiny_run, face=side)
    for side in ('left', 'right')
  )
  assert np.nanmean(left.boxes[:, 0]) < np.nanmean(right.boxes[:, 0]) - 0.2


@pytest.mark.skipif(not MEDIA.is_dir(), reason=f'the real clips are not here: {MEDIA} is absent')
def test_an_aligned_face_lies_on_the_template():
  """Detected again in the aligned crop, the five points are where the towers expect them."""
  image = np.asarray(Image.open(MEDIA / 'astronaut.png').convert('RGB'))
  crop = detection.align(image, detection.detect(image)[1][0])
  _, points, _ = detection.detect(np.pad(crop, ((40, 40), (40, 40), (0, 0))))
  np.testing.assert_allclose(points[0] - 40, detection.TEMPLATE, atol=6)
  assert faces.fit(Image.fromarray(crop), 48).shape == (48, 48, 3)
