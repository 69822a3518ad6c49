"""Formats the results of a partition as tables: text for a terminal, and LaTeX for a paper."""

from __future__ import annotations

import contextlib
import math
import pathlib
from typing import Any

from avjax import errors, files
from avjax.errors import InputError
from avjax.targets import TARGETS, criterion, metric_names

GROUP_METRICS = ('ccc', 'bias', 'rmse')  # shown for groups, as far as a target has them
LATEX_BEGINS = '% Made by avjax: '  # begins every file of write_latex, which replaces no others
# What LaTeX needs in the place of a character of a name.
ESCAPES = {
  '\\': r'\textbackslash{}',
  '{': r'\{',
  '}': r'\}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  '|': r'\textbar{}',
  '"': "''",
  **{character: f'{{{character}}}' for character in '[]*'},  # arguments of what stands before
  **{character: f'\\{character}' for character in '$&#_%'},
}


def number(value: float) -> str:
  """Formats a number with three digits after the point."""
  return f'{value + 0:.3f}' if math.isfinite(value) else 'nan'


def between(interval: list[float]) -> str:
  """Formats an interval."""
  low, high = map(number, interval)
  return f'[{low}, {high}]'


def post_processed(found: dict[str, Any]) -> float | None:
  """Returns CCC after all steps of the post-processing; None if a target has no such results."""
  steps = found.get('post_processing', {}).get('ccc', {})
  return list(steps.values())[-1] if steps else None


def shown_metrics(results: dict[str, Any], targets) -> list[str]:
  """Returns the metrics that the results have; those of older versions have fewer."""
  return [name for name in metric_names(targets) if any(name in results[t] for t in targets)]


def group_metrics(target: str) -> list[str]:
  """Returns the metrics that are shown for groups of a target."""
  names = TARGETS[target].metrics
  return [name for name in GROUP_METRICS if name in names] or [names[0]]


def aligned(rows: list[list[str]]) -> list[str]:
  """Returns lines of text for rows of cells, the first cell to the left and the others right."""
  widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
  widths = [max(widths[0], 10), *(max(width, 8) for width in widths[1:])]
  return [
    ''.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
    for row in rows
  ]


def format_scores(results: dict[str, Any], targets) -> str:
  """Returns the scores, and those of groups, as text for a terminal.

  Results of older versions, which have no intervals, and test partitions without annotations are
  fine.
  """
  if not results['frames']:
    return 'no annotated frames: predictions only'
  metrics = shown_metrics(results, targets)
  with_intervals = any(results[target].get('intervals') for target in targets)
  with_means = any('mean_over_clips' in results[target] for target in targets)
  with_post = any(post_processed(results[target]) is not None for target in targets)
  head = ['', *(metric.upper() for metric in metrics)]
  if with_intervals:
    head.insert(2, f'{criterion(targets).upper()} interval')
  head += ['clip mean'] * with_means + ['post-processed'] * with_post
  rows = [head]
  for target in targets:
    found = results[target]
    row = [target, *(number(found[metric]) if metric in found else '' for metric in metrics)]
    if with_intervals:
      interval = found.get('intervals', {}).get(TARGETS[target].metrics[0])
      row.insert(2, between(interval) if interval else '')
    if with_means:
      row.append(number(found['mean_over_clips'][TARGETS[target].metrics[0]]))
    if with_post:
      value = post_processed(found)
      row.append('' if value is None else number(value))
    rows.append(row)
  lines = aligned(rows)
  lines += [counts(results)]
  lines += notes(results, targets)
  for target in targets:
    for column, groups in results[target].get('groups', {}).items():
      lines += ['', *aligned(group_rows(target, column, groups))]
  lines += group_notes(results)
  return '\n'.join(map(errors.visible, lines))


def counts(results: dict[str, Any]) -> str:
  """Returns how many frames, clips and subjects the results are of."""
  subjects = f' of {results["subjects"]:,} subjects' if 'subjects' in results else ''
  return f'{results["frames"]:,} frames of {results["clips"]} clips{subjects}'


def notes(results: dict[str, Any], targets) -> list[str]:
  """Returns sentences on what the columns are, for those that the results have."""
  found = []
  if how := results.get('intervals'):
    first = criterion(targets).upper()
    unit, units = how['unit'], f'{how["units"]:,}'
    found.append(
      f'intervals: {how["level"]:.0%}, from {how["resamples"]:,} resamples of the {units} {unit}s'
      if how['units'] >= how['least_units']
      else f'intervals: none, since {how["least_units"]} {unit}s are needed and there are {units}'
    )
    found.append(f'clip mean: mean over clips of the {first} of each clip')
  fitted = {
    results[target]['post_processing']['fitted']
    for target in targets
    if 'post_processing' in results[target]
  }
  if fitted:
    found.append(
      'post-processed: CCC after median filter, centring, scaling and time shift, fitted '
      f'{fitted.pop()}'
    )
  elif 'intervals' in results and results['partition'] == 'test':
    found.append(
      'post-processed: no column, since its parameters are fitted on the validation partition; '
      'evaluate that first'
    )
  return found


def group_notes(results: dict[str, Any]) -> list[str]:
  """Returns sentences on the tables of groups, none if there are none."""
  if 'ungrouped' not in results:
    return []
  how = results['intervals']
  found = [f'groups of fewer than {how["least_units"]} {how["unit"]}s are too few for an interval']
  if results['ungrouped']:
    found.append(f'clips in no group: {results["ungrouped"]:,}')
  return found


