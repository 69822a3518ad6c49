"""Reads a folder that a person makes by hand: videos, labels, and perhaps splits and crops.

    MYSET/videos/NAME.mp4           in any container that avjax.predict reads
    MYSET/labels/NAME.csv           or labels/NAME/ANNOTATOR.csv: see label_files.py; in place of
                                    .csv also .eaf or .txt of ELAN: see elan.py
    MYSET/splits.csv                name,split[,subject] or name,fold[,subject] or name,subject
    MYSET/persons.csv               name,face[,video]
    MYSET/crops/NAME/00001.jpg      aligned faces, for clips whose faces are not to be found; a
                                    folder with made_from.json is one that a build has made
    MYSET/unreadable.txt            broken crops, as Aff-Wild2 has

Only videos and labels must be there. A clip has the name of its video, unless persons.csv names
another: where a video shows two people, each of them has a row, labels and a name of their own.
"""

import dataclasses
import pathlib
import unicodedata
from collections.abc import Mapping

import numpy as np

from avjax import files
from avjax.data.splits import TEST
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table
from avjax.inference.face_source import check_face
from avjax.media import faces
from data_prep import features, found_faces
from data_prep.clips import Clip, Job, list_crop_ids
from data_prep.labels import TimedLabels
from data_prep.sources import Source, elan, label_files, partition, register
from data_prep.sources.folders import subfolders

VIDEOS, LABELS, CROPS = 'videos', 'labels', 'crops'
SPLITS, PERSONS = 'splits.csv', 'persons.csv'
LABEL_ENDINGS = '.csv', '.eaf', '.txt'
LEAVE_OUT = '; to leave them out, add --tolerate unlisted'


@register('plain')
class Plain(Source):
  """A folder of one's own: videos/, labels/ and, if you like, splits.csv, persons.csv, crops/."""

  def add_options(self, parser):
    label_files.add_range(parser)
    label_files.add_options(parser)
    partition.add_options(parser)
    add_crops_option(parser)

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    label_files.check_options(args)
    videos, written, persons, assigned = {}, {}, {}, {}
    with mistakes.caught():
      videos = list_videos(source / VIDEOS, mistakes)
    words = [(path.name, name) for name, path in videos.items()] + [(name, name) for name in videos]
    with mistakes.caught():
      persons = read_persons(source / PERSONS, partition.call_clips(words), mistakes)
    names = partition.call_clips([*words, *((name, name) for name in persons)])
    with mistakes.caught():
      written = list_labels(source / LABELS, names, mistakes)
    with mistakes.caught():
      if (source / SPLITS).exists():
        assigned = partition.read_splits(source / SPLITS, names, mistakes)
    # Where the tables cannot be used, their clips are not known, but labels may have mistakes, too.
    clips, read = {}, {name: [] for name in written}
    if not mistakes:
      clips = choose_clips(videos, written, persons, assigned, args, mistakes)
      read = {name: [] for name in written if name in clips}
    for name, found in read.items():
      for who, path in written[name]:
        with mistakes.caught():
          found.append(read_labels(path, who, mistakes))
    labels = label_files.join(read, args, mistakes)
    annotations = {
      name: path.parent if who else path for name, [(who, path), *_] in written.items()
    }
    return plan_jobs(clips, labels, assigned, annotations, args)


@dataclasses.dataclass(frozen=True)
class Shown:
  """Says where a clip is to be seen.

  video: its file. face: whose face of it, as `check_face` takes it.
  """

  video: pathlib.Path
  face: str = 'largest'


def add_crops_option(parser):
  """Adds the option that says where the faces that are found are kept."""
  parser.add_argument(
    '--crops_cache',
    type=pathlib.Path,
    metavar='DIR',
    help='folder in which the faces that are found are kept, about 20 kB a frame, so that they are '
    'found only once for several --data_dir (default: DATA_DIR/crops)',
  )


