"""Opens media files with PyAV and chooses their tracks of film and sound."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator

import av
from av.stream import Disposition

from avjax.errors import InputError, one_line
from avjax.media.picture import HDR

MAX_PIXELS = 8192 * 8192  # a decoded frame of this size takes 200 MB as RGB

# FFmpeg's reports of damage stay unheard, as PyAV has it by default. With av.logging.set_level they
# would go through Python, and the threads of a decoder that is closed early would wait for the
# interpreter while it waits for them.


@dataclasses.dataclass(frozen=True)
class Contents:
  """Describes the tracks of a file; the numbers of tracks count from 1.

  films, sounds: for each track of film and of sound, its language or '' where none is given.
    Cover pictures are not films.
  film, sound: the number of the track that is read; None where there is none.
  hdr: PQ or HLG where the film has these transfer curves, otherwise empty.
  """

  films: tuple[str, ...]
  sounds: tuple[str, ...]
  film: int | None
  sound: int | None
  hdr: str


def address(path: str | os.PathLike[str]) -> str:
  """Returns the absolute path of a file for FFmpeg.

  FFmpeg would take the 12 of a relative path 12:30.mp4 for the name of a protocol.
  """
  return str(pathlib.Path(path).absolute())


@contextlib.contextmanager
def opened(path: str | os.PathLike[str]):
  """Opens a media file as an av.container.InputContainer.

  Raises InputError for everything that FFmpeg cannot read, also later in the context.
  """
  try:
    with av.open(address(path)) as container:
      if container.format.name == 'tty':  # FFmpeg plays text files, too
        raise InputError(f'{path} holds no video stream')
      yield container
  except InputError:
    raise
  except (av.error.FFmpegError, OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or one_line(error)
    raise InputError(f'{path} cannot be read as a video: {reason}') from error


def read_contents(
  path: str | os.PathLike[str], film: int | None = None, sound: int | None = None
) -> Contents:
  """Returns the Contents of a file.

  film, sound: the number of the track to read, from 1; None chooses as players do.
  Raises InputError where there is no such track.
  """
  with opened(path) as container:
    films, sounds = film_tracks(container), sound_tracks(container)
    chosen = film_track(path, container, film)
    return Contents(
      tuple(stream.language or '' for stream in films),
      tuple(stream.language or '' for stream in sounds),
      number_of(chosen, films),
      number_of(sound_track(path, container, sound), sounds),
      HDR.get(chosen.codec_context.color_trc, '') if chosen is not None else '',
    )


def number_of(stream, tracks):
  """Returns the number, from 1, of a stream among tracks; None for None."""
  return None if stream is None else [track.index for track in tracks].index(stream.index) + 1


def film_tracks(container) -> list:
  """Returns the video streams of a container that are films; the picture of a cover is not."""
  return [
    stream
    for stream in container.streams.video
    if stream.codec_context and not stream.disposition & Disposition.attached_pic
  ]


def sound_tracks(container) -> list:
  """Returns the audio streams of a container for which there is a decoder."""
  return [stream for stream in container.streams.audio if stream.codec_context]


def film_track(path, container, number: int | None):
  """Returns the chosen film track of a container, or None where it has none.

  Raises InputError where there is no track of this number, or its pictures are too large.
  """
  stream = choose(path, film_tracks(container), container.streams.best('video'), number, 'film')
  if stream is not None:
    check_size(path, stream.codec_context)
  return stream


def sound_track(path, container, number: int | None):
  """Returns the chosen sound track of a container, or None where it has none.

  Raises InputError where there is no track of this number, or there is sound but no decoder for it.
  """
  tracks = sound_tracks(container)
  if container.streams.audio and not tracks:
    raise InputError(f'{path} has sound that FFmpeg cannot decode; convert its sound, or remove it')
  return choose(path, tracks, container.streams.best('audio'), number, 'sound')


def choose(path, tracks, best, number, kind):
  """Returns the track of this number, from 1, or without a number the best one."""
  if number is None:
    return next(
      (track for track in tracks if best is not None and track.index == best.index),
      tracks[0] if tracks else None,
    )
  if not 1 <= number <= len(tracks):
    have = f'{len(tracks)} track{"s" * (len(tracks) != 1)}' if tracks else 'no track'
    raise InputError(f'{path} has no {kind} track {number}: it holds {have} of {kind}')
  return tracks[number - 1]


def packets_of(container, stream) -> Iterator[av.Packet]:
  """Yields the packets of a stream, and an empty one at the end.

  A stream that begins only on the way, of which the file's header does not know, is passed over:
  PyAV would fail at the end of the file, where it looks for the last packets of all streams.
  """
  with contextlib.suppress(IndexError):
    yield from container.demux(stream)


def check_size(path, image):
  """Raises InputError for an image of more than MAX_PIXELS pixels.

  image: anything with width and height.
  """
  if image.width * image.height > MAX_PIXELS:
    raise InputError(
      f'{path} is {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are read'
    )