def group_rows(target: str, column: str, groups: dict[str, dict[str, Any]]) -> list[list[str]]:
  """Returns the rows of the table of one column of groups, the first of them its head."""
  metrics = group_metrics(target)
  with_subjects = any('subjects' in row for row in groups.values())
  sizes = ['clips', *['subjects'] * with_subjects, 'frames']
  heads = [cell for metric in metrics for cell in (metric.upper(), 'interval')]
  rows = [[f'{target} by {column}', *sizes, *heads]]
  for group, row in groups.items():
    cells = [f'{row[size]:,}' if size in row else '' for size in sizes]
    for metric in metrics:
      interval = row['intervals'].get(metric)
      cells += [number(row[metric]), between(interval) if interval else 'too few']
    rows.append([group, *cells])
  return rows


def escaped(text: str) -> str:
  """Returns text in which no character means anything to LaTeX."""
  return ''.join(ESCAPES.get(character, character) for character in errors.visible(text))


def math_number(value: float) -> str:
  """Formats a number for LaTeX."""
  return f'${number(value)}$' if math.isfinite(value) else '--'


def latex_cell(value: float, interval: list[float] | None) -> str:
  """Formats a number and its interval for LaTeX."""
  cell = math_number(value)
  return rf'{cell} {{\scriptsize ${between(interval)}$}}' if interval else cell


def tabular(rows: list[list[str]]) -> list[str]:
  """Returns the lines of a booktabs table of rows of LaTeX, the first of them its head."""
  head, *body = (' & '.join(row) + r' \\' for row in rows)
  columns = 'l' + 'r' * (len(rows[0]) - 1)
  return [
    rf'\begin{{tabular}}{{{columns}}}',
    r'\toprule',
    head,
    r'\midrule',
    *body,
    r'\bottomrule',
    r'\end{tabular}',
  ]


def latex(results: dict[str, Any], targets) -> str:
  """Returns the results as LaTeX: a table of the scores, and one of each column of groups.

  They need the package booktabs; each is a table environment with a caption. Raises InputError
  where no frame is annotated.
  """
  if not results['frames']:
    raise InputError(
      f'no frame of the {results["partition"]} partition is annotated; a table needs annotations'
    )
  metrics = shown_metrics(results, targets)
  with_post = any(post_processed(results[target]) is not None for target in targets)
  head = ['', *(metric.upper() for metric in metrics), 'clip mean']
  rows = [[*head, *['post-processed'] * with_post]]
  for target in targets:
    found = results[target]
    row = [escaped(target)]
    row += [
      latex_cell(found[metric], found['intervals'].get(metric)) if metric in found else ''
      for metric in metrics
    ]
    row.append(math_number(found['mean_over_clips'][TARGETS[target].metrics[0]]))
    if with_post:
      value = post_processed(found)
      interval = found.get('post_processing', {}).get('interval')
      row.append('' if value is None else latex_cell(value, interval))
    rows.append(row)
  what = f'{results["partition"]} partition, {counts(results)}'
  tables = [([what, *notes(results, targets)], tabular(rows))]
  for target in targets:
    for column, groups in results[target].get('groups', {}).items():
      body = tabular(latex_group_rows(target, column, groups))
      tables.append(([f'{target} by {column}, {what}', *group_notes(results)], body))
  lines = [f'{LATEX_BEGINS}python -m avjax.evaluate. Needs \\usepackage{{booktabs}}.']
  for sentences, body in tables:
    caption = ' '.join(f'{escaped(text[:1].upper() + text[1:])}.' for text in sentences)
    lines += ['', r'\begin{table}', r'\centering', rf'\caption{{{caption}}}', *body, r'\end{table}']
  return '\n'.join(lines) + '\n'


def latex_group_rows(target, column, groups) -> list[list[str]]:
  """Returns the rows of `group_rows` in LaTeX, each number with its interval."""
  metrics = group_metrics(target)
  sizes = ['clips', *['subjects'] * any('subjects' in row for row in groups.values()), 'frames']
  rows = [[escaped(column), *sizes, *(metric.upper() for metric in metrics)]]
  for group, row in groups.items():
    cells = [f'{row[size]:,}' if size in row else '' for size in sizes]
    cells += [latex_cell(row[metric], row['intervals'].get(metric)) for metric in metrics]
    rows.append([escaped(group), *cells])
  return rows


def check_latex(path: str | pathlib.Path) -> None:
  """Raises InputError unless `write_latex` may write this file: a new one, or one of its own."""
  path = pathlib.Path(path)
  if not path.parent.is_dir():
    raise InputError(f'--latex {path}: the folder {path.parent} does not exist')
  with contextlib.suppress(FileNotFoundError):
    try:
      with files.open_regular(path) as file:
        own = file.read(len(LATEX_BEGINS)) == LATEX_BEGINS.encode()
    except IsADirectoryError:
      own = False
    if not own:
      raise InputError(f'--latex {path} is not a table of avjax; name another file')


def write_latex(path: str | pathlib.Path, results: dict[str, Any], targets) -> None:
  """Writes `latex` into a file, as `check_latex` allows it."""
  check_latex(path)
  with errors.writing(path):
    files.write_text(path, latex(results, targets))
