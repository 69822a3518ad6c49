"""Reads files of labels by the names of their columns, and joins the annotators of a clip."""

import argparse
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table
from avjax.media.faces import MAX_FRAME
from data_prep.labels import DIMENSIONS, MOST_SECONDS, TimedLabels, Trace, ewe_weights

TIMES = 'time', 'timestamp', 'seconds'
# Fills labels that come once a second, also where one comes late.
GAP = 1.5
MOST_LAG = 60.0  # seconds
MOST_FRAMES = 120 * MOST_SECONDS  # a day of a fast camera
WITHOUT = '; to leave them out, remove their labels and add --tolerate unlisted'


@dataclasses.dataclass(frozen=True)
class LabelFile:
  """Holds the m rows of a file of labels as they are written.

  annotator: '' where the clip has only one.
  by_frame: whether places are numbers of frames, else seconds.
  places: (m,) float64, ascending. values: (m,2) float64, in the file's own range; NaN for none.
  lines: (m,) of the file, for messages, or (m,2) where valence and arousal stand in different ones;
    or other places of the rows, which `unit` then names.
  frames: (m,) float64 numbers of frames that stand beside times, NaN for none; None without any.
  """

  path: pathlib.Path
  annotator: str
  by_frame: bool
  places: np.ndarray
  values: np.ndarray
  lines: Sequence[int] | np.ndarray
  unit: str = 'line'
  frames: np.ndarray | None = None

  def where(self, row: int, dimension: int = 0) -> str:
    """Returns how the value of a row, counted from 0, is named in messages."""
    return f'{self.path}, {self.unit} {np.broadcast_to(self.lines[row], 2)[dimension]}'