def plan_jobs(
  clips: Mapping[str, Shown],
  labels: Mapping[str, TimedLabels],
  assigned: Mapping[str, partition.Assignment],
  annotations: Mapping[str, pathlib.Path],
  args,
) -> dict[str, list[Job]]:
  """Returns {split: jobs} of clips, those of a split in order of name.

  Args:
    clips: {clip: where it is to be seen}.
    labels: {clip: its labels}; a clip without is one of the test split.
    assigned: as `partition.split_clips` takes them.
    annotations: {clip: the file of its labels, or a folder with one of each annotator}.
    args: the options of a source with those of label_files, partition and `add_crops_option`.
  """
  split_of = partition.split_clips(
    {name: str(shown.video) for name, shown in clips.items()}, assigned, args
  )
  unreadable = faces.read_unreadable(args.source)
  folders = features.parse_folders(args.features)
  given, cache = given_crops(args.source), args.crops_cache or args.data_dir / CROPS
  planned = {split: [] for split in sorted(set(split_of.values()))}
  for name in sorted(clips):
    found, own = name in labels, given.get(name)
    clip = Clip(
      name,
      clips[name].video,
      own or cache / name,
      annotations[name] if found else None,
      'train' if found else TEST,
    )
    planned[split_of[name]].append(
      Job(
        clip,
        list_crop_ids(clip) if own else np.zeros(0, np.int32),
        labels=None,
        annotated=None,
        unreadable=unreadable,
        features=features.find(folders, name),
        ignore_length='length' in args.tolerate,
        timed=labels.get(name),
        face=None if own else clips[name].face,
        subject=assigned[name].subject if name in assigned else None,
      )
    )
  return planned


def given_crops(source: pathlib.Path) -> dict[str, pathlib.Path]:
  """Returns {clip: folder} of the crops that a person gave, not those that a build found.

  The latter are here, too, where --data_dir or --crops_cache is in the source.
  """
  folder = source / CROPS
  return {
    path.name: path
    for path in (subfolders(folder) if folder.is_dir() else ())
    if not (path / found_faces.MADE_FROM).exists()
  }


def read_labels(path: pathlib.Path, annotator: str, mistakes: Mistakes) -> label_files.LabelFile:
  """Reads a file of labels by its ending; a .csv may also be an export of ELAN."""
  ending = path.suffix.lower()
  if ending == '.eaf':
    return elan.read_eaf(path, annotator, mistakes)
  if ending == '.txt' or elan.is_export(path):
    return elan.read_export(path, annotator, mistakes)
  return label_files.read_label_file(path, annotator, mistakes)


def list_videos(folder: pathlib.Path, mistakes: Mistakes) -> dict[str, pathlib.Path]:
  """Returns {name: path} of the videos of a folder, whatever their endings.

  Folders in it, and two videos of the same name, go into `mistakes`. Raises InputError where there
  is none.
  """
  found, called = {}, {}
  for path in files.visible(files.existing_folder(folder)):
    if path.is_dir():
      mistakes.add('folders are among the videos', str(path), f'; put the videos into {folder}')
      continue
    with mistakes.caught():
      files.check_readable(path)
    name = called.setdefault(unicodedata.normalize('NFC', path.stem), path.stem)
    if name in found:
      mistakes.add(
        'videos have the name of another one, but for the ending',
        f'{found[name]} and {path.name}',
      )
    found[name] = path
  if not found and not mistakes:
    raise InputError(f'{folder} holds no videos')
  return found


def list_labels(
  folder: pathlib.Path, names: Mapping[str, str], mistakes: Mistakes
) -> dict[str, list[tuple[str, pathlib.Path]]]:
  """Returns {clip: [(annotator, path)]} of the files of labels of a folder.

  names: as `partition.clip_called` takes them.

  The annotator is '' for NAME.csv. Other files, and clips with both a file and a folder, go into
  `mistakes`. Raises InputError where there are no labels.
  """
  found = {}
  for path in files.visible(files.existing_folder(folder)):
    inside = []
    for file in files.visible(path) if path.is_dir() else [path]:
      who = file.stem if path.is_dir() else ''
      if who in (name for name, _ in inside):
        mistakes.add('files of labels are a second one of an annotator', str(file))
      elif file.suffix.lower() in LABEL_ENDINGS:
        inside.append((who, file))
      else:
        mistakes.add(
          'entries do not end as files of labels do',
          str(file),
          f'; these end with {" or ".join(LABEL_ENDINGS)}',
        )
    name = partition.clip_called(path.name if path.is_dir() else path.stem, names)
    if path.is_dir() and not files.visible(path):
      mistakes.add('folders hold no files of labels', str(path))
    elif inside and name in found:
      mistakes.add('clips have two files, or both a file and a folder of labels', str(path))
    elif inside:
      found[name] = inside
  if not found and not mistakes:
    raise InputError(f'{folder} holds no labels')
  return found


