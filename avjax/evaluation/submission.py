"""Reads, fits, writes and checks submission files of the ABAW challenge.

The organisers' format: a header, then a row `<clip>/<00001>.jpg,valence,arousal` for every frame of
every test clip, with or without a face, in the order of their template, which has the same rows
with nothing in the last two columns.
"""

from __future__ import annotations

import csv
import io
import itertools
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

from avjax import files
from avjax.errors import InputError

HEADER = ['image_location', 'valence', 'arousal']
NUMBER = r'[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?'
LONGEST = 4096  # characters of a column, as the path of a file has
MOST_REPEATED = 30  # most rows of a clip in the template beyond the end of its video


def read_rows(path: str | pathlib.Path) -> Iterator[tuple[int, str, str, str]]:
  """Yields (line number, location, valence, arousal) of a template or submission file.

  All but the line number are strings as in the file.
  """
  try:
    rows = csv.reader(io.StringIO(files.read_text(path), newline=''))
    header = next(rows, [])
    if header != HEADER:
      raise InputError(
        f'{path}, line 1: expected the header {",".join(HEADER)!r}, found {",".join(header)[:60]!r}'
      )
    for number, row in enumerate(rows, 2):
      if len(row) != 3:
        raise InputError(f'{path}, line {number}: expected 3 columns, found {len(row)}')
      if max(map(len, row)) > LONGEST:
        raise InputError(f'{path}, line {number} has more than {LONGEST} characters in a column')
      yield number, *row
  except csv.Error as error:
    raise InputError(f'{path} cannot be read: {error}') from error


def read_template(path: str | pathlib.Path) -> list[tuple[str, int]]:
  """Reads the rows that a submission must have, as a list of (clip, frame id)."""
  places = [
    parse_location(f'{path}, line {number}', location) for number, location, *_ in read_rows(path)
  ]
  if not places:
    raise InputError(f'{path} has no rows')
  return places


def parse_location(where: str, location: str) -> tuple[str, int]:
  """Returns the (clip, frame id) of a location; raises InputError naming `where` for other text."""
  found = re.fullmatch(r'([^/]+)/(\d{5,10})\.jpg', location)
  if not found:
    raise InputError(f'{where}: {location[:60]!r} is not <clip>/<00001>.jpg')
  return found[1], int(found[2])


def fit(
  predictions: dict[str, dict[int, tuple[float, float]]], template: Sequence[tuple[str, int]]
) -> tuple[list[tuple], int, int]:
  """Gives every row of the template its prediction.

  Where a clip has up to MOST_REPEATED more rows in the template than frames in its video, the last
  prediction is repeated.

  predictions: {clip: {frame id: (valence, arousal)}}.
  Returns ([(clip, frame, valence, arousal)], the number of repeated rows, the number of predicted
  frames that are not in the template).
  Raises InputError if a clip or a frame has no prediction that can be used.
  """
  rows, repeated = [], 0
  last = {clip: max(frames) for clip, frames in predictions.items()}
  for clip, frame in template:
    if clip not in predictions:
      raise InputError(
        f'the template has clip {clip!r}, for which there is no prediction; '
        'build the records with the list of test clips'
      )
    missing = frame not in predictions[clip] and frame < last[clip]
    if missing or frame > last[clip] + MOST_REPEATED:
      raise InputError(
        f'clip {clip!r} has no prediction for frame {frame}; its last one is for frame {last[clip]}'
      )
    repeated += frame > last[clip]
    rows.append((clip, frame, *predictions[clip][min(frame, last[clip])]))
  predicted = {(clip, frame) for clip in predictions for frame in predictions[clip]}
  return rows, repeated, len(predicted - set(template))


def write(path: str | pathlib.Path, rows: Sequence[tuple[str, int, float, float]]) -> None:
  """Writes rows of (clip, frame, valence, arousal) in one step, and checks them first.

  Values are clipped to [-1, 1].
  """
  with files.replacing(path) as partial:
    with partial.open('w', newline='', encoding='utf-8') as file:
      writer = csv.writer(file, lineterminator='\n')
      writer.writerow(HEADER)
      for clip, frame, *values in rows:
        numbers = [f'{min(max(value, -1), 1):.6f}' for value in values]
        writer.writerow([location_of(clip, frame), *numbers])
    check(partial, [(clip, frame) for clip, frame, *_ in rows])


def location_of(clip: str, frame: int) -> str:
  """Returns how a submission names a frame of a clip: its crop."""
  return f'{clip}/{frame:05d}.jpg'


def check(path: str | pathlib.Path, template: Iterable[tuple[str, int]]) -> tuple[int, int]:
  """Checks a submission against a template; returns its numbers of rows and clips.

  Raises InputError for the first line that differs from the template or has an invalid value.
  """
  count, clips = 0, set()
  for row, wanted in itertools.zip_longest(read_rows(path), template):
    if row is None:
      raise InputError(
        f'{path} ends too early: {location_of(*wanted)} and what follows it in the '
        'template is missing'
      )
    number, location, *values = row
    where = f'{path}, line {number}'
    clip, _ = parse_location(where, location)
    if wanted is None or location != location_of(*wanted):
      there = f'has {location_of(*wanted)}' if wanted else 'has ended'
      raise InputError(f'{where}: {location}, where the template {there}')
    for name, text in zip(HEADER[1:], values, strict=True):
      if not re.fullmatch(NUMBER, text) or not -1 <= float(text) <= 1:
        raise InputError(f'{where}: {name} {text[:20]!r} is not a number between -1 and 1')
    count += 1
    clips.add(clip)
  return count, len(clips)
