"""Reads which clip belongs to which split and shows which subject, or makes folds of subjects."""

import argparse
import collections
import dataclasses
import hashlib
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Mapping

from avjax.data.names import MOST_BYTES, SIGNS, check_name
from avjax.data.splits import TEST, fold_chunks
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table

FOLDS = 5  # if there are so many subjects
VALIDATION = 'validation'
# Names that people give to the three usual splits. The last split in order of name validates, so
# dev would train and train validate.
USUAL = {
  'training': 'train',
  'train': 'train',
  'dev': VALIDATION,
  'devel': VALIDATION,
  'development': VALIDATION,
  'val': VALIDATION,
  'valid': VALIDATION,
  VALIDATION: VALIDATION,
  'test': TEST,
  'testing': TEST,
}
FOLD = re.compile(r'([0-9]{1,4})(\.0)?', re.ASCII)  # pandas writes 0.0 where some are missing
SPLIT = re.compile('[A-Za-z][A-Za-z0-9_]*', re.ASCII)  # what TFDS takes as the name of a split


@dataclasses.dataclass(frozen=True)
class Assignment:
  """Says where a clip belongs.

  split: the name of its split; None where folds are to be made.
  subject: who it shows; None where this is not known.
  where: the place that says so, for messages.
  """

  split: str | None
  subject: str | None
  where: str


def add_options(parser: argparse.ArgumentParser) -> None:
  """Adds the options of the folds that are made where no splits are given."""
  parser.add_argument(
    '--folds',
    type=int,
    default=FOLDS,
    help='how many folds are made of the subjects where no splits are given (default: '
    f'{FOLDS}, or one for each subject if they are fewer)',
  )
  parser.add_argument(
    '--seed', type=int, default=0, help='decides which subject is in which fold (default: 0)'
  )


def read_splits(
  path: pathlib.Path, names: Mapping[str, str], mistakes: Mistakes
) -> dict[str, Assignment]:
  """Reads a table `name,split[,subject]`, `name,fold[,subject]` or `name,subject`.

  The usual names of splits, such as dev, become train, validation and test, which is said; the fold
  3 becomes the split fold3. Rows that cannot be used go into `mistakes`. Raises InputError where a
  column is missing.

  names: as `clip_called` takes them.

  Returns {clip: Assignment}.
  """
  table = read_table(path, mistakes)
  name, subject = table.needed('name'), table.column('subject')
  split = table.column('split', 'fold')
  if split is None and subject is None:
    table.needed('split', 'fold', 'subject')
  found, renamed = {}, {}
  for line, cells in table.rows:
    where = table.where(line)
    clip = clip_called(cells[name], names)
    who = None if subject is None else cells[subject] or None
    if who is not None:
      check_usable(who, where, mistakes)
    part = None
    if split is not None:
      part = split_name(cells[split])
      if part is None:
        mistakes.add(
          'rows have no usable name of a split or a fold',
          f'{where} ({cells[split]!r})',
          '; such a name begins with a letter and has letters, digits and _, or is a number',
        )
        continue
      if part != cells[split]:
        renamed[cells[split]] = part
    assign(found, clip, Assignment(part, who, where), mistakes)
  for before, after in renamed.items():
    print(f'{path}: {before} is the split {after}')
  return found


def call_clips(names: Iterable[tuple[str, str]]) -> dict[str, str]:
  """Returns {word: clip} of pairs (word, clip), for `clip_called`."""
  return {unicodedata.normalize('NFC', word): clip for word, clip in names}


def clip_called(word: str, names: Mapping[str, str]) -> str:
  """Returns the clip that a cell or the name of a file means, or the word itself.

  macOS and Excel code letters with accents in different ways (NFD and NFC), which look the same.

  names: {clip or file of a video: clip}, as `call_clips` makes them.
  """
  return names.get(unicodedata.normalize('NFC', word), word)


def check_usable(name: str, where: str, mistakes: Mistakes) -> None:
  """Puts the name of a clip or a subject that `check_name` refuses into `mistakes`."""
  try:
    check_name(name, where)
  except InputError:
    mistakes.add(
      'names are not usable',
      f'{where} ({ascii(name)[:60]})',
      f'; they begin with a letter or digit, have letters, digits, blanks and {SIGNS[1:]} and at '
      f'most {MOST_BYTES} bytes',
    )


def assign(
  assigned: dict[str, Assignment], clip: str, assignment: Assignment, mistakes: Mistakes
) -> None:
  """Says where a clip belongs, once: a clip that has a place already goes into `mistakes`."""
  if clip in assigned:
    mistakes.add('clips are named twice', f'{assignment.where} ({clip})')
  assigned[clip] = assignment


def split_name(cell: str) -> str | None:
  """Returns the name of a split in the records for what a person wrote, None for what is none."""
  if cell.lower() in USUAL:
    return USUAL[cell.lower()]
  name = f'fold{int(number[1])}' if (number := FOLD.fullmatch(cell)) else cell
  return name if SPLIT.fullmatch(name) and name != 'all' else None  # TFDS calls the union `all`


