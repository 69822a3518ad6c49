"""Tests that a video is looked at while the model is loaded, and not longer than it may be."""

import threading

import pytest
from official_set import tone, write_video

import avjax
from avjax.errors import InputError
from avjax.inference import looking, video
from avjax.media.decoder import Decoder


def test_a_model_that_is_refused_ends_the_look_at_the_film(tmp_path, monkeypatch):
  started, ended = threading.Event(), threading.Event()

  def endless(decoder, path, **options):
    try:
      while True:
        for _ in decoder.frames(path, 64, None, 0):
          started.set()
    finally:
      ended.set()

  def refuse(run, engine):
    assert started.wait(60)  # so the film is looked at meanwhile
    raise InputError(f'{run} holds no valid model')

  write_video(tmp_path / 'film.mp4', 12, tone(12))
  monkeypatch.setattr(looking, 'look_at', endless)
  monkeypatch.setattr(video, 'load_predictors', refuse)
  with pytest.raises(InputError, match='none holds no valid model'):
    avjax.predict_video(tmp_path / 'film.mp4', 'none')
  assert ended.is_set()


def test_what_the_look_refuses_is_raised(tmp_path, monkeypatch):
  (tmp_path / 'film.mp4').write_text('no film')
  monkeypatch.setattr(video, 'load_predictors', lambda run, engine: [])
  with pytest.raises(InputError, match='film.mp4 cannot be read as a video'):
    avjax.predict_video(tmp_path / 'film.mp4', 'none')


def test_a_decoder_reads_nothing_after_its_context(tmp_path):
  write_video(tmp_path / 'film.mp4', 12, tone(12))
  with Decoder() as decoder:
    assert decoder.contents(tmp_path / 'film.mp4').film == 1
  with pytest.raises(InputError, match='film.mp4 is not read to its end'):
    decoder.contents(tmp_path / 'film.mp4')