def add_range(parser: argparse.ArgumentParser) -> None:
  """Adds the option that says on which scale the labels are."""
  parser.add_argument(
    '--label_range',
    type=float,
    nargs=2,
    metavar=('LOW', 'HIGH'),
    default=(-1.0, 1.0),
    help='the scale of the labels, which is mapped to [-1, 1] by a straight line (default: -1 1)',
  )


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options that say how labels in time are put on frames and joined."""
  parser.add_argument(
    '--label_gap',
    type=float,
    default=GAP,
    metavar='SECONDS',
    help='a frame between two labels that are at most so far apart is on the straight line between '
    f'them; in a longer pause, and where a cell is empty, it is not annotated (default: {GAP:g})',
  )
  parser.add_argument(
    '--label_lag',
    type=float,
    default=0.0,
    metavar='SECONDS',
    help='how late annotators react: a label at time t describes the video at t - SECONDS '
    '(default: 0)',
  )
  parser.add_argument(
    '--annotators',
    choices=('mean', 'ewe'),
    default='mean',
    help='how several annotators of a clip are joined: their mean, or the evaluator-weighted '
    'estimator, which weighs each by the correlation with that mean; a frame that only annotators '
    'of weight 0 labelled is not annotated (default: mean)',
  )


def check_options(args: argparse.Namespace) -> None:
  """Raises InputError for values that these options cannot have."""
  low, high = getattr(args, 'label_range', (-1, 1))  # known sets do not have the option
  if not (math.isfinite(low) and math.isfinite(high) and low < high):
    raise InputError('--label_range LOW HIGH takes two numbers, the lower one first')
  if not 0 <= args.label_gap < math.inf:
    raise InputError('--label_gap must be 0 or more')
  if not abs(args.label_lag) <= MOST_LAG:
    raise InputError(f'--label_lag takes seconds from -{MOST_LAG:g} to {MOST_LAG:g}')


def read_label_file(path: pathlib.Path, annotator: str, mistakes: Mistakes) -> LabelFile:
  """Reads a file with the columns valence and arousal and one of frame, time, timestamp, seconds.

  Where there are a time and a frame, the time counts, since the frames may have been counted at
  another rate than the video's; the dry run says where the two contradict each other. A cell
  that is empty or NaN is no value. Rows that cannot be used go into `mistakes`. Raises InputError
  where a column is missing.

  A file of OpenFace to which valence and arousal have been added is such a file. Whatever else a
  file has, its columns success and face_id are those of OpenFace (its wiki, "Output Format"):
  values of rows whose success is 0, in which the face was lost, do not count, and rows of a second
  face are refused.
  """
  before = len(mistakes)
  table = read_table(path, mistakes)
  time, frame = table.column(*TIMES), table.column('frame')
  by_frame = time is None and frame is not None
  place = table.needed('frame') if by_frame else table.needed(*TIMES)
  valence, arousal = table.needed('valence'), table.needed('arousal')
  beside = None if by_frame else frame
  success, face = table.column('success'), table.column('face_id')
  columns = [i for i in (place, valence, arousal, beside, success) if i is not None]
  rows = []
  for line, cells, numbers in table.numbers(columns, mistakes):
    given = dict(zip(columns, numbers, strict=True))
    row = [given[place], given[valence], given[arousal], given.get(beside, math.nan)]
    if given.get(success) == 0:
      row[1:3] = math.nan, math.nan
    if face is not None and cells[face] != table.rows[0][1][face]:
      mistakes.add(
        'rows are of a second face',
        f'{table.where(line)} (face_id {cells[face]})',
        '; write a file for each face, and name them and whose they are in persons.csv',
      )
    elif by_frame and not (row[0].is_integer() and 0 <= row[0] <= MAX_FRAME):
      mistakes.add('rows have no number of a frame', f'{table.where(line)} ({cells[place]!r})')
    elif math.isnan(row[0]):
      mistakes.add('rows have no time', table.where(line))
    elif rows and row[0] <= rows[-1][1][0]:
      mistakes.add(
        f'rows do not come after the row before in {"frame" if by_frame else "time"}',
        f'{table.where(line)} ({cells[place]})',
      )
    else:
      rows.append((line, row))
  if not table.rows and len(mistakes) == before:
    mistakes.add('files hold no labels', str(path))
  values = np.array([row for _, row in rows], np.float64).reshape(-1, 4)
  return LabelFile(
    path,
    annotator,
    by_frame,
    values[:, 0],
    values[:, 1:3],
    [n for n, _ in rows],
    frames=None if beside is None else values[:, 3],
  )


def join(
  clips: Mapping[str, Sequence[LabelFile]],
  args: argparse.Namespace,
  mistakes: Mistakes,
  label_range: tuple[float, float] | None = None,
) -> dict[str, TimedLabels]:
  """Returns {clip: its labels} after checking them all.

  Values outside the scale go into `mistakes`, or are NaN with --tolerate out_of_range. So do rows
  that are more than a day from the start. Frames are counted from 1, or in all files from 0 if one
  has a frame 0, which is said.

  Args:
    clips: {clip: its files, one or more}.
    args: with the options of `add_options`, and tolerate.
    mistakes: takes what cannot be used; what it has is raised here.
    label_range: the scale of the labels of a known set; by default that of --label_range.
  """
  check_options(args)
  every = [file for found in clips.values() for file in found]
  for found in clips.values():
    kinds = {file.by_frame: file for file in found}
    if len(kinds) > 1:
      mistakes.add(
        'clips have annotators who count frames and others who give times',
        f'{kinds[True].path} and {kinds[False].path}',
        '; write the same column in both',
      )
  for file in every:
    far = np.flatnonzero(abs(file.places) > (MOST_FRAMES if file.by_frame else MOST_SECONDS))
    if len(far):
      mistakes.add(
        'files of labels have rows that are more than a day from the start of the video',
        f'{file.where(int(far[0]))} ({file.places[far[0]]:g})',
        '; times are in seconds',
      )
  scaled = {id(file): scale(file, args, mistakes, label_range) for file in every}
  mistakes.raise_if_any()
  from_zero = [file for file in every if file.by_frame and file.places[0] == 0]
  if from_zero:
    print(
      f'{len(from_zero)} files of labels have a frame 0, such as {from_zero[0].path}: frames are '
      'counted from 0 in all of them'
    )

  def trace(file):
    places = file.places + bool(from_zero) if file.by_frame else file.places
    return Trace(file.annotator, places, scaled[id(file)], file.frames)

  def labels(found, weights):
    return TimedLabels(
      tuple(map(trace, found)),
      np.array([weights.get(file.annotator, (1, 1)) for file in found], np.float64),
      found[0].by_frame,
      args.label_lag,
      args.label_gap,
    )

  joined = {clip: labels(found, {}) for clip, found in clips.items()}
  check_given(joined, mistakes)
  if args.annotators == 'ewe':
    weights = ewe_weights(list(joined.values()))
    joined = {clip: labels(found, weights) for clip, found in clips.items()}
    check_weighed(joined, mistakes)
  return joined


def check_given(joined: Mapping[str, TimedLabels], mistakes: Mistakes) -> None:
  """Raises InputError for clips in which valence or arousal is never given."""
  for clip, labels in joined.items():
    given = labels.given().any(axis=0)
    if not given.any():
      mistakes.add('clips have labels whose cells are all empty', clip, WITHOUT)
    elif not given.all():
      missing = DIMENSIONS[int(np.argmin(given))]
      mistakes.add('clips have no labels in one dimension', f'{clip} ({missing})', WITHOUT)
  mistakes.raise_if_any()


def check_weighed(joined: Mapping[str, TimedLabels], mistakes: Mistakes) -> None:
  """Raises InputError for clips whose annotators all have the weight 0 in a dimension."""
  for clip, labels in joined.items():
    given = labels.given()
    lost = ~(given & (labels.weights > 0)).any(axis=0)
    if lost.any():
      who = sorted({labels.traces[i].annotator for i in np.flatnonzero(given[:, lost].any(axis=1))})
      what = ' and '.join(itertools.compress(DIMENSIONS, lost.tolist()))
      mistakes.add(
        'clips have only annotators to whom --annotators ewe gives the weight 0',
        f'{clip} ({", ".join(who)} in {what})',
        '; take --annotators mean, or leave these clips out',
      )
  mistakes.raise_if_any()


def scale(
  file: LabelFile,
  args: argparse.Namespace,
  mistakes: Mistakes,
  label_range: tuple[float, float] | None,
) -> np.ndarray:
  """Returns the values of a file (m,2) mapped to [-1, 1], NaN for none; see `join`."""
  low, high = label_range or args.label_range
  named = '' if label_range else 'name their scale with --label_range LOW HIGH, or '
  outside = (file.values < low) | (file.values > high)
  if 'out_of_range' not in args.tolerate:
    told = {}  # once for each line of the file, which may hold for many rows
    for row, d in np.argwhere(outside).tolist():
      told.setdefault(file.where(row, d), file.values[row, d])
    for where, value in told.items():
      mistakes.add(
        f'labels are outside [{low:g}, {high:g}]',
        f'{where} ({value:g})',
        f'; {named}count them as not annotated with --tolerate out_of_range',
      )
  values = np.where(outside, np.nan, file.values)
  # Not even rounding changes labels that are on the scale already.
  return values if (low, high) == (-1, 1) else 2 * (values - low) / (high - low) - 1
