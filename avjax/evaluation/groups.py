"""Reads groups.csv, which says which groups clips or subjects belong to."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Collection, Mapping

from avjax import files
from avjax.errors import InputError, visible

KEYS = ('name', 'subject')  # columns that say whose row it is
DELIMITERS = ',;\t'
LONGEST = 100  # characters of a cell

Groups = dict[str, dict[str, list[str]]]  # {column: {group: its clips}}


def read_groups(
  path: str | pathlib.Path, clips: Collection[str], subjects: Mapping[str, str]
) -> Groups:
  """Reads the groups of clips from a CSV file, which may have commas, semicolons or tabs.

  It has a header with `name` (of a clip) or `subject`, and any number of other columns, such as
  sex, age or site: the values of each are its groups. A row for each clip or subject; those of the
  records that have none are in no group.

  Args:
    path: the file.
    clips: names of all clips of the records.
    subjects: {clip: subject}, as far as they are known.

  Raises InputError, naming the row, for a clip or subject that is not in the records or has two
  rows, for a cell that is empty or missing, and for a file without groups.
  """
  rows = _rows(path)
  line, header = next(rows, (1, []))
  found = [key for key in KEYS if key in header]
  if len(found) != 1:
    raise InputError(
      f'{path}, line {line}: the header needs one column name or subject, and has '
      f'{visible(",".join(header))[:60] or "nothing"}'
    )
  if not all(header):
    raise InputError(f'{path}, line {line}: a column of the header has no name')
  (key,), columns = found, [column for column in header if column not in KEYS]
  if not columns or len(set(header)) < len(header):
    problem = 'has two columns of one name' if columns else f'has no column of groups after {key}'
    raise InputError(f'{path}, line {line}: the header {problem}')
  members = {clip: [clip] for clip in clips}
  if key == 'subject':
    members = {}
    for clip, subject in subjects.items():
      members.setdefault(subject, []).append(clip)
    if not members:
      raise InputError(
        f'{path}, line {line}: the records name no subjects; give the column name, of clips'
      )
  groups: Groups = {column: {} for column in columns}
  first_lines = {}
  for line, cells in rows:
    where = f'{path}, line {line}'
    if len(cells) != len(header):
      raise InputError(f'{where}: expected {len(header)} columns, found {len(cells)}')
    row = dict(zip(header, cells, strict=True))
    for column, cell in row.items():
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


def _rows(path):
  """Yields (line number, cells) of a CSV file, without blanks around cells and without empty rows.

  Raises InputError for a cell that a table cannot show.
  """
  text = files.read_text(path)
  delimiter = max(DELIMITERS, key=text.partition('\n')[0].count)
  reader = csv.reader(io.StringIO(text, newline=''), delimiter=delimiter)
  try:
    for row in reader:
      cells = [cell.strip() for cell in row]
      for cell in cells:
        if not cell.isprintable() or len(cell) > LONGEST:
          raise InputError(
            f'{path}, line {reader.line_num}: {visible(cell)[:60]!r} cannot be shown in a table; '
            f'a cell has at most {LONGEST} printable characters'
          )
      if any(cells):
        yield reader.line_num, cells
  except csv.Error as error:
    raise InputError(f'{path}, line {reader.line_num} cannot be read: {error}') from error
