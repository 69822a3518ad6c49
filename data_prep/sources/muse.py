"""Reads a task of MuSe 2021 or 2022 that has valence and arousal (wilder, stress).

    MUSE/raw_data/video/1.MTS                  any container
    MUSE/label_segments/valence/1.csv          timestamp,value,segment_id
    MUSE/label_segments/arousal/1.csv          or physio-arousal, the arousal of stress in 2022
    MUSE/metadata/partition.csv                the id comes first, train, devel or test last

MUSE is the folder of one task, such as c3_muse_stress_2022. Timestamps are in milliseconds, a row
every 250 ms (wilder) or 500 ms (stress); values are in [-1, 1]. Pauses between segments longer than
--label_gap are not annotated. Labels of the test partition are empty or absent.

Source of names and formats: config.py and data_parser.py of lstappen/MuSe2021 and EIHW/MuSe2022.
Where the videos lie is no part of these; raw_data/video is what users of MuSe 2022 name.
"""

import pathlib

import numpy as np

from avjax import files
from avjax.data.splits import TEST
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table
from data_prep.sources import Source, known, partition, plain, register
from data_prep.sources.label_files import LabelFile

VIDEOS, LABELS, PARTITION = 'raw_data/video', 'label_segments', 'metadata/partition.csv'
AROUSALS = 'arousal', 'physio-arousal'


@register('muse')
class Muse(Source):
  """A task of MuSe 2021 or 2022 with valence and arousal: label_segments/, metadata/, raw_data/."""

  def add_options(self, parser):
    known.add_options(parser)
    parser.add_argument(
      '--videos', type=pathlib.Path, metavar='DIR', help=f'the videos (default: SOURCE/{VIDEOS})'
    )
    parser.add_argument(
      '--arousal',
      choices=AROUSALS,
      help=f'which folder of {LABELS} is the arousal (default: the one that is there)',
    )

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    videos = plain.list_videos(args.videos or source / VIDEOS, mistakes)
    assigned = read_partition(source / PARTITION, mistakes)
    mistakes.raise_if_any()
    for name in sorted(videos.keys() - assigned.keys()):
      mistakes.add('videos have no row in the partition', f'{name} in {source / PARTITION}')
    mistakes.raise_if_any()
    written: dict[str, list[LabelFile]] = {}
    arousal = args.arousal or which_arousal(source / LABELS)
    for dimension, folder in (('valence', 'valence'), ('arousal', arousal)):
      for path in files.visible(files.existing_folder(source / LABELS / folder)):
        found = read_labels(path, dimension, mistakes)
        is_test = path.stem in assigned and assigned[path.stem].split == TEST
        if not (is_test and np.isnan(found.values).all()):
          written.setdefault(path.stem, []).append(found)
    return known.plan(videos, written, assigned, mistakes, args)


def which_arousal(folder: pathlib.Path) -> str:
  """Returns the folder of the arousal; InputError unless there is exactly one."""
  found = [name for name in AROUSALS if (folder / name).is_dir()]
  if len(found) != 1:
    there = ' and '.join(found) or f'neither {" nor ".join(AROUSALS)}'
    raise InputError(f'{folder} holds {there}; name one with --arousal')
  return found[0]


def read_partition(path: pathlib.Path, mistakes: Mistakes) -> dict[str, partition.Assignment]:
  """Reads which clip is in which partition: the first column has the ids, the last the names."""
  table = read_table(path, mistakes)
  assigned = {}
  for line, cells in table.rows:
    part = partition.USUAL.get(cells[-1].lower())
    if part is None:
      mistakes.add('rows have no partition', f'{table.where(line)} ({cells[-1]!r})')
    else:
      where = table.where(line)
      partition.assign(assigned, cells[0], partition.Assignment(part, None, where), mistakes)
  return assigned


def read_labels(path: pathlib.Path, dimension: str, mistakes: Mistakes) -> LabelFile:
  """Reads the labels of a clip in one dimension."""
  table = read_table(path, mistakes)
  columns = [table.needed('timestamp'), table.needed('value')]
  rows = [
    (line, (time / 1000, value)) for line, _, (time, value) in table.numbers(columns, mistakes)
  ]
  return known.one_dimension(path, '', dimension, rows, mistakes)