def read_persons(
  path: pathlib.Path, names: Mapping[str, str], mistakes: Mistakes
) -> dict[str, tuple[str, str | None, str]]:
  """Reads a table `name,face[,video]`: whose face a clip shows, and of which video.

  Rows that cannot be used go into `mistakes`. A cell without a face stands for the largest.

  names: as `partition.clip_called` takes them.

  Returns {clip: (face, name of the video or None, where this is written)}; {} without a table.
  """
  if not path.exists():
    return {}
  table = read_table(path, mistakes)
  name, face, video = table.needed('name'), table.needed('face'), table.column('video')
  found = {}
  for line, cells in table.rows:
    which = cells[face].lower() or 'largest'
    try:
      check_face(which)
    except InputError:
      mistakes.add(
        'rows have no usable face',
        f'{table.where(line)} ({cells[face]!r})',
        '; it is largest, left, right or a number from 1',
      )
      continue
    clip = partition.clip_called(cells[name], names)
    if not clip:
      mistakes.add('rows have no name of a clip', table.where(line))
      continue
    partition.check_usable(clip, table.where(line), mistakes)
    if clip in found:
      mistakes.add('clips are named twice', f'{table.where(line)} ({cells[name]})')
    shown_in = None if video is None else partition.clip_called(cells[video], names) or None
    found[clip] = which, shown_in, table.where(line)
  return found


def choose_clips(videos, written, persons, assigned, args, mistakes) -> dict[str, Shown]:
  """Returns {clip: where it is to be seen} of the clips that come into the records.

  Args:
    videos: what `list_videos` returns.
    written: what `list_labels` returns.
    persons: what `read_persons` returns.
    assigned: what `partition.read_splits` returns; {} where there is no such table.
    args: with source and tolerate.
    mistakes: takes rows and labels without a video and, unless `unlisted` is tolerated, videos
      without labels, clips without a row in splits.csv and folders of crops without a clip. Only
      clips of the test split need no labels.
  """
  shown = show(videos, persons, args.source, mistakes)

  def without_clip(things, where, name):
    if name in videos:
      kind = f'{things} have the name of a video whose people have other names'
      mistakes.add(kind, where, f'; write those of {PERSONS}')
    else:
      mistakes.add(f'{things} have no video', where, looked_in(args.source))

  for name, assignment in assigned.items():
    if name not in shown:
      without_clip('rows', f'{assignment.where} ({name})', name)
  for name, found in written.items():
    if name not in shown:
      without_clip('files of labels', str(found[0][1]), name)

  def unlisted(kind, where):
    if 'unlisted' not in args.tolerate:
      mistakes.add(kind, where, LEAVE_OUT)

  for name, folder in given_crops(args.source).items():
    if name not in shown:
      unlisted('folders of crops belong to no clip', str(folder))
  is_split = any(assignment.split for assignment in assigned.values())
  chosen = {}
  for name, entry in shown.items():
    split = assigned[name].split if name in assigned else None
    if is_split and split is None:
      unlisted('clips have no split', f'{name} in {args.source / SPLITS}')
    elif name not in written and split != TEST:
      unlisted('clips have no labels and are not in the test split', name)
    else:
      chosen[name] = entry
      if name not in persons:
        partition.check_usable(name, str(entry.video), mistakes)
  return chosen


def show(
  videos: Mapping[str, pathlib.Path],
  persons: Mapping[str, tuple[str, str | None, str]],
  source: pathlib.Path,
  mistakes: Mistakes,
) -> dict[str, Shown]:
  """Returns {clip: where it is to be seen} of every clip: one for each person, or for the video.

  videos, persons: as `choose_clips` takes them. Persons without a video, and with the name of one
  that does not show them, go into `mistakes`.
  """
  shown = {}
  for name, (face, video, where) in persons.items():
    path = videos.get(name if video is None else video)
    if path is None:
      mistakes.add('rows have no video', f'{where} ({video or name})', looked_in(source))
    elif videos.get(name, path) != path:
      mistakes.add(
        'clips have the name of a video that is not theirs',
        f'{where} ({name} shows {path.name})',
        '; name them otherwise, also in labels and splits.csv',
      )
    else:
      shown[name] = Shown(path, face)
  used = {entry.video for entry in shown.values()}
  return shown | {name: Shown(path) for name, path in videos.items() if path not in used}


def looked_in(source: pathlib.Path) -> str:
  """Returns the end of a message about what has no video."""
  return f'; videos are looked for in {source / VIDEOS}'
