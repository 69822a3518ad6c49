"""Opens a video and finds a person's face in it: what can be done before a model is there."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from tqdm import tqdm

from avjax.errors import InputError, one_line
from avjax.inference.face_source import NUMBER, FoundFaces, GivenFaces, NoFaces, check_face
from avjax.inference.formats import check_formats
from avjax.inference.outputs import check_absent, display, output_paths
from avjax.inference.source import FilmSource, SoundSource, open_source
from avjax.inference.timing import Clock
from avjax.media import audio
from avjax.media.decoder import Decoder

TURNS = ('auto', '0', '90', '180', '270')  # degrees clockwise


@dataclasses.dataclass
class LookedAt:
  """Holds a video in whose frames the person's face has been found. A context manager.

  first_rows, audio_present: what `audio.place` returns.
  outputs: {kind: path} of the files to write.
  progress: the bar of all passes over the video; it is closed at the end of the context.
  """

  source: FilmSource | SoundSource
  person: FoundFaces | GivenFaces | NoFaces
  first_rows: np.ndarray
  audio_present: np.ndarray
  outputs: dict[str, pathlib.Path]
  clock: Clock
  progress: tqdm

  def __enter__(self) -> LookedAt:
    return self

  def __exit__(self, *exception):
    self.progress.close()


@contextlib.contextmanager
def look_at_all(paths: Sequence, **options) -> Iterator[Iterator[LookedAt | InputError]]:
  """Yields an iterator of what is found in each video, or of why it cannot be read.

  In the first, faces are looked for at once, in a thread, so that a model can be loaded meanwhile;
  in the others when the iterator comes to them. options: as `look_at` takes them.
  """
  # At the end the decoder stops first, so that what looks at the first video does not go on.
  with concurrent.futures.ThreadPoolExecutor(1) as pool, Decoder() as decoder:
    first = pool.submit(look_at, decoder, paths[0], **options)

    def each():
      for path in paths:
        try:
          yield first.result() if path is paths[0] else look_at(decoder, path, **options)
        except InputError as error:
          yield error

    yield each()


def look_at(
  decoder: Decoder, path, *, output, face, crops, overlay, film, sound, rotate, formats
) -> LookedAt:
  """Opens a video and finds whose face is read, with arguments of `predict_video`."""
  path, clock = pathlib.Path(path), Clock()
  check_options(output, face, film, sound, rotate, formats)
  outputs = output_paths(path, output, overlay, formats)
  check_absent(outputs)
  turn = 0 if rotate == 'auto' else int(rotate)
  source = open_source(decoder, path, film=film, sound=sound, turn=turn)
  placed = audio.place(source.timeline, source.sound)
  total = (2 - bool(crops) + overlay) * len(source.timeline.times)  # frames of all passes
  with contextlib.ExitStack() as stack:
    bar = tqdm(total=total, desc=display(path), unit='frame', leave=False, disable=None)
    progress = stack.enter_context(bar)
    person = find_person(source, clock, face, crops, rotate, progress)
    stack.pop_all()
  return LookedAt(source, person, *placed, outputs, clock, progress)


def check_options(output, face, film, sound, rotate, formats):
  """Raises InputError for an option of `predict_video` that is out of its range."""
  if output is not None and not str(output):
    raise InputError('--output is empty; name a folder')
  check_face(face)
  check_formats(formats)
  if formats and output is None:
    raise InputError('formats are given and no folder to write them to; name one as output')
  for name, number in (('film', film), ('sound', sound)):
    if number is not None and (not isinstance(number, int) or not NUMBER.fullmatch(str(number))):
      raise InputError(
        f'--{name} is the number of a track, from 1 to 9999, not {one_line(repr(number))}'
      )
  if str(rotate) not in TURNS:
    raise InputError(f'--rotate is one of {", ".join(TURNS)}, not {one_line(repr(rotate))}')


def find_person(source, clock, face, crops, rotate, progress):
  """Returns whose face is read: from a folder of crops, or found in the film."""
  count = len(source.timeline.times)
  if crops:
    if not source.has_film:
      raise InputError(f'{source.path} holds no film to which --crops could belong')
    return GivenFaces(crops, count)
  if not source.has_film:
    progress.update(count)
    return NoFaces(count)
  person = FoundFaces(source.timeline, clock)
  person.find(source, face, rotate == 'auto', progress)
  return person
