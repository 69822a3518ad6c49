"""Reads AFEW-VA, whose clips are folders of pictures with a JSON file.

    AFEW-VA/001/00000.png     the frames, from 0
    AFEW-VA/001/001.json      {"video_id": "001", "actor": ..., "frames": {"00000": {
                              "valence": ..., "arousal": ..., "landmarks": ...}, ...}}
    AFEW-VA/videos/001.mp4    made of these pictures by you

Values are whole numbers from -10 to 10, and each frame has its own. The pictures come without
sound, and the set does not state their frame rate; 25 is a guess in

    ffmpeg -framerate 25 -i AFEW-VA/001/%05d.png AFEW-VA/videos/001.mp4

There are no official partitions: folds are made such that no actor is in two.

Source of names and formats: Kossaifi et al., AFEW-VA database for valence and arousal estimation
in-the-wild, Image and Vision Computing 65 (2017), and public loaders of it, such as
gdl/datasets/AfewVaDataModule.py of radekd91/emoca.
"""

import itertools
import pathlib

import numpy as np

from avjax import files
from avjax.data.names import check_name
from avjax.errors import InputError, as_input_error
from avjax.files.mistakes import Mistakes
from avjax.media.faces import MAX_FRAME
from data_prep.labels import DIMENSIONS
from data_prep.sources import Source, known, partition, plain, register
from data_prep.sources.label_files import LabelFile

VIDEOS = 'videos'
RANGE = -10, 10


@register('afew-va')
class AfewVa(Source):
  """AFEW-VA with a JSON file in each folder of pictures, and videos/ that are made of them."""

  def add_options(self, parser):
    known.add_options(parser)
    partition.add_options(parser)
    parser.add_argument(
      '--videos', type=pathlib.Path, metavar='DIR', help=f'the videos (default: SOURCE/{VIDEOS})'
    )

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    videos = plain.list_videos(args.videos or source / VIDEOS, mistakes)
    written, assigned = {}, {}
    for name in videos:
      path = source / name / f'{name}.json'
      if path.exists():
        labels, actor = read_labels(path)
        written[name] = [labels]
      else:
        actor = None
      assigned[name] = partition.Assignment(None, actor, str(path))
    for folder in files.visible(source):
      if folder.name not in videos and (folder / f'{folder.name}.json').exists():
        mistakes.add('clips have no video', str(folder), '; docs/data.md says how they are made')
    return known.plan(videos, written, assigned, mistakes, args, RANGE)


def read_labels(path: pathlib.Path) -> tuple[LabelFile, str | None]:
  """Reads the labels of a clip, and who it shows; None where that is not said."""
  content = files.read_json(path, 'is it readable?')
  with as_input_error(f'{path} is no annotation of AFEW-VA'):
    frames = sorted(
      (int(name), *(value_of(path, name, frame, d) for d in DIMENSIONS))
      for name, frame in content['frames'].items()
    )
    names = [name for name, *_ in frames]
    if not names or not 0 <= names[0] <= names[-1] < MAX_FRAME:
      raise InputError(f'{path} holds no frames that are counted from 0')
    for name, after in itertools.pairwise(names):
      if name == after:
        raise InputError(f'{path} holds the frame {name} twice')
    actor = content.get('actor') or None
    if actor is not None:
      check_name(actor, str(path))
    values = np.array([both for _, *both in frames])
    return LabelFile(path, '', True, np.array(names) + 1.0, values, names, 'frame'), actor


def value_of(path: pathlib.Path, name: str, frame: dict, dimension: str) -> float:
  """Returns the valence or arousal of a frame; InputError where it is no number."""
  try:
    return float(frame[dimension])
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(f'{path}, frame {name[:20]}: its {dimension} is no number') from error
