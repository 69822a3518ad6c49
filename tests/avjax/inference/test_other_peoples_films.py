"""Tests avjax.predict on files as other people's cameras and programs make them."""

import pathlib
import shutil

import av
import numpy as np
import pytest
import tiny
from fault.harness import call, made_run, one_line
from official_set import tone, write_video
from other_files import tone_of, write_sounds
from PIL import Image

import avjax
from avjax.errors import InputError
from avjax.inference import orientation
from avjax.media import writer
from avjax.media.bounds import LONGEST_GAP

ASTRONAUT = pathlib.Path(__file__).parents[2] / 'data/astronaut.jpg'


@pytest.fixture(scope='module')
def visual_run(tmp_path_factory):
  """A run that reads faces alone."""
  config = tiny.get_config()
  config.model.audio.tower, config.model.fusion = 'none', {'name': 'visual'}
  return made_run(tmp_path_factory.mktemp('run') / 'visual', config)


@pytest.fixture
def face_film(tmp_path):
  """Returns face_film(name, turns), which writes a film of a face, turned clockwise."""

  def write(name, turns=0):
    image = np.ascontiguousarray(np.rot90(np.asarray(Image.open(ASTRONAUT)), -turns))
    with av.open(str(tmp_path / name), 'w') as film:
      stream = film.add_stream('libx264', rate=25, options={'crf': '10'})
      stream.height, stream.width = (side // 2 * 2 for side in image.shape[:2])
      stream.pix_fmt = 'yuv420p'
      for _ in range(16):
        film.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
      film.mux(stream.encode())
    return tmp_path / name

  return write


@pytest.mark.slow
@pytest.mark.parametrize('turns', [1, 2, 3])
def test_a_turned_film_is_noticed_and_turned(face_film, visual_run, turns):
  """The values are those of the upright film; --rotate turns it by hand, or leaves it."""
  upright = avjax.predict_video(face_film('upright.mp4'), visual_run)
  path, back = face_film('turned.mp4', turns), 360 - 90 * turns
  assert not any('turned' in note for note in upright.notes)
  found = avjax.predict_video(path, visual_run)
  assert (
    f'the faces are not upright: the film is turned by {back} degrees clockwise; '
    '--rotate 0 leaves it as it is'
  ) in found.notes
  by_hand = avjax.predict_video(path, visual_run, rotate=back)
  for other in (found, by_hand):
    np.testing.assert_allclose(other.boxes, upright.boxes, atol=0.02)
    np.testing.assert_allclose(other.valence, upright.valence, atol=0.02)
  left = avjax.predict_video(path, visual_run, rotate=0)
  assert np.abs(left.boxes - upright.boxes).max() > 0.05


@pytest.mark.slow
def test_upright_faces_are_searched_for_where_few_are_found():
  """The picture is turned in all four ways; where no turn shows a face, the film stays as it is."""
  image = np.asarray(Image.open(ASTRONAUT).convert('RGB'))
  for turns in range(4):
    turned = np.ascontiguousarray(np.rot90(image, -turns))
    assert orientation.turn_of_frames(iter([turned] * 16), 16) == -90 * turns % 360
  assert orientation.turn_of_frames(iter([np.zeros((96, 96, 3), np.uint8)] * 16), 16) == 0


@pytest.mark.slow
@pytest.mark.parametrize('ending', ['.m4a', '.wav'])
def test_sound_without_a_film_is_predicted_from_the_voice(ending, tiny_run, visual_run, tmp_path):
  """A cover picture is not a film; a model that reads faces alone says so in a line."""
  path = tmp_path / f'voice{ending}'
  if ending == '.wav':
    write_sounds(path, [[tone_of(440, seconds=2)]])
  else:
    sound_with_cover(path)
  found = avjax.predict_video(path, tiny_run, tmp_path / 'out')
  assert abs(len(found.frames) - 50) <= 2 and np.isfinite(found.valence).all()
  np.testing.assert_allclose(np.diff(found.times), 0.04)
  assert found.audio_present.all() and not found.face_found.any() and np.isnan(found.boxes).all()
  assert 'sound without a film: 25 rows a second, from the voice alone' in found.notes
  assert sorted(made.suffix for made in (tmp_path / 'out').iterdir()) == ['.csv', '.html', '.png']
  done = call(path, '--run', visual_run, '--output', tmp_path / 'no', module='avjax.predict')
  assert done.returncode == 2 and one_line(done.stderr) and not (tmp_path / 'no').exists()
  assert f'{path}: it holds no film with a face; there is nothing to predict from' in done.stderr
  with pytest.raises(InputError, match='holds no film to which --crops could belong'):
    avjax.predict_video(path, tiny_run, crops=tmp_path)


def sound_with_cover(path):
  """Writes two seconds of AAC with a cover picture."""
  wave = (0.3 * 32_767 * np.sin(np.arange(32_000) / 6)).astype(np.int16)[None]
  with av.open(str(path), 'w', format='mp4') as file:
    sound = file.add_stream('aac', rate=16_000, layout='mono')
    cover = file.add_stream('mjpeg', rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 48, 'yuvj420p'
    cover.disposition = av.stream.Disposition.attached_pic
    for first in range(0, 32_000, 1024):
      frame = av.AudioFrame.from_ndarray(wave[:, first : first + 1024], format='s16', layout='mono')
      frame.sample_rate, frame.pts = 16_000, first
      file.mux(sound.encode(frame))
    file.mux(sound.encode())
    picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format='rgb24')
    file.mux(cover.encode(picture))
    file.mux(cover.encode())


@pytest.mark.slow
def test_several_tracks_are_said_and_chosen(tiny_run, tmp_path):
  path = tmp_path / 'tracks.mkv'
  write_sounds(path, [[tone_of(300)], [tone_of(900)]], films=(40, 120), languages=('deu', 'fra'))
  first = avjax.predict_video(path, tiny_run)
  second = avjax.predict_video(path, tiny_run, sound=2, film=2)
  for found, taken in ((first, 1), (second, 2)):
    assert (
      f'2 sound tracks (1 deu, 2 fra): track {taken} is read; --sound N takes another'
      in found.notes
    )
    assert f'2 film tracks (1, 2): track {taken} is read; --film N takes another' in found.notes
  assert np.abs(first.valence - second.valence).max() > 1e-4
  for words, arguments in (
    ('has no sound track 3: it holds 2 tracks of sound', ['--sound', '3']),
    ('--film is the number of a track, from 1 to 9999, not 0', ['--film', '0']),
  ):
    done = call(path, '--run', tiny_run, '--output', tmp_path / 'o', *arguments,
                module='avjax.predict')  # fmt: skip
    assert done.returncode == 2 and one_line(done.stderr) and words in done.stderr


def test_opposite_phase_is_heard_and_said(tiny_run, tmp_path):
  wave = tone_of(440)[0]
  write_sounds(
    tmp_path / 'phase.mkv', [[(np.concatenate([wave, -wave]), 16_000, 'stereo')]], films=(90,)
  )
  found = avjax.predict_video(tmp_path / 'phase.mkv', tiny_run)
  assert found.audio_present.all() and 'no sound' not in found.notes
  assert (
    'the channels of the sound cancel out in 1.0 s: the loudest one is taken there' in found.notes
  )


@pytest.mark.parametrize('hours', [2, 10, 1000])
def test_a_hole_of_hours_is_said_at_once(tiny_run, tmp_path, hours):
  pts = np.arange(30) * 40 + 3_600_000 * hours * (np.arange(30) > 14)
  write_video(tmp_path / 'hole.mkv', 30, pts=pts)
  done = call(tmp_path / 'hole.mkv', '--run', tiny_run, '--output', tmp_path / 'out',
              module='avjax.predict')  # fmt: skip
  assert done.returncode == 2 and one_line(done.stderr) and not (tmp_path / 'out').exists()
  assert f'no new frame for {3600 * hours:,} s after 0.6 s; at most 3,600 s are read' in done.stderr


def test_a_hole_below_the_limit_is_predicted(tiny_run, tmp_path):
  pts = np.arange(30) * 40 + int(1000 * LONGEST_GAP - 60_000) * (np.arange(30) > 14)
  write_video(tmp_path / 'hole.mkv', 30, tone(30), pts=pts)
  found = avjax.predict_video(tmp_path / 'hole.mkv', tiny_run, tmp_path / 'out')
  assert len(list((tmp_path / 'out').iterdir())) == 3
  assert 'no new frame for 3540.0 s after 0.6 s' in found.notes


def test_csv_and_figure_stay_where_the_page_cannot_be_written(tiny_run, tmp_path, monkeypatch):
  """The writer of the page's film fails at its fifth frame."""
  write_video(tmp_path / 'clip.mp4', 30, tone(30))
  write = writer.ClipWriter.write

  def failing(self, image):
    if self.count == 4:
      raise av.error.FFmpegError(22, 'patches welcome')
    write(self, image)

  monkeypatch.setattr(writer.ClipWriter, 'write', failing)
  done = call(tmp_path / 'clip.mp4', '--run', tiny_run, '--output', tmp_path / 'out',
              module='avjax.predict')  # fmt: skip
  assert done.returncode == 2 and one_line(done.stderr)
  assert 'clip.mp4: its page cannot be written (patches welcome); the files without' in done.stderr
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['clip.csv', 'clip.png']
  assert len((tmp_path / 'out/clip.csv').read_text().splitlines()) == 33


def test_the_csv_has_one_kind_of_line_ending(tiny_run, tmp_path):
  write_video(tmp_path / 'clip.mp4', 30, tone(30))
  avjax.predict_video(tmp_path / 'clip.mp4', tiny_run, tmp_path / 'out')
  text = (tmp_path / 'out/clip.csv').read_bytes()
  assert text.count(b'\n') == 33 and b'\r' not in text and text.endswith(b'\n')


def test_a_crash_in_one_file_of_a_folder_leaves_the_others(tiny_run, tmp_path, monkeypatch):
  """The decoder aborts on the second of three files, as the C library does after a double free."""
  (tmp_path / 'site').mkdir()
  (tmp_path / 'site/sitecustomize.py').write_text(
    'import builtins, os\n'
    'whole = open\n'
    'builtins.open = lambda path, *rest, **named: (\n'
    '  os.abort() if str(path).endswith("bad.mp4") else whole(path, *rest, **named)\n'
    ')\n'
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'site'))
  (tmp_path / 'films').mkdir()
  write_video(tmp_path / 'films/a.mp4', 30, tone(30))
  for name in ('bad', 'c'):
    shutil.copy(tmp_path / 'films/a.mp4', tmp_path / f'films/{name}.mp4')
  done = call(tmp_path / 'films', '--run', tiny_run, '--output', tmp_path / 'out',
              module='avjax.predict')  # fmt: skip
  assert done.returncode == 2 and one_line(done.stderr)
  assert 'bad.mp4 cannot be decoded: its decoder crashed (SIGABRT)' in done.stderr
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
    f'{name}.{kind}' for name in 'ac' for kind in ('csv', 'html', 'png')
  ]
