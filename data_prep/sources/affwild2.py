"""Reads Aff-Wild2 as its organisers distribute it.

It finds the clips, reads their annotations and splits them into chunks.
"""

import dataclasses
import itertools
import pathlib
import re

from avjax import files
from avjax.data.splits import CHUNKS, TEST
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.media import faces
from data_prep import features
from data_prep.clips import Clip, Job, list_crop_ids
from data_prep.sources import Source, register
from data_prep.sources.annotations import find_annotations, find_sets, read_annotation
from data_prep.sources.folders import (
  LEVELS,
  clip_folders,
  files_within,
  folders_within,
  has_name,
  plain_name,
)

VIDEO_FOLDERS = ('batch1', 'batch2', 'new_vids', 'batch3')
CROP_FOLDERS = ('cropped_aligned', 'cropped_aligned_new_50_vids')
TEST_FOLDERS = ('names_of_videos_in_each_test_set', 'test_set')
VIDEO_ENDINGS = ('.mp4', '.avi')


@register('affwild2')
class AffWild2(Source):
  """The Aff-Wild2 folder as its organisers distribute it, with annotations of an ABAW challenge."""

  def add_options(self, parser):
    parser.add_argument(
      '--videos',
      nargs='+',
      metavar='DIR',
      help=f'folders of videos (default: those called {", ".join(VIDEO_FOLDERS)} in SOURCE)',
    )
    parser.add_argument(
      '--crops',
      nargs='+',
      metavar='DIR',
      help=f'folders of aligned crops (default: those called {", ".join(CROP_FOLDERS)} in SOURCE)',
    )
    parser.add_argument(
      '--annotations',
      metavar='DIR',
      help='folder of annotations (default: VA_Estimation_Challenge or VA_Set in SOURCE)',
    )
    parser.add_argument(
      '--test_list',
      metavar='FILE',
      help=f'list of test clips, one a line (default: {TEST_FOLDERS[0]}/Valence_Arousal_*.txt in '
      'SOURCE, if there is one)',
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
  """Finds the parts of Aff-Wild2 under `source` by their official names, up to LEVELS below it.

  A path that is given is used instead.

  Args:
    source: the folder that holds the data set.
    videos: folders that hold videos, directly or up to two levels down.
    crops: folders of aligned crops, with one folder per clip, directly or up to two levels down.
    annotations: a folder that holds the annotations of valence and arousal, such as
      '<N>th ABAW Annotations', under any name.
    test_list: text file with one clip name a line.

  Raises InputError where a part is missing or there are several candidates.
  """
  source = files.existing_folder(source)
  below = list(folders_within(source, LEVELS))[1:]
  return Roots(
    find_folders(source, below, videos, names=VIDEO_FOLDERS, option='--videos'),
    find_folders(source, below, crops, names=CROP_FOLDERS, option='--crops'),
    find_annotations(files.existing_folder(annotations or source)),
    find_test_list(below, test_list),
  )


def find_folders(source, below, given, *, names, option):
  """Returns the folders that are given, or else those `below` source that have one of the names."""
  if given:
    return tuple(files.existing_folder(path) for path in given)
  found = tuple(path for path in below if has_name(path, names))
  if not found:
    raise InputError(
      f'{source} holds none of the folders {", ".join(names)}, nor does a folder up to '
      f'{LEVELS - 1} levels below it; name folders with {option}, or another --source'
    )
  return found


def find_test_list(below, given):
  """Returns the list of test clips that is given or else is in its official folder, or None."""
  if given:
    files.check_readable(given)
    return pathlib.Path(given)
  lists = [
    path
    for folder in below
    if has_name(folder, TEST_FOLDERS)
    for path in files.visible(folder)
    if path.suffix.lower() == '.txt' and plain_name(path.name).startswith('valencearousal')
  ]
  if len(lists) > 1:
    raise InputError(
      f'there are several lists of test clips, {", ".join(map(str, lists[:3]))}; '
      'name the one to use with --test_list'
    )
  return lists[0] if lists else None


def list_clips(roots, ignore_unlisted=False):
  """Returns every clip of the data set, sorted by name.

  Raises InputError where an annotation or a listed test clip has no video or no crops, and (unless
  ignore_unlisted) where a video or a folder of crops belongs to no clip; also where a name occurs
  twice.
  """
  videos = unique(
    ((path.stem, path) for path in files_within(roots.videos, VIDEO_ENDINGS)), '--videos'
  )
  crops = unique(((path.name, path) for path in clip_folders(roots.crops)), '--crops')
  listed = [
    (path.stem, (path, partition))
    for partition, folder in find_sets(roots.annotations).items()
    for path in files_within([folder], ('.txt',))
  ]
  if roots.test_list:
    listed += [(name, (None, 'test')) for name in read_test_list(roots.test_list)]
  listed = unique(listed, '--annotations or --test_list')

  video_of = {name: videos.get(name, videos.get(base_name(name))) for name in listed}
  missing = [name for name in listed if video_of[name] is None]
  from_list = any(listed[name][1] == 'test' for name in missing)
  no_video = looked_in(roots.videos, '--videos', f' for {" and ".join(VIDEO_ENDINGS)}') + (
    f'; each line of {roots.test_list} is a name such as 318' if from_list else ''
  )
  mistakes = Mistakes()
  for name in listed:
    if video_of[name] is None:
      mistakes.add('clips have no video', name, no_video)
    elif name not in crops:
      mistakes.add('clips have no folder of crops', name, looked_in(roots.crops, '--crops'))
  mistakes.raise_if_any()
  if not ignore_unlisted:
    where = 'are not in the test list' if roots.test_list else 'there is no --test_list'
    hint = '; to leave them out, add --tolerate unlisted'
    used = set(video_of.values())
    for name, path in videos.items():
      if path not in used:
        mistakes.add(f'videos have no annotation and {where}', name, hint)
    for name in crops:
      if name not in listed:
        mistakes.add(f'folders of crops have no annotation and {where}', name, hint)
    mistakes.raise_if_any()
  return [Clip(name, video_of[name], crops[name], *listed[name]) for name in sorted(listed)]


def looked_in(roots, option, endings=''):
  """Returns the end of a message about what is not in any of these folders."""
  shown = ', '.join(map(str, roots[:2])) + (', ...' if len(roots) > 2 else '')
  return f'; looked in {shown}{endings}; name all such folders with {option}'


def read_test_list(path):
  """Reads the names of test clips; they may be written as paths or with the ending of a file.

  A template of a submission, with lines such as 318/00001.jpg, names its clips, too.
  """
  names = re.split(r'[\s,;]+', files.read_text(path).replace('\\', '/'))
  names = [re.sub(r'/\d+\.jpg$', '', name.strip('"\'')) for name in names]
  names = [name.rstrip('/').split('/')[-1] for name in names]
  endings = '|'.join(map(re.escape, (*VIDEO_ENDINGS, '.txt')))
  names = [re.sub(f'({endings})$', '', name, flags=re.IGNORECASE) for name in names if name]
  return list(dict.fromkeys(names))


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


def unique(pairs, options):
  """Returns a dict of (name, value) pairs.

  Raises InputError, naming the options, where two have the same name.
  """
  found = {}
  for name, value in pairs:
    if name in found:
      raise InputError(
        f'{name} occurs twice: {describe(found[name])} and {describe(value)}; '
        f'remove one of them, or name what to use with {options}'
      )
    found[name] = value
  return found


def describe(value):
  path, partition = value if isinstance(value, tuple) else (value, None)
  return str(path or f'the {partition} list')
