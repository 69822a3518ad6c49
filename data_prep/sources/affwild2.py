"""Reads Aff-Wild2 as its organisers distribute it.

It finds the clips, reads their annotations and splits them into chunks.
"""

import dataclasses
import itertools
import pathlib
import re

from avjax import errors, files
from avjax.data.splits import CHUNKS, TEST
from avjax.errors import InputError
from avjax.media import faces
from data_prep import features
from data_prep.clips import Clip, Job, list_crop_ids
from data_prep.sources import Source, register
from data_prep.sources.annotations import read_annotation

VIDEO_FOLDERS = ('batch1', 'batch2', 'new_vids', 'batch3')
CROP_FOLDERS = ('cropped_aligned', 'cropped_aligned_new_50_vids')
TEST_LISTS = 'test_set/names_of_videos_in_each_test_set'
VIDEO_ENDINGS = ('.mp4', '.avi')


@register('affwild2')
class AffWild2(Source):
  """The Aff-Wild2 folder as its organisers distribute it, with annotations of an ABAW challenge."""

  def add_options(self, parser):
    parser.add_argument(
      '--videos',
      nargs='+',
      metavar='DIR',
      help=f'folders of videos (default: those of {", ".join(VIDEO_FOLDERS)} in SOURCE or '
      'SOURCE/videos)',
    )
    parser.add_argument(
      '--crops',
      nargs='+',
      metavar='DIR',
      help=f'folders of aligned crops (default: those of {", ".join(CROP_FOLDERS)} in SOURCE)',
    )
    parser.add_argument(
      '--annotations',
      metavar='DIR',
      help="folder of annotations (default: '<N>th ABAW Annotations' in SOURCE)",
    )
    parser.add_argument(
      '--test_list',
      metavar='FILE',
      help=f'list of test clips, one a line (default: SOURCE/{TEST_LISTS}/Valence_Arousal_*.txt, '
      'if there is one)',
    )

  def plan(self, args):
    roots = find_roots(args.source, args.videos, args.crops, args.annotations, args.test_list)
    unreadable = faces.read_unreadable(args.source)
    feature_folders = features.parse_folders(args.features)

    def plan_clip(clip):
      crop_ids, labels, annotated = list_crop_ids(clip), None, None
      if clip.annotation is not None:
        labels, annotated = read_annotation(clip.annotation, 'out_of_range' in args.tolerate)
      return Job(
        clip,
        crop_ids,
        labels=labels,
        annotated=annotated,
        unreadable=unreadable,
        features=features.find(feature_folders, clip.name),
        ignore_length='length' in args.tolerate,
      )

    clips = list_clips(roots, 'unlisted' in args.tolerate)
    if not any(clip.annotation for clip in clips):
      raise InputError(f'{roots.annotations} holds no annotations')
    return {
      split: [plan_clip(clip) for clip in members] for split, members in split_clips(clips).items()
    }


@dataclasses.dataclass(frozen=True)
class Roots:
  """Holds the paths of the parts of the data set.

  `videos` and `crops` may be several folders. Without a test list there are no test clips.
  """

  videos: tuple[pathlib.Path, ...]
  crops: tuple[pathlib.Path, ...]
  annotations: pathlib.Path
  test_list: pathlib.Path | None


def find_roots(source, videos=None, crops=None, annotations=None, test_list=None):
  """Finds the parts of Aff-Wild2 under `source` by their official names.

  A path that is given is used instead.

  Args:
    source: the folder that holds the data set.
    videos: folders that hold videos, directly or one level down.
    crops: folders of aligned crops, each with one folder per clip.
    annotations: the '<N>th ABAW Annotations' folder, under any name, or its
      VA_Estimation_Challenge.
    test_list: text file with one clip name a line.

  Raises InputError where a part is missing or there are several candidates.
  """
  source = files.existing_folder(source)
  videos = (
    [files.existing_folder(path) for path in videos]
    if videos
    else [
      root / name
      for root in (source, source / 'videos')
      for name in VIDEO_FOLDERS
      if (root / name).is_dir()
    ]
  )
  crops = (
    [files.existing_folder(path) for path in crops]
    if crops
    else [source / name for name in CROP_FOLDERS if (source / name).is_dir()]
  )
  if annotations:
    annotations = files.existing_folder(annotations)
  else:
    found = sorted(
      path
      for path in visible(source)
      if re.fullmatch(r'\d+\w\w ABAW Annotations', path.name) and path.is_dir()
    )
    if len(found) != 1:
      what = 'several sets of annotations' if found else "no '<N>th ABAW Annotations' folder"
      raise InputError(f'{source} holds {what}; name the one to use with --annotations')
    annotations = found[0]
  if (annotations / 'VA_Estimation_Challenge').is_dir():
    annotations = annotations / 'VA_Estimation_Challenge'
  for name in ('Train_Set', 'Validation_Set'):
    files.existing_folder(annotations / name)
  if not videos:
    raise InputError(
      f'{source} holds none of the video folders {", ".join(VIDEO_FOLDERS)}; '
      'name them with --videos'
    )
  if not crops:
    raise InputError(
      f'{source} holds none of the crop folders {", ".join(CROP_FOLDERS)}; name them with --crops'
    )
  if test_list:
    test_list = pathlib.Path(test_list)
    if not test_list.is_file():
      raise InputError(
        f'{test_list} is not a file: --test_list names a text file with one clip a line'
      )
  else:
    lists = sorted((source / TEST_LISTS).glob('Valence_Arousal_*.txt'))
    if len(lists) > 1:
      raise InputError(
        f'{lists[0].parent} holds {len(lists)} lists; name the one to use with --test_list'
      )
    test_list = lists[0] if lists else None
  return Roots(tuple(videos), tuple(crops), annotations, test_list)


