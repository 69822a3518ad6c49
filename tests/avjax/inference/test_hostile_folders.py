"""Tests avjax.predict on folders that a stranger has made: each file is read or refused at once."""

import os
import socket

import pytest
from fault.harness import call, one_line
from official_set import tone, write_video

import avjax
from avjax.errors import InputError
from avjax.inference import stream, video
from avjax.system import compilation
from avjax.training import loop
from avjax.weights.exported import export_run

pytestmark = pytest.mark.attack('folders and numbers given to a prediction')


def predict(path, run, output, *rest):
  return call(path, '--run', run, '--output', output, *rest, module='avjax.predict')


@pytest.mark.slow
def test_what_is_no_film_is_said_and_the_films_are_predicted(tiny_run, tmp_path, monkeypatch):
  """A pipe, a socket, a folder, a device and a playlist are beside a film, under names of films."""
  monkeypatch.chdir(tmp_path)
  films = tmp_path / 'films'
  films.mkdir()
  write_video(films / 'honest.mp4', 30, tone(30))
  write_video(tmp_path / 'private.mp4', 30, tone(30))
  os.mkfifo(films / 'pipe.mp4')
  (films / 'folder.mkv').mkdir()
  (films / 'device.avi').symlink_to('/dev/zero')
  with socket.socket(socket.AF_UNIX) as listener:
    listener.bind('films/socket.mov')
  (films / 'list.ts').write_text(f"ffconcat version 1.0\nfile '{tmp_path}/private.mp4'\n")
  done = predict(films, tiny_run, tmp_path / 'out')
  assert done.returncode == 2
  lines = done.stderr.splitlines()
  assert len(lines) == 5 and all(line.startswith('error: ') for line in lines)
  for name in ('pipe.mp4', 'folder.mkv', 'device.avi', 'socket.mov'):
    assert any(f'{name} cannot be read as a video: it is not a regular file' in x for x in lines)
  assert any('list.ts cannot be read as a video: it is damaged, or none of the' in x for x in lines)
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == [
    'honest.csv', 'honest.html', 'honest.png',
  ]  # fmt: skip


def test_a_run_that_is_not_there_is_one_line(tmp_path):
  """What a video needs later is still being imported when the command ends."""
  write_video(tmp_path / 'clip.mp4', 12, tone(12))
  done = predict(tmp_path / 'clip.mp4', tmp_path / 'none', tmp_path / 'out')
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr


def test_an_import_that_python_s_end_stops_is_silent(monkeypatch):
  """Python 3.11 refuses some imports, with a RuntimeError, once the main thread has ended."""

  def stopped(*_):
    raise RuntimeError("can't register atexit after shutdown")

  monkeypatch.setattr(video.audio, 'log_mel', stopped)
  monkeypatch.setattr(loop.dataset, 'tensorflow', stopped)
  video.import_ahead()
  loop.import_ahead()


def test_a_model_of_few_weights_that_takes_much_memory(tiny_run, tmp_path, monkeypatch):
  """It is refused before it runs, by what the compiler says that its activations take."""
  monkeypatch.setattr(compilation, 'memory_for', lambda size: 1000)
  with pytest.raises(InputError, match='tiny would take .* GB of memory for weights of .* MB'):
    stream.StreamingPredictor(tiny_run)
  with pytest.raises(InputError, match='tiny would take .* GB of memory for weights of .* MB'):
    export_run(tiny_run, tmp_path / 'model')
  assert not any(tmp_path.iterdir())


@pytest.mark.parametrize('kind', ['pipe', 'file', 'device'])
def test_an_output_that_is_no_folder(tiny_run, tmp_path, kind):
  write_video(tmp_path / 'clip.mp4', 12, tone(12))
  output = tmp_path / 'out'
  if kind == 'pipe':
    os.mkfifo(output)
  elif kind == 'file':
    output.write_text('mine')
  else:
    output = '/dev/null'
  done = predict(tmp_path / 'clip.mp4', tiny_run, output)
  assert done.returncode == 2 and one_line(done.stderr) and str(output) in done.stderr
  assert kind != 'file' or output.read_text() == 'mine'


def test_a_pipe_in_the_place_of_an_output(tiny_run, tmp_path):
  write_video(tmp_path / 'clip.mp4', 12, tone(12))
  (tmp_path / 'out').mkdir()
  os.mkfifo(tmp_path / 'out/clip.png')
  done = predict(tmp_path / 'clip.mp4', tiny_run, tmp_path / 'out')
  assert done.returncode == 2 and one_line(done.stderr)
  assert 'clip.png exists and is not overwritten' in done.stderr


@pytest.mark.parametrize(
  'option, value', [('face', '9' * 5000), ('face', '0'), ('face', '1e3'), ('film', 10**30),
                    ('sound', 10**30), ('rotate', '9' * 5000), ('stride', 10**30)],
)  # fmt: skip
def test_numbers_out_of_any_range(tiny_run, tmp_path, option, value):
  write_video(tmp_path / 'clip.mp4', 12, tone(12))
  with pytest.raises(InputError) as error:
    avjax.predict_video(tmp_path / 'clip.mp4', tiny_run, **{option: value})
  assert option in str(error.value) and len(str(error.value)) < 400
