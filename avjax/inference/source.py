"""Gives what a model reads from a file: the frames and the sound of a film, or sound alone."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import numpy as np

from avjax.errors import InputError
from avjax.media.container import Contents
from avjax.media.decoder import Decoder
from avjax.media.mixing import SAMPLE_RATE
from avjax.media.video import Timeline

SOUND_RATE = 25.0  # frames per second where there is no film
DARK = 180, 320, 3  # height, width and channels of the picture that is shown with sound alone


class FilmSource:
  """Gives a film and its sound.

  timeline: its Timeline. sound: its DecodedSound, which has been read to its end.
  turn: degrees by which its frames are turned clockwise; it may be set until they are read.
  notes: remarks for people.
  """

  has_film = True

  def __init__(self, decoder: Decoder, path: pathlib.Path, contents: Contents, turn: int = 0):
    self.decoder, self.path, self.contents, self.turn = decoder, path, contents, turn
    self.timeline = decoder.timeline(path, contents.film)
    check_times(path, self.timeline)
    self.sound = read_sound(decoder, path, contents, self.timeline.heard_until)
    self.notes = [*several(contents), *self.sound.remarks]
    if contents.hdr:
      self.notes.append(f'HDR ({contents.hdr}): its tones are mapped to those of SDR')

  def frames(self, longest: int) -> Iterator[np.ndarray]:
    """Yields the frames, (H,W,3) uint8 RGB, with at most `longest` pixels a side."""
    return self.decoder.frames(self.path, longest, self.contents.film, self.turn)


class SoundSource:
  """Gives sound that comes without a film, as a FilmSource with dark frames.

  The cover picture of a sound file is not shown.
  """

  has_film, turn = False, 0

  def __init__(self, decoder: Decoder, path: pathlib.Path, contents: Contents):
    self.path = path
    self.sound = read_sound(decoder, path, contents)
    if not self.sound.count:
      raise InputError(f'{path} holds neither film nor sound that can be decoded')
    times = np.arange(int(np.ceil(self.sound.count / SAMPLE_RATE * SOUND_RATE))) / SOUND_RATE
    self.timeline = Timeline(times, self.sound.start, SOUND_RATE)
    self.notes = [
      f'sound without a film: {SOUND_RATE:g} rows a second, from the voice alone',
      *several(contents),
      *self.sound.remarks,
    ]

  def frames(self, longest: int) -> Iterator[np.ndarray]:
    """Yields a dark picture for each row."""
    del longest
    return (np.zeros(DARK, np.uint8) for _ in self.timeline.times)


def open_source(
  decoder: Decoder, path: pathlib.Path, *, film: int | None, sound: int | None, turn: int
) -> FilmSource | SoundSource:
  """Returns the FilmSource or SoundSource of a file.

  Args:
    decoder: what decodes it.
    path: the file.
    film, sound: numbers of the tracks to read, from 1; None chooses as players do.
    turn: degrees by which the film is turned clockwise.
  """
  contents = decoder.contents(path, film, sound)
  if contents.film is None and contents.sound is not None:
    return SoundSource(decoder, path, contents)
  return FilmSource(decoder, path, contents, turn)


def read_sound(decoder, path, contents, until=None):
  """Returns the sound of a file, read to its end: only then start, gaps and remarks are known.

  until: as video.SoundReader takes it.
  """
  sound = decoder.sound(path, contents.sound, until)
  for _ in sound:
    pass
  return sound


def check_times(path, timeline: Timeline) -> None:
  """Raises InputError where two frames have the same time."""
  same = np.flatnonzero(np.diff(timeline.times) <= 0)
  if len(same):
    raise InputError(
      f'{path}: frames {same[0] + 1} and {same[0] + 2} are shown at the same time; '
      'convert it with ffmpeg -i IN OUT'
    )


def several(contents: Contents) -> list[str]:
  """Returns remarks on tracks of film or sound of which one is taken."""
  notes = []
  for kind, tracks, taken in (
    ('film', contents.films, contents.film),
    ('sound', contents.sounds, contents.sound),
  ):
    if len(tracks) > 1:
      names = ', '.join(f'{i} {name}'.rstrip() for i, name in enumerate(tracks, 1))
      notes.append(
        f'{len(tracks)} {kind} tracks ({names}): track {taken} is read; --{kind} N takes another'
      )
  return notes
