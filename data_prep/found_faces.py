"""Finds the faces of a clip as avjax.predict does, and keeps them as crops for the next build.

The pixels are those that a model gets from avjax.predict: the same code finds, follows and cuts
out the face, and PNG loses nothing. Beside the crops of a clip, MADE_FROM says what they were made
from, so that they are made again where the video, the face that is wanted, or the programs differ.
A folder appears in one step: a build that is killed leaves no half of one.
"""

import importlib.metadata
import pathlib
import threading
from typing import Any

import cv2
from tqdm import tqdm

from avjax import files
from avjax.errors import InputError, as_input_error, writing
from avjax.inference import face_source
from avjax.inference.source import FilmSource
from avjax.inference.timing import Clock
from avjax.media import detection
from avjax.media.decoder import Decoder

MADE_FROM = 'made_from.json'
PACKAGES = ('av', 'opencv-python-headless')  # by which pixels may differ
COMPRESSION = 1  # of PNG, from 0 to 9: more takes longer, and makes crops hardly smaller

# OpenCV's network holds one image at a time, and a Dask worker may have several threads.
_one_at_a_time = threading.Lock()


def programs() -> dict[str, str]:
  """Returns the versions of what finds faces; InputError where no detector is installed."""
  return {
    'faces': f'{face_source.VERSION}',
    'detector': detection.detector()[0],
    **{name: importlib.metadata.version(name) for name in PACKAGES},
  }


def keep_faces(video: pathlib.Path, sha256: str, face: str, crops: pathlib.Path) -> dict[str, Any]:
  """Makes a folder with the crops of a person's face, unless it is there already.

  Args:
    video: the clip's video.
    sha256: of its bytes.
    face: whose face, as `face_source.check_face` takes it.
    crops: the folder, for PNG files such as 00001.png and MADE_FROM.

  Returns what MADE_FROM says: frames and faces are how many there are, remarks are for people.
  Raises InputError for a folder that something else has made, and where the video cannot be read.
  """
  wanted = {'sha256': sha256, 'face': face, 'programs': programs()}
  found = read_made_from(crops)
  if found and found['made_from'] == wanted:
    return found
  with writing(crops):
    crops.parent.mkdir(parents=True, exist_ok=True)
    with files.temporary_folder(crops.parent) as temporary:
      partial = temporary / 'new'
      partial.mkdir()
      with _one_at_a_time:
        made = {'made_from': wanted, **find_faces(video, face, partial)}
      files.write_json(partial / MADE_FROM, made)
      if crops.exists():  # it was made from something else
        crops.rename(temporary / 'old')
      partial.rename(crops)
  return made


def find_faces(video: pathlib.Path, face: str, folder: pathlib.Path) -> dict[str, Any]:
  """Writes the crops of a person's face into a folder, and returns what there is to say of them."""
  cv2.setNumThreads(1)  # a process for each clip keeps the cores busy
  clock, count = Clock(), 0
  with Decoder() as decoder, tqdm(disable=True) as progress:
    source = FilmSource(decoder, video, decoder.contents(video))
    person = face_source.FoundFaces(source.timeline, clock)
    try:
      person.find(source, face, True, progress)
    except InputError as problem:  # one that there are too few people names no video
      raise problem if str(video) in str(problem) else InputError(f'{video}: {problem}') from None
    for frame, (_, crop) in enumerate(face_source.each_face(source, person, clock), 1):
      if crop is not None:
        crop.save(folder / f'{frame:05d}.png', compress_level=COMPRESSION)
        count += 1
  return {'frames': len(source.timeline.times), 'faces': count, 'remarks': person.notes}


def read_made_from(crops: pathlib.Path) -> dict[str, Any] | None:
  """Returns what `keep_faces` says of a folder of crops, or None where there is no such folder.

  Raises InputError for a folder of other crops, which are not replaced.
  """
  path = crops / MADE_FROM
  if not crops.exists():
    return None
  if not path.is_file():
    raise InputError(
      f'{crops} exists but has no {MADE_FROM}, so it was not made by this program; remove it, or '
      'name another folder with --crops_cache'
    )
  try:
    found = files.read_json(path)
    with as_input_error(f'{path} is damaged'):
      return {name: found[name] for name in ('made_from', 'frames', 'faces', 'remarks')}
  except InputError as error:
    raise InputError(f'{error}; remove {crops}') from error
