"""Plans the clips of a known data set from its videos and labels, as the plain layout does.

What is left to the reader of a set is where its files lie, and how they are written.
"""

import argparse
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from avjax.data.splits import TEST
from avjax.files.mistakes import Mistakes
from data_prep.clips import Job
from data_prep.labels import DIMENSIONS
from data_prep.sources import label_files, partition, plain
from data_prep.sources.label_files import LabelFile

Row = tuple[int, Sequence[float]]  # a line of the file, and its numbers


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options that every known set has: how labels in time are joined, and the crops."""
  label_files.add_options(parser)
  plain.add_crops_option(parser)


def plan(
  videos: Mapping[str, pathlib.Path],
  written: Mapping[str, Sequence[LabelFile]],
  assigned: Mapping[str, partition.Assignment],
  mistakes: Mistakes,
  args: argparse.Namespace,
  label_range: tuple[float, float] = (-1, 1),
) -> dict[str, list[Job]]:
  """Returns {split: jobs}.

  Args:
    videos: {clip: its video}.
    written: {clip: files of its labels}; a clip without is one of the test split.
    assigned: {clip: the split and subject} of every clip.
    mistakes: those that were found so far; it is raised if there are any.
    args: the options of the layout and of every layout.
    label_range: lowest and highest value of the labels.

  Raises InputError for files without a label, for labels and assignments without a video and,
  unless `unlisted` is tolerated, for videos without labels that are not in the test split.
  """
  for name, found in written.items():
    if name not in videos:
      mistakes.add('files of labels have no video', str(found[0].path))
    for file in found:
      if not len(file.places):
        mistakes.add('files hold no labels', str(file.path))
  for name in sorted(assigned.keys() - videos.keys() - written.keys()):
    mistakes.add('rows have no video', f'{assigned[name].where} ({name})')
  mistakes.raise_if_any()
  chosen = {
    name: plain.Shown(path)
    for name, path in videos.items()
    if name in written or assigned[name].split == TEST
  }
  for name, entry in chosen.items():
    partition.check_usable(name, str(entry.video), mistakes)
  if 'unlisted' not in args.tolerate:
    for name in sorted(videos.keys() - chosen.keys()):
      mistakes.add('videos have no labels and are not in the test split', name, plain.LEAVE_OUT)
  mistakes.raise_if_any()
  used = {name: written[name] for name in chosen if name in written}
  labels = label_files.join(used, args, mistakes, label_range)
  annotations = {name: found[0].path for name, found in written.items()}
  return plain.plan_jobs(chosen, labels, assigned, annotations, args)


def split_by_name(
  names: Sequence[str], folder: pathlib.Path, mistakes: Mistakes
) -> dict[str, partition.Assignment]:
  """Returns {clip: its split} of names that begin with it, such as train_1 or Devel_DE_01."""
  assigned = {}
  for name in names:
    part = partition.USUAL.get(name.split('_')[0].lower())
    if part is None:
      mistakes.add(
        'names begin with no partition', f'{name} in {folder}', '; such as train_1 and test_1'
      )
    else:
      assigned[name] = partition.Assignment(part, None, str(folder / name))
  return assigned


def one_dimension(
  path: pathlib.Path, annotator: str, dimension: str, rows: Sequence[Row], mistakes: Mistakes
) -> LabelFile:
  """Returns the labels of a file that has valence or arousal alone.

  rows: (line, (seconds, value)) in order of time.
  """
  column = DIMENSIONS.index(dimension)
  both = [(line, [time, *insert(value, column)]) for line, (time, value) in rows]
  return in_time(path, annotator, both, mistakes)


def insert(value: float, column: int) -> list[float]:
  """Returns valence and arousal of which only one is known."""
  return [value if k == column else math.nan for k in range(len(DIMENSIONS))]


def in_time(
  path: pathlib.Path, annotator: str, rows: Sequence[Row], mistakes: Mistakes
) -> LabelFile:
  """Returns labels of rows (line, (seconds, valence, arousal)); NaN for no value.

  Rows that do not follow in time go into `mistakes`.
  """
  for line, numbers in rows:
    if not math.isfinite(numbers[0]):
      mistakes.add('rows have no time', f'{path}, line {line}')
  for before, after in itertools.pairwise(rows):
    if after[1][0] <= before[1][0]:
      mistakes.add('rows do not come after the row before in time', f'{path}, line {after[0]}')
  values = np.array([numbers for _, numbers in rows], np.float64).reshape(-1, 3)
  return LabelFile(path, annotator, False, values[:, 0], values[:, 1:], [line for line, _ in rows])