def list_clips(roots, ignore_unlisted=False):
  """Returns every clip of the data set, sorted by name.

  Raises InputError where an annotation or a listed test clip has no video or no crops, and (unless
  ignore_unlisted) where a video or a folder of crops belongs to no clip; also where a name occurs
  twice.
  """
  places = [
    place for root in roots.videos for place in [root, *filter(pathlib.Path.is_dir, visible(root))]
  ]
  videos = unique(
    (path.stem, path)
    for place in places
    for path in visible(place)
    if path.suffix.lower() in VIDEO_ENDINGS
  )
  crops = unique(
    (path.name, path) for root in roots.crops for path in visible(root) if path.is_dir()
  )
  listed = [
    (path.stem, (path, partition))
    for partition, name in (('train', 'Train_Set'), ('validation', 'Validation_Set'))
    for path in visible(roots.annotations / name)
    if path.suffix == '.txt'
  ]
  if roots.test_list:
    listed += [(name, (None, 'test')) for name in roots.test_list.read_text().split()]
  listed = unique(listed)

  video_of = {name: videos.get(name, videos.get(base_name(name))) for name in listed}
  errors.raise_if_any('clips have no video', [name for name in listed if video_of[name] is None])
  errors.raise_if_any(
    'clips have no folder of crops', [name for name in listed if name not in crops]
  )
  if not ignore_unlisted:
    hint = '; to leave them out, add --tolerate unlisted'
    used = set(video_of.values())
    errors.raise_if_any(
      'videos have no annotation and are not in the test list',
      [name for name, path in videos.items() if path not in used],
      hint,
    )
    errors.raise_if_any(
      'folders of crops have no annotation and are not in the test list',
      [name for name in crops if name not in listed],
      hint,
    )
  return [Clip(name, video_of[name], crops[name], *listed[name]) for name in sorted(listed)]


def split_clips(clips):
  """Returns {split: clips} for chunk0 to chunk5 and test.

  chunk0 to chunk4 are the five fifths of the training list, and chunk5 is the validation list. Two
  subjects of one video stay in one chunk. Splits may be empty.
  """
  train = sorted(
    (clip for clip in clips if clip.partition == 'train'),
    key=lambda clip: (clip.video.stem, clip.name),
  )
  cuts = [len(train) * i // 5 for i in range(6)]
  for i in range(1, 5):
    while 0 < cuts[i] < len(train) and train[cuts[i] - 1].video == train[cuts[i]].video:
      cuts[i] += 1
  splits = {
    chunk: train[start:end]
    for chunk, (start, end) in zip(CHUNKS[:5], itertools.pairwise(cuts), strict=True)
  }
  splits[CHUNKS[5]] = [clip for clip in clips if clip.partition == 'validation']
  splits[TEST] = [clip for clip in clips if clip.partition == 'test']
  return splits


def base_name(clip_name):
  """Returns the name of the video of a clip.

  Where a video shows two people, their clips add _left or _right to it.
  """
  return re.sub(r'_(left|right)$', '', clip_name)


def visible(path):
  """Returns the entries of a folder in order of name, without .DS_Store and other dot files."""
  return sorted(entry for entry in path.iterdir() if not entry.name.startswith('.'))


def unique(pairs):
  found = {}
  for name, value in pairs:
    if name in found:
      raise InputError(f'{name} occurs twice: {describe(found[name])} and {describe(value)}')
    found[name] = value
  return found


def describe(value):
  path, partition = value if isinstance(value, tuple) else (value, None)
  return str(path or f'the {partition} list')
