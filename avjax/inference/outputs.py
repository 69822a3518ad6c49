"""Writes what is predicted for a video: a CSV, a figure, a page, and other programs' formats.

It also makes the summary that avjax.predict prints.
"""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from avjax import errors, files
from avjax.errors import InputError
from avjax.inference.formats import FORMATS, WRITERS
from avjax.inference.prediction import VideoPrediction
from avjax.reports import clip_page
from avjax.targets import value_range

# What begins a formula at the start of a cell, also in the wide form of East Asian letters, and
# where a comment of the CSV may start a cell: after a comma, a semicolon or a bar.
FORMULA = "([,;|][' ]*)([=+@\uff1d\uff0b\uff20\uff0d-])"
LONGEST_NAME = 255  # bytes that a file system takes


def display(path: str | pathlib.Path) -> str:
  """Returns the name of a file as text that can be printed on one line, whatever bytes it has."""
  name = os.fsencode(pathlib.Path(path).name).decode('utf-8', 'replace')
  return errors.visible(name)


def output_paths(
  path: pathlib.Path, output: str | pathlib.Path | None, overlay: bool, formats: Sequence[str] = ()
) -> dict[str, pathlib.Path]:
  """Returns {kind: file to write}: 'csv', 'png', 'html' and, if wanted, 'overlay' and others.

  path: the video; output: folder of the files, or None if nothing is written; formats: names in
  FORMATS, of whose files the endings are the kinds.
  """
  if not output:
    return {}
  names = {'csv': f'{path.stem}.csv', 'png': f'{path.stem}.png', 'html': f'{path.stem}.html'}
  names |= {'overlay': f'{path.stem}_overlay.mp4'} if overlay else {}
  names |= {ending: f'{path.stem}{ending}' for name in formats for ending in FORMATS[name]}
  if max(len(os.fsencode(name)) for name in names.values()) > LONGEST_NAME:
    raise InputError(f'the name of {display(path)} is too long to name its output files by')
  return {kind: pathlib.Path(output) / name for kind, name in names.items()}


def check_absent(outputs: dict[str, pathlib.Path]) -> None:
  """Raises InputError if one of the files of `output_paths` exists."""
  for target in outputs.values():
    if target.exists():
      raise InputError(f'{target} exists and is not overwritten; move it, or give another --output')


@contextlib.contextmanager
def partial_folder(output: str | pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields a temporary folder next to the files to write; it is removed with what is left in it."""
  with errors.writing(output):
    pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    try:
      with files.temporary_folder(output) as folder:
        yield folder
    finally:
      with contextlib.suppress(OSError):  # a folder that is not empty stays
        pathlib.Path(output).rmdir()


def write_table(
  result: VideoPrediction,
  path: pathlib.Path,
  partial: pathlib.Path,
  outputs: dict[str, pathlib.Path],
) -> None:
  """Writes the CSV, the figure and other formats under `partial`, then moves them into place.

  They come before the page, so that they are there if its video cannot be written.

  Args:
    result: what is predicted.
    path: the video.
    partial: what `partial_folder` yields.
    outputs: what `output_paths` returns.
  """
  write_csv(result, path, partial / 'csv')
  from avjax.reports import plots  # with matplotlib, which takes a second to import

  plots.clip(result, display(path), partial / 'clip.png')
  made = {'csv': partial / 'csv', 'png': partial / 'clip.png'}
  for ending in filter(outputs.get, WRITERS):
    made[ending] = partial / f'clip{ending}'
    WRITERS[ending](result, path, outputs, made[ending])
  check_absent(outputs)  # again, since predicting takes long
  moved = []
  try:
    for kind, file in made.items():
      move(file, outputs[kind])
      moved.append(outputs[kind])
  except OSError:
    for target in moved:
      target.unlink()
    raise


def write_page(
  result: VideoPrediction,
  path: pathlib.Path,
  partial: pathlib.Path,
  outputs: dict[str, pathlib.Path],
) -> None:
  """Writes the page under `partial`, which holds its video clip.mp4, then moves it into place.

  The arguments are those of `write_table`.
  """
  clip_page.write(partial / 'html', display(path), partial / 'clip.mp4', result)
  move(partial / 'html', outputs['html'], private=True)


def move(made: pathlib.Path, target: pathlib.Path, *, private: bool = False) -> None:
  """Moves a file that was made to its place, unless somebody else has written one there.

  private: whether only the user may read it, since it holds somebody's face and voice; by default
    the user's umask decides.
  """
  check_absent({'': target})
  if private:
    made.chmod(0o600)
  made.replace(target)


def comment(texts: Iterable[str]) -> str:
  """Joins texts to a comment of the CSV of which a spreadsheet makes no formula.

  % and " are percent-encoded, and so is a sign with which a formula could begin after a separator;
  urllib.parse.unquote gives the texts back.
  """
  joined = re.sub('[%"]', lambda found: percent_encode(found[0]), errors.visible('; '.join(texts)))
  return re.sub(FORMULA, lambda found: found[1] + percent_encode(found[2]), joined)


def percent_encode(text: str) -> str:
  """Returns the UTF-8 bytes of text, each as % and two hexadecimal digits."""
  return ''.join(f'%{byte:02X}' for byte in text.encode())


def write_csv(result: VideoPrediction, path: pathlib.Path, target: pathlib.Path) -> None:
  """Writes a row for each frame, below comments that state the units.

  pandas.read_csv(file, comment='#') reads it. path: the video; target: the file to write.
  """
  predictions = result.predictions
  lowest, highest = value_range(predictions)
  with open(target, 'w', newline='', encoding='utf-8') as file:
    file.write(
      f'# avjax: {comment([display(path), *result.notes])}\n'
      f'# frame from 1; time in seconds; {" and ".join(predictions)} from {lowest:g} to '
      f'{highest:g}, empty where '
      'the model had no input; face_found and audio_present 0 or 1; gates: share of trust, '
      '0 to 1\n'
    )
    writer = csv.writer(file, lineterminator='\n')  # as the comments above have it
    columns = result.columns()
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
      writer.writerow(map(cell, columns, row))


def cell(column: str, value) -> str:
  """Formats a number of the CSV; empty where there is none."""
  if not isinstance(value, np.floating):
    return str(int(value))
  digits = 4 if column == 'time' else 6
  return '' if np.isnan(value) else f'{value:.{digits}f}'


def summary(result: VideoPrediction, path: pathlib.Path, outputs: dict[str, pathlib.Path]) -> str:
  """Returns text for the terminal: length, range of each target, remarks, speed, files."""
  lines = [f'{display(path)}: {len(result.frames):,} frames, {result.times[-1]:.1f} s']
  for target, values in result.predictions.items():
    values = values[~np.isnan(values)]
    if len(values):
      lines.append(
        f'{target:<10} mean {values.mean():+.3f}, from {values.min():+.3f} to {values.max():+.3f}'
      )
    else:
      lines.append(f'{target:<10} no frame has an input that its run uses')
  speeds = ', '.join(f'{stage} {speed:,.0f}' for stage, speed in result.speed.items())
  lines += [*map(errors.visible, result.notes), f'frames a second: {speeds}']
  lines += [str(output.with_name(display(output))) for output in outputs.values()]
  return '\n'.join(lines)
