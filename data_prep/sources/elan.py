"""Reads labels that were made in ELAN: its files (.eaf) and what it exports as text (.txt, .csv).

A tier called valence and one called arousal hold numbers; upper and lower case are the same. The
number of an annotation holds from its begin until its end. Where a tier has no annotation, or an
empty one, there is no label.

Source: EAFv3.0.xsd and the ELAN manual, "Exporting a document as a tab-delimited text file". What
it leaves open is as ELAN's Transcription2TabDelimitedText writes it: `Begin Time - ss.msec` heads a
column where there is one for each tier; with a row for each annotation there is no header.
"""

import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Sequence
from xml.parsers import expat

import numpy as np

from avjax import files
from avjax.errors import InputError, one_line
from avjax.files.mistakes import Mistakes
from avjax.files.tables import NO_NUMBER, cells_of, number
from data_prep.labels import COMPARED_RATE, DIMENSIONS, MOST_SECONDS
from data_prep.sources.label_files import LabelFile

ROUNDED = 0.0015  # seconds by which a duration may differ from the times, which are in ms
BEGIN, END = 'begin time', 'end time'
# {how a time is written: what ELAN calls that in a header}
FORMATS = {
  re.compile(r'\d{1,12}:\d\d:\d\d\.\d{1,3}', re.ASCII): 'hh:mm:ss.ms',
  re.compile(r'\d{1,12}\.\d{1,12}', re.ASCII): 'ss.msec',
  re.compile(r'\d{1,12}', re.ASCII): 'msec',
}


@dataclasses.dataclass(frozen=True)
class Annotation:
  """Holds one annotation.

  begin, end: seconds. line: of the file, for messages.
  """

  tier: str
  begin: float
  end: float
  text: str
  line: int

  def number(self) -> float:
    """Returns the number that it holds, NaN for none; ValueError for other text."""
    return number(self.text.strip(), decimal_comma=True)


def read_eaf(path: pathlib.Path, annotator: str, mistakes: Mistakes) -> LabelFile:
  """Reads a file of ELAN, of any version of its format.

  Dependent annotations have the times of those that they belong to. Times count from the begin of
  the first medium. What cannot be used goes into `mistakes`; raises InputError for what is no such
  file.
  """
  content = files.read_text(path)
  parser, reader = expat.ParserCreate(), EafReader()
  parser.StartElementHandler = lambda tag, given: reader.start(tag, given, parser.CurrentLineNumber)
  parser.EndElementHandler, parser.CharacterDataHandler = reader.end, reader.add_text
  parser.StartDoctypeDeclHandler = refuse_doctype
  parser.buffer_text = True
  try:
    parser.Parse(content, True)
    if reader.root != 'ANNOTATION_DOCUMENT':
      raise InputError(f'its root is {reader.root}')
    found = list(reader.annotations())
  except (expat.ExpatError, InputError, KeyError, OverflowError, ValueError) as error:
    raise InputError(f'{path} is no file of ELAN: {one_line(error)}') from error
  return label_file(path, annotator, reader.tiers, found, mistakes, len(mistakes))


def refuse_doctype(*_):
  """Refuses what no file of ELAN has, and with which an XML file could grow."""
  raise InputError('it declares a document type')


