"""Reads tables that people and their programs write: CSV in its many dialects, columns by name."""

import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from avjax import files
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes

DELIMITERS = '\t', ';', ','
NOTHING = ('', 'nan', 'na')  # cells without a value, in lower case; R writes NA
NO_NUMBER = 'cells of labels hold no number'  # a kind of mistake
NUMBER = re.compile(r'[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?', re.ASCII)


@dataclasses.dataclass(frozen=True)
class Table:
  """Holds the rows of a table as text.

  names: of the columns, in lower case.
  rows: (line of the file, cells) of each row; as many cells as names.
  decimal_comma: whether numbers may have a comma in place of a dot, as where it separates no cells.
  """

  path: pathlib.Path
  names: list[str]
  rows: list[tuple[int, list[str]]]
  decimal_comma: bool

  def column(self, *names: str) -> int | None:
    """Returns the index of the column that has one of these names, or None.

    Raises InputError where several have.
    """
    found = [i for i, name in enumerate(self.names) if name in names]
    if len(found) > 1:
      shown = ' and '.join(self.names[i] for i in found)
      raise InputError(
        f'{self.path}, line 1: the columns {shown} say the same thing; leave one of them'
      )
    return found[0] if found else None

  def needed(self, *names: str) -> int:
    """Returns what `column` does; raises InputError where there is none."""
    index = self.column(*names)
    if index is None:
      raise InputError(
        f'{self.path}, line 1: no column is called {" or ".join(names)}; the header has '
        f'{", ".join(map(repr, self.names))[:100]}'
      )
    return index

  def where(self, line: int) -> str:
    """Returns how a line is named in messages."""
    return f'{self.path}, line {line}'

  def numbers(
    self, columns: Sequence[int], mistakes: Mistakes
  ) -> Iterator[tuple[int, list[str], list[float]]]:
    """Yields (line, cells, numbers in these columns) of each row; see `number`.

    A row with a cell that holds no number goes into `mistakes`.
    """
    for line, cells in self.rows:
      try:
        found = [number(cells[column], self.decimal_comma) for column in columns]
      except ValueError as problem:
        mistakes.add(NO_NUMBER, f'{self.where(line)} ({problem})')
      else:
        yield line, cells, found


def number(cell: str, decimal_comma: bool) -> float:
  """Returns the number in a cell, NaN where it is empty; ValueError for anything else."""
  text = cell.replace(',', '.') if decimal_comma else cell
  if text.lower() in NOTHING:
    return math.nan
  if not NUMBER.fullmatch(text) or not math.isfinite(value := float(text)):
    raise ValueError(f'{cell[:40]!r} is no number')
  return value


def read_table(path: pathlib.Path, mistakes: Mistakes) -> Table:
  """Reads a table: a header, and rows whose cells are separated by commas, semicolons or tabs.

  The header tells which of the three it is. Empty lines are passed over; see `make_table`. Raises
  InputError where it lacks a header.
  """
  lines = files.read_text(path).splitlines()
  if lines and lines[0].lower().startswith('sep='):
    raise InputError(
      f'{path}, line 1: {lines[0][:9]!r} is a word to Excel alone; remove this line, so that the '
      'header comes first'
    )
  delimiter = max(DELIMITERS, key=lines[0].count) if lines else ','
  rows = list(cells_of(path, lines, delimiter))
  if not rows or rows[0][0] != 1:
    raise InputError(f'{path}, line 1: expected a header with the names of the columns')
  return make_table(path, rows[0][1], rows[1:], mistakes, decimal_comma=delimiter != ',')


def make_table(
  path: pathlib.Path,
  header: Sequence[str],
  rows: Iterable[tuple[int, list[str]]],
  mistakes: Mistakes,
  *,
  decimal_comma: bool,
) -> Table:
  """Returns the table of a header and rows (line, cells).

  A row of another length goes into `mistakes`; empty cells after the last column are passed over.
  """
  names = [name.lower() for name in header]
  while names and not names[-1]:
    names.pop()
  kept = []
  for line, cells in rows:
    extra = cells[len(names) :]
    if len(cells) < len(names) or any(extra):
      mistakes.add(
        'rows have more or fewer cells than there are columns',
        f'{path}, line {line} ({len(cells)} cells)',
      )
    else:
      kept.append((line, cells[: len(names)]))
  return Table(path, names, kept, decimal_comma)


def cells_of(
  path: pathlib.Path, lines: Iterable[str], delimiter: str, quote: str = '"'
) -> Iterator[tuple[int, list[str]]]:
  """Yields (line, cells) of the rows that are not empty; lines are counted from 1.

  A cell in quotes may go over several lines; the row is named by the first. Raises InputError for a
  quote that is not closed, which would make one cell of all rows that follow.
  """
  blanks = re.compile(f'{re.escape(quote)} +(?={re.escape(delimiter)}|$)')  # after a cell in quotes
  reader = csv.reader(
    (blanks.sub(quote, line) for line in lines),
    delimiter=delimiter,
    quotechar=quote,
    skipinitialspace=True,
    strict=True,
  )
  first = 1
  try:
    for cells in reader:
      if any(map(str.strip, cells)):
        yield first, [cell.strip() for cell in cells]
      first = reader.line_num + 1
  except csv.Error as error:
    raise InputError(
      f'{path}, line {first}: a quote is opened and not closed at the end of its cell; close or '
      f'remove it ({error})'
    ) from error
