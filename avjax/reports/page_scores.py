"""Prepares the scores of a partition, of its groups and of its subjects for the report's page."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from avjax.reports import svg, tables
from avjax.targets import TARGETS

NO_NUMBER = '—'


@dataclasses.dataclass
class Cell:
  """Holds a number as the page shows it.

  number, interval: as text; the interval may be empty.
  bar: what `svg.interval_bar` draws, or None.
  """

  number: str
  interval: str = ''
  bar: svg.IntervalBar | None = None


def number(value: float | None) -> str:
  """Formats a number with three digits and a true minus sign; a dash for None and NaN."""
  if value is None or not math.isfinite(value):
    return NO_NUMBER
  return f'{value + 0:.3f}'.replace('-', svg.MINUS)


def cell(value: float | None, interval: list[float] | None = None, bar=None) -> Cell:
  """Returns the Cell of a number and of its interval [low, high], if it has one."""
  text = f'{number(interval[0])} to {number(interval[1])}' if interval else ''
  return Cell(number(value), text, bar)


def scores(results: dict[str, Any], targets) -> dict[str, Any]:
  """Returns the table of all metrics as {'heads', 'rows': {target: cells}, 'notes'}."""
  metrics = tables.shown_metrics(results, targets)
  steps = next(
    (
      list(results[t]['post_processing']['ccc']) for t in targets if 'post_processing' in results[t]
    ),
    [],
  )
  rows = {}
  for target in targets:
    found = results[target]
    post = found.get('post_processing', {})
    cells = [cell(found.get(metric), found['intervals'].get(metric)) for metric in metrics]
    cells.append(cell(found['mean_over_clips'][TARGETS[target].metrics[0]]))
    for step in steps:
      last = step == steps[-1]
      cells.append(cell(post.get('ccc', {}).get(step), post.get('interval') if last else None))
    rows[target] = cells
  heads = [*(metric.upper() for metric in metrics), 'clip mean']
  heads += [f'{"+ " if k else ""}{step}' for k, step in enumerate(steps)]
  return {'heads': heads, 'post': len(steps), 'rows': rows, 'notes': tables.notes(results, targets)}


def groups(results: dict[str, Any], targets) -> dict[str, Any]:
  """Returns {'notes', 'tables'}, a table for each target and column of groups; {} if none is known.

  A table is {'title', 'target', 'heads', 'rows': [(group, sizes, cells)]}. In a table the bars of a
  metric have one scale, with a mark at the number of all clips.
  """
  found = []
  for target in targets:
    for column, by_group in results[target].get('groups', {}).items():
      metrics = tables.group_metrics(target)
      sizes = ['clips', *['subjects'] * ('subjects' in results), 'frames']
      scales = {metric: _scale(results[target], by_group, metric) for metric in metrics}
      rows = []
      for group, row in by_group.items():
        cells = []
        for metric in metrics:
          interval = row['intervals'].get(metric)
          bar = svg.interval_bar(
            row[metric], interval, *scales[metric], reference=results[target][metric]
          )
          cells.append(cell(row[metric], interval, bar))
          cells[-1].interval = cells[-1].interval or 'too few for an interval'
        rows.append((group, [f'{row[size]:,}' if size in row else '' for size in sizes], cells))
      heads = [*sizes, *(metric.upper() for metric in metrics)]
      found.append(
        {'title': f'{target} by {column}', 'target': target, 'heads': heads, 'rows': rows}
      )
  return {'notes': tables.group_notes(results), 'tables': found} if found else {}


def _scale(found, by_group, metric) -> tuple[float, float]:
  """Returns the ends of the bars of a metric: 0 and all numbers of its groups."""
  values = [0.0, found[metric], *(row[metric] for row in by_group.values())]
  for row in by_group.values():
    values += row['intervals'].get(metric, [])
  values = [value for value in values if math.isfinite(value)]
  return min(values), max(values)


def subjects(results: dict[str, Any], targets) -> dict[str, Any]:
  """Returns the table of subjects as {'heads', 'rows': {subject: texts}}, {} if none is known."""
  if 'subjects' not in results:
    return {}
  columns = [(target, metric) for target in targets for metric in tables.group_metrics(target)]
  rows = {
    name: [
      f'{row["clips"]:,}',
      f'{row["frames"]:,}',
      *(number(results[target]['subjects'][name][metric]) for target, metric in columns),
    ]
    for name, row in results[targets[0]]['subjects'].items()
  }
  heads = ['clips', 'frames', *(f'{target} {metric.upper()}' for target, metric in columns)]
  return {'heads': heads, 'rows': rows}