class EafReader:
  """Collects the time slots and annotations of the elements of a file of ELAN."""

  def __init__(self):
    self.root, self.origin = None, None
    self.tiers: list[str] = []
    self.tier: str | None = None  # the one that is being read
    self.slots: dict[str, str | None] = {}  # {time slot: milliseconds}
    self.places: dict[str, tuple[str, str] | str] = {}  # {annotation: its slots, or its parent}
    self.found: list[tuple[str, str, str, int]] = []  # tier, annotation, text, line
    self.open: tuple[str, int] | None = None  # the annotation that is being read, and its line
    self.text: list[str] | None = None

  def start(self, tag: str, given: dict[str, str], line: int) -> None:
    """Takes the begin of an element with its attributes."""
    self.root = self.root or tag
    if tag == 'HEADER' and given.get('TIME_UNITS', 'milliseconds') != 'milliseconds':
      raise InputError(f'its times are in {given["TIME_UNITS"]}; open and save it in ELAN')
    if tag == 'MEDIA_DESCRIPTOR' and self.origin is None:
      self.origin = int(given.get('TIME_ORIGIN') or 0)
    elif tag == 'TIME_SLOT':
      self.slots[given['TIME_SLOT_ID']] = given.get('TIME_VALUE')
    elif tag == 'TIER':
      self.tier = given['TIER_ID']
      self.tiers.append(self.tier)
    elif tag in ('ALIGNABLE_ANNOTATION', 'REF_ANNOTATION'):
      if self.tier is None:
        raise InputError(f'the annotation in line {line} is in no tier')
      self.open = given['ANNOTATION_ID'], line
      self.places[self.open[0]] = (
        given['ANNOTATION_REF']
        if tag == 'REF_ANNOTATION'
        else (given['TIME_SLOT_REF1'], given['TIME_SLOT_REF2'])
      )
    elif tag == 'ANNOTATION_VALUE':
      self.text = []

  def add_text(self, text: str) -> None:
    """Takes the text within an element."""
    if self.text is not None:
      self.text.append(text)

  def end(self, tag: str) -> None:
    """Takes the end of an element."""
    if tag == 'TIER':
      self.tier = self.open = None
    elif tag == 'ANNOTATION_VALUE':
      if self.tier and self.open and self.text is not None:
        name, line = self.open
        self.found.append((self.tier, name, ''.join(self.text), line))
      self.text = None

  def annotations(self):
    """Yields the annotations; InputError where one has no times."""
    for tier, name, text, line in self.found:
      place = self.places[name]
      for _ in self.places:  # no more than there are, in case they refer to one another in a circle
        if not isinstance(place, str):
          break
        place = self.places[place]
      times = [] if isinstance(place, str) else [self.slots[slot] for slot in place]
      if len(times) < 2 or None in times:
        raise InputError(f'the annotation {name} in line {line} has no times')
      begin, end = ((int(time) + (self.origin or 0)) / 1000 for time in times)
      yield Annotation(tier, begin, end, text, line)


def is_export(path: pathlib.Path) -> bool:
  """Tells whether a .csv is an export of ELAN, which has a column for the begin of annotations."""
  lines = (line.lstrip('" ') for line in files.read_text(path).splitlines())
  header = next((line for line in lines if line and not line.startswith('#')), '')
  return f'{BEGIN} - ' in header.lower()


def read_export(path: pathlib.Path, annotator: str, mistakes: Mistakes) -> LabelFile:
  """Reads what ELAN exports as tab-delimited text, or as CSV where the file ends with .csv.

  There is a column for each tier, or a row for each annotation with the name of its tier. Rows that
  cannot be used go into `mistakes`; raises InputError where times or tiers are missing.
  """
  table, known = list(rows(path)), len(mistakes)
  if not table:
    raise InputError(f'{path} is empty')
  header = [cell.lower() for cell in table[0][1]]
  if any(name.startswith(f'{BEGIN} - ') for name in header):
    tiers, found = by_columns(path, header, table, mistakes)
  elif all(any(name in cell for cell in header) for name in DIMENSIONS):
    raise InputError(
      f'{path} is a table of labels and no export of ELAN; let its name end with .csv'
    )
  else:
    tiers, found = by_rows(path, table, mistakes)
  return label_file(path, annotator, tiers, found, mistakes, known)


def rows(path: pathlib.Path):
  """Yields (line, cells) of a file, without empty lines and those on media, which begin with #."""
  lines = files.read_text(path).splitlines()
  if path.suffix.lower() == '.csv':
    found = cells_of(path, lines, ',')
  else:  # text in which a quote is a quote
    found = ((k, [c.strip() for c in line.split('\t')]) for k, line in enumerate(lines, 1))
  for line, cells in found:
    if any(cells) and not cells[0].lstrip('"').startswith('#'):
      yield line, cells


def by_columns(path, header: Sequence[str], table, mistakes: Mistakes):
  """Returns the tiers and annotations of a table with a column for each tier."""
  begin = next(i for i, name in enumerate(header) if name.startswith(f'{BEGIN} - '))
  form = header[begin].removeprefix(f'{BEGIN} - ')
  end = next((i for i, name in enumerate(header) if name == f'{END} - {form}'), None)
  if end is None:
    raise InputError(f'{path} has no column {END} - {form}; export begin and end in one format')
  found = []
  for line, cells in table[1:]:
    cells = [*cells, *[''] * (len(header) - len(cells))]
    times = seconds(cells[begin]), seconds(cells[end])
    if None in times:
      mistakes.add('rows have no time', f'{path}, line {line}')
      continue
    for i, tier in enumerate(header):
      if tier in DIMENSIONS:
        found.append(Annotation(tier, *times, cells[i], line))
  return header, found


