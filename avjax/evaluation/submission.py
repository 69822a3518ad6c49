"""Submission files of the ABAW challenge: python -m avjax.submission FILE --template TEMPLATE checks one.

The organisers' format: a header, then a row `<clip>/<00001>.jpg,valence,arousal` for every frame of every test clip, with or
without a face, in the order of their template, which has the same rows with nothing in the last two columns.
"""

import csv
import itertools
import pathlib
import re

from avjax.errors import InputError

HEADER = ['image_location', 'valence', 'arousal']
NUMBER = r'[-+]?\d*\.?\d+([eE][-+]?\d+)?'
MOST_REPEATED = 30  # rows of one clip's template beyond the end of its video


def read_rows(path):
  """Yields (line number, location, valence, arousal), all strings but the first, of a template or submission file."""
  try:
    with open(path, newline='', encoding='utf-8-sig') as file:
      rows = csv.reader(file)
      header = next(rows, [])
      if header != HEADER:
        raise InputError(f'{path}, line 1: expected the header {",".join(HEADER)!r}, found {",".join(header)[:60]!r}')
      for number, row in enumerate(rows, 2):
        if len(row) != 3:
          raise InputError(f'{path}, line {number}: expected 3 columns, found {len(row)}')
        yield number, *row
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise InputError(f'{path} cannot be read: {error}') from error


def read_template(path):
  """The rows that a submission must have, as a list of (clip, frame id)."""
  places = [parse_location(f'{path}, line {number}', location) for number, location, *_ in read_rows(path)]
  if not places:
    raise InputError(f'{path} has no rows')
  return places


def parse_location(where, location):
  found = re.fullmatch(r'([^/]+)/(\d{5,})\.jpg', location)
  if not found:
    raise InputError(f'{where}: {location[:60]!r} is not <clip>/<00001>.jpg')
  return found[1], int(found[2])


def fit(predictions, template):
  """Gives every row of the template its prediction.

  predictions: {clip: {frame id: (valence, arousal)}}. Returns ([(clip, frame, valence, arousal)], rows repeated, frames left
  out): where a clip's template is longer than its video, which happens by a few frames, the last prediction is repeated.
  Raises InputError where a clip, or a frame before the last, has no prediction.
  """
  rows, repeated = [], 0
  last = {clip: max(frames) for clip, frames in predictions.items()}
  for clip, frame in template:
    if clip not in predictions:
      raise InputError(f'the template has clip {clip!r}, for which there is no prediction; build the records with the list of test clips')
    if (frame not in predictions[clip] and frame < last[clip]) or frame > last[clip] + MOST_REPEATED:
      raise InputError(f'clip {clip!r} has no prediction for frame {frame}; its last one is for frame {last[clip]}')
    repeated += frame > last[clip]
    rows.append((clip, frame, *predictions[clip][min(frame, last[clip])]))
  return rows, repeated, len({(clip, frame) for clip in predictions for frame in predictions[clip]} - set(template))


def write(path, rows):
  """Writes rows of (clip, frame, valence, arousal) in one step, and checks them; values are clipped to [-1, 1]."""
  path = pathlib.Path(path)
  partial = path.with_name(path.name + '.partial')
  with partial.open('w', newline='') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(HEADER)
    for clip, frame, *values in rows:
      writer.writerow([location_of(clip, frame), *(f'{min(max(value, -1), 1):.6f}' for value in values)])
  check(partial, [(clip, frame) for clip, frame, *_ in rows])
  partial.replace(path)


def location_of(clip, frame):
  return f'{clip}/{frame:05d}.jpg'


def check(path, template):
  """Raises InputError with the first line of a submission that is not as the template wants it; returns (rows, clips)."""
  clips = set()
  for row, wanted in itertools.zip_longest(read_rows(path), template):
    if row is None:
      raise InputError(f'{path} ends too early: {location_of(*wanted)} and what follows it in the template is missing')
    number, location, *values = row
    where = f'{path}, line {number}'
    clip, _ = parse_location(where, location)
    if wanted is None or location != location_of(*wanted):
      raise InputError(f'{where}: {location}, where the template ' + (f'has {location_of(*wanted)}' if wanted else 'has ended'))
    for name, text in zip(HEADER[1:], values):
      if not re.fullmatch(NUMBER, text) or not -1 <= float(text) <= 1:
        raise InputError(f'{where}: {name} {text[:20]!r} is no number between -1 and 1')
    clips.add(clip)
  return len(template), len(clips)
