"""Reads groups.csv, which says which groups clips or subjects belong to."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

from avjax.errors import InputError, visible
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table

KEYS = ('name', 'subject')  # columns that say whose row it is; a name is the more exact one
LONGEST = 100  # characters of a cell

Groups = dict[str, dict[str, list[str]]]  # {column: {group: its clips}}


def read_groups(
  path: str | pathlib.Path, clips: Collection[str], subjects: Mapping[str, str]
) -> Groups:
  """Reads the groups of clips from a CSV file, which may have commas, semicolons or tabs.

  It has a header with `name` (of a clip) or `subject`, and any number of other columns, such as
  sex, age or site: the values of each are its groups. Names of columns may be in upper case. Where
  there are a name and a subject, rows are of clips, and the subjects are groups like others. A row
  for each clip or subject; those of the records that have none are in no group.

  Args:
    path: the file.
    clips: names of all clips of the records.
    subjects: {clip: subject}, as far as they are known.

  Raises InputError, naming the row, for a clip or subject that is not in the records or has two
  rows, for a cell that is empty or missing, and for a file without groups.
  """
  mistakes = Mistakes()
  table = read_table(pathlib.Path(path), mistakes)
  mistakes.raise_if_any()
  header = table.names
  key = next((key for key in KEYS if key in header), None)
  if key is None:
    raise InputError(
      f'{path}, line 1: the header needs one column name or subject, and has '
      f'{visible(",".join(header))[:60]}'
    )
  if not all(header):
    raise InputError(f'{path}, line 1: a column of the header has no name')
  columns = [column for column in header if column != key]
  if not columns or len(set(header)) < len(header):
    problem = 'has two columns of one name' if columns else f'has no column of groups after {key}'
    raise InputError(f'{path}, line 1: the header {problem}')
  for column in columns:
    check_cell(column, f'{path}, line 1')
  members = {clip: [clip] for clip in clips}
  if key == 'subject':
    members = {}
    for clip, subject in subjects.items():
      members.setdefault(subject, []).append(clip)
    if not members:
      raise InputError(
        f'{path}, line 1: the records name no subjects; give the column name, of clips'
      )
  groups: Groups = {column: {} for column in columns}
  first_lines = {}
  for line, cells in table.rows:
    where = table.where(line)
    row = dict(zip(header, cells, strict=True))
    for column, cell in row.items():
      check_cell(cell, where)
      if not cell:
        raise InputError(
          f'{where}: {column} is empty; give what is not known a word of its own, such as unknown'
        )
    name = row[key]
    if name not in members:
      what = 'clip' if key == 'name' else 'subject'
      raise InputError(f'{where}: the records have no {what} {name!r}')
    if name in first_lines:
      raise InputError(f'{where}: {name!r} was in line {first_lines[name]} before; give it one row')
    first_lines[name] = line
    for column in columns:
      groups[column].setdefault(row[column], []).extend(members[name])
  if not first_lines:
    raise InputError(f'{path} has no rows below its header')
  return groups


def grouped(groups: Groups) -> set[str]:
  """Returns the clips that are in a group; they are the same in every column."""
  columns = iter(groups.values())
  return {clip for clips in next(columns).values() for clip in clips}


def check_cell(cell: str, where: str) -> None:
  """Raises InputError for a cell that a table of results cannot show."""
  if not cell.isprintable() or len(cell) > LONGEST:
    raise InputError(
      f'{where}: {visible(cell)[:60]!r} cannot be shown in a table; a cell has at most {LONGEST} '
      'printable characters'
    )