def split_clips(
  clips: Mapping[str, str],
  assigned: Mapping[str, Assignment],
  args: argparse.Namespace,
) -> dict[str, str]:
  """Returns {clip: split} in order of the clips.

  Where no splits are given, folds are made of the subjects, which is said.

  Args:
    clips: {clip: path of its video} of the clips that come into the records.
    assigned: {clip: Assignment}; either all of these clips have a split, or none has.
    args: with seed, folds and tolerate.

  Raises InputError where a subject or a video is in several splits, unless `subjects` is
  tolerated, where there are fewer than two splits besides test, and where one is called train or
  validation, but another than validation would validate.
  """
  splits = {clip: assigned[clip].split for clip in clips if clip in assigned}
  given = {clip: split for clip, split in splits.items() if split is not None}
  if not given:
    subjects = {clip: assigned[clip].subject if clip in assigned else None for clip in clips}
    given = make_folds(clips, subjects, args.folds, args.seed)
  elif 'subjects' not in args.tolerate:
    check_apart(given, clips, assigned)
  if len(set(given.values()) - {TEST}) < 2:
    only = ', '.join(sorted(set(given.values()) - {TEST})) or 'none'
    raise InputError(
      f'the clips are in fewer than two splits other than test ({only}): a model is trained on one '
      'and validated on another'
    )
  check_validation(given, assigned)
  return given


def check_validation(splits: Mapping[str, str], assigned: Mapping[str, Assignment]) -> None:
  """Raises InputError where another split would validate than the names of the splits say."""
  names = set(splits.values())
  held_out = fold_chunks(0, names)[1]
  if names & {'train', VALIDATION} and held_out != VALIDATION:
    place = next(assigned[clip].where for clip, split in splits.items() if split == held_out)
    raise InputError(
      f'{place}: {held_out} would validate, as the last split by name; call the split that is to '
      f'validate {VALIDATION}, or number all of them in a column fold'
    )


def check_apart(
  splits: Mapping[str, str], clips: Mapping[str, str], assigned: Mapping[str, Assignment]
) -> None:
  """Raises InputError where clips of one subject or one video are in several splits.

  splits: {clip: split}. clips, assigned: as `split_clips` takes them.
  """
  mistakes = Mistakes()
  for things, shared in (
    ('subjects', {clip: assigned[clip].subject for clip in splits}),
    ('videos', {clip: clips[clip] for clip in splits}),
  ):
    places: dict[str | None, dict[str, str]] = collections.defaultdict(dict)
    for clip, split in splits.items():
      places[shared[clip]].setdefault(split, assigned[clip].where)
    for one, found in places.items():
      if one is not None and len(found) > 1:
        shown = ' and '.join(f'{split} ({where})' for split, where in list(found.items())[:2])
        mistakes.add(
          f'{things} are in several splits, so that a model would be judged by what it has seen',
          f'{pathlib.PurePath(one).name} in {shown}',
          '; move them, or accept it with --tolerate subjects',
        )
  mistakes.raise_if_any()


def make_folds(
  clips: Mapping[str, str], subjects: Mapping[str, str | None], count: int, seed: int
) -> dict[str, str]:
  """Returns {clip: fold} such that neither a subject nor a video is in several folds.

  The groups are put in an order that the seed decides, and each goes to the fold with the fewest
  clips. It is said how this was done. Raises InputError where there are not two groups.

  Args:
    clips: {clip: path of its video}.
    subjects: {clip: subject, or None where it is not known}: then the clip is its own subject.
    count: most folds.
    seed: any int.
  """
  groups = group(clips, subjects)
  if len(groups) < 2:
    raise InputError('all clips are of one subject or one video: no folds can be made of them')
  if count < 2:
    raise InputError('--folds must be at least 2')
  count = min(count, len(groups))
  unknown = sum(subjects[clip] is None for clip in clips)
  print(
    f'no splits are given: {count} folds are made by --seed {seed}, and each of {len(groups)} '
    'subjects is in one of them'
    + (
      f'; nothing says whom {unknown} of the clips show, so that each counts as a subject of its '
      'own: if people occur twice, name them in the column subject of splits.csv'
      if unknown
      else ''
    )
  )

  def drawn(members):
    return hashlib.sha256(f'{seed} {" ".join(members)}'.encode()).digest()

  folds = [[] for _ in range(count)]
  for members in sorted(groups, key=drawn):
    min(folds, key=len).extend(members)
  fold_of = {clip: f'fold{i}' for i, members in enumerate(folds) for clip in members}
  return {clip: fold_of[clip] for clip in clips}


def group(clips: Mapping[str, str], subjects: Mapping[str, str | None]) -> list[list[str]]:
  """Returns the clips in groups: those that share a subject or a video, also by way of others."""
  groups: list[tuple[set[tuple[str, str]], list[str]]] = []  # what each shares, and its clips
  for clip, video in clips.items():
    shared, members = {('video', video), ('subject', subjects[clip] or f'/{clip}')}, [clip]
    for other in [found for found in groups if found[0] & shared]:
      groups.remove(other)
      shared, members = shared | other[0], other[1] + members
    groups.append((shared, members))
  return [sorted(members) for _, members in groups]