def by_rows(path, table, mistakes: Mistakes):
  """Returns the tiers and annotations of a table with a row for each annotation, without a header.

  A row has the tier, perhaps the participant, then begin, end and duration, each in one or more
  formats, and the text. Nothing names these columns. Only the duration tells the begin from a
  participant that is a number, and the end from a duration without one, so it must be there.
  """
  tiers, found = [], []
  for line, cells in table:
    tiers.append(cells[0])
    if cells[0].lower() not in DIMENSIONS:
      continue
    times, others = divmod(len(cells) - 2, 3)  # formats of each time, and columns before them
    begin, end, duration = map(seconds, cells[-1 - 3 * times : -1 : times]) if times else [None] * 3
    if (
      others > 1
      or begin is None
      or end is None
      or duration is None
      or abs(begin + duration - end) > ROUNDED
    ):
      mistakes.add(
        'rows have no begin, end and duration of an annotation',
        f'{path}, line {line}',
        '; export tier names, these three times and annotations, with no other columns',
      )
    else:
      found.append(Annotation(cells[0], begin, end, cells[-1], line))
  return list(dict.fromkeys(tiers)), found


def seconds(text: str) -> float | None:
  """Returns the seconds of a time in one of FORMATS, None for anything else."""
  form = next((name for pattern, name in FORMATS.items() if pattern.fullmatch(text)), None)
  if form is None:
    return None
  if form == 'msec':
    return int(text) / 1000
  parts = [float(part) for part in text.split(':')]
  return sum(part * 60**k for k, part in enumerate(reversed(parts)))


def label_file(
  path,
  annotator: str,
  tiers: Sequence[str],
  found: Sequence[Annotation],
  mistakes: Mistakes,
  known: int,
) -> LabelFile:
  """Returns the annotations of the tiers valence and arousal as labels in time.

  known: how many of the mistakes are of other files.

  Raises InputError where such a tier is missing, and where the file has mistakes.
  """
  spans = []
  for dimension in DIMENSIONS:
    if dimension not in map(str.lower, tiers):
      shown = ', '.join(map(one_line, tiers[:9])) or 'none'
      raise InputError(f'{path} has no tier called {dimension}; its tiers are {shown}')
    spans.append([a for a in found if a.tier.lower() == dimension and a.text.strip()])
    spans[-1].sort(key=lambda annotation: annotation.begin)
    for annotation in spans[-1]:
      where = f'{path}, line {annotation.line}'
      try:
        annotation.number()
      except ValueError as problem:
        mistakes.add(NO_NUMBER, f'{where} ({problem})')
      if not annotation.begin < annotation.end:
        mistakes.add('annotations have an end before the begin', where)
      if max(-annotation.begin, annotation.end) > MOST_SECONDS:
        mistakes.add('annotations are more than a day from the start of the video', where)
    for before, after in itertools.pairwise(spans[-1]):
      if after.begin < before.end:
        mistakes.add(f'annotations of {dimension} overlap', f'{path}, line {after.line}')
  if len(mistakes) > known:
    mistakes.raise_if_any()
  if not all(spans):
    raise InputError(f'{path} has no annotation with a number in one of the tiers')
  return LabelFile(path, annotator, False, *sample(spans))


def sample(spans: Sequence[Sequence[Annotation]]):
  """Returns places (m,), values (m,2) and lines (m,2) of annotations as `LabelFile` has them.

  Between two moments at which an annotation begins or ends, the values of both dimensions are
  constant, or missing. Each such stretch has rows at both of its ends and every 1 / COMPARED_RATE
  between, so that labels are joined within it whatever --label_gap is, and jump at its ends. A row
  without values at either end of all keeps frames beyond from taking the value of a near one.

  spans: annotations of each dimension, which do not overlap, in order of time.
  """
  cuts = sorted({time for members in spans for a in members for time in (a.begin, a.end)})
  begins = [[a.begin for a in members] for members in spans]
  nothing = [math.nan] * len(spans)
  places, values, lines = [cuts[:1]], [nothing], [[0, 0]]
  for start, end in itertools.pairwise(cuts):
    row, line = [], []
    for members, firsts in zip(spans, begins, strict=True):
      k = int(np.searchsorted(firsts, start, 'right')) - 1
      given = k >= 0 and members[k].end >= end
      row.append(members[k].number() if given else math.nan)
      line.append(members[k].line if given else 0)
    count = math.ceil((end - start) * COMPARED_RATE) + 1 if any(line) else 2
    places.append(np.linspace(start, end, count))
    values += [row] * count
    lines += [line] * count
  places.append(cuts[-1:])
  return np.concatenate(places), np.array([*values, nothing]), np.array([*lines, [0, 0]])
