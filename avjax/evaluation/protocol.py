"""Gathers several runs of one system: a table, the best fold, the mean over folds, submissions.

The runs differ in fold and target. `python -m avjax.evaluate --runs DIR` is the command.
"""

from __future__ import annotations

import csv
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from avjax import files
from avjax.data.names import check_name
from avjax.errors import InputError, as_input_error, visible
from avjax.evaluation import submission
from avjax.evaluation.results import find_predictions
from avjax.reports.markdown import as_text
from avjax.runs import checkpoint
from avjax.runs import folder as run_folder
from avjax.targets import TARGETS, metric_names

Runs = dict[str, tuple[ConfigDict, dict]]  # {name: (config, results on the validation split)}
ValuesByFrame = dict[str, dict[int, tuple[float, float]]]  # {clip: {frame id: (valence, arousal)}}

SUBMITTED = ('valence', 'arousal')  # the columns of the challenge's submission file
MOST = 2**53  # of a number in results
NEW_METRICS = ('sagr', 'bias')  # results of version 0.2.0 and before lack these
# Keys in which the runs of one system may differ.
KEYS_OF_ONE_RUN = ('fold', 'targets', 'seed', 'data.dir', 'resume')


def find_runs(folder: str | pathlib.Path) -> tuple[Runs, list[str]]:
  """Finds the runs under a folder that have ended, and the names of those that have not.

  Raises InputError if none has ended, or if they are not of one system on the same records.
  """
  folder = pathlib.Path(folder)
  runs, unfinished = {}, []
  for path in sorted(folder.glob(f'**/{run_folder.CONFIG}')):
    name, config = str(path.parent.relative_to(folder)), run_folder.read_config(path.parent)
    results = path.parent / run_folder.results_name('validation')
    if checkpoint.ended(path.parent) and results.exists():
      runs[name] = config, check_results(results)
    else:
      unfinished.append(name)
  if not runs:
    raise InputError(f'{folder} holds no run that has ended')
  check_same_system(folder, runs)
  return runs, unfinished


def check_same_system(folder: pathlib.Path, runs: Runs) -> None:
  """Raises InputError unless all runs were trained on the same records, with one config.

  The configs may differ in KEYS_OF_ONE_RUN.
  """
  first, *others = runs
  records = {name: run_folder.read_versions(folder / name).get('records') for name in runs}
  for name in others:
    if records[name] != records[first]:
      raise InputError(f'{folder}: {name} and {first} were trained on different records')
  configs = {name: json.loads(config.to_json()) for name, (config, _) in runs.items()}
  for name in others:
    changed = [
      key
      for key in run_folder.changed_keys(configs[first], configs[name])
      if key not in KEYS_OF_ONE_RUN
    ]
    if changed:
      raise InputError(
        f'{folder}: {name} and {first} differ in {", ".join(changed[:4])}; '
        'gather one system at a time'
      )


def check_results(path: pathlib.Path) -> dict:
  """Reads the results in a file; InputError where they lack what a table needs."""
  results = files.read_json(path)
  try:
    counts = [results['fold'], results['best_epoch']]
    scores = [
      results[target][metric]
      for target in set(TARGETS) & results.keys()
      for metric in TARGETS[target].metrics
      if metric in results[target] or metric not in NEW_METRICS
    ]
    if {type(x) for x in counts} != {int} or not {type(x) for x in scores} <= {int, float}:
      raise TypeError('a number')
    if any(abs(x) > MOST for x in (*counts, *scores)):  # NaN is a score
      raise TypeError('a number of a size that scores and epochs have')
  except (KeyError, TypeError) as error:
    raise InputError(
      f'{path} is damaged: it lacks {error}; python -m avjax.evaluate {path.parent} writes it again'
    ) from error
  return results


def summarize(runs: Runs) -> dict[str, dict[str, Any]]:
  """Summarizes the scores of each target over its runs.

  The metrics are those that all runs of the target have; runs of older versions have fewer.

  Returns {target: {'runs': {name: {'fold', metric: value, 'best_epoch'}}, 'best',
  'mean': {metric: value}, 'spread': {metric: value}}}. best is the name of the run with the highest
  first metric (CCC); spread is the standard deviation over runs (n - 1), None for one run.
  """
  summary = {}
  for target in TARGETS:
    found = [results[target] for _, results in runs.values() if target in results]
    metrics = [name for name in TARGETS[target].metrics if all(name in row for row in found)]
    rows = {
      name: {
        'fold': results['fold'],
        **{metric: results[target][metric] for metric in metrics},
        'best_epoch': results['best_epoch'],
      }
      for name, (_, results) in runs.items()
      if target in results
    }
    if not rows:
      continue
    values = {metric: np.array([row[metric] for row in rows.values()]) for metric in metrics}
    several = len(rows) > 1
    summary[target] = {
      'runs': rows,
      'best': max(rows, key=lambda name: rows[name][metrics[0]]),
      'mean': {metric: float(x.mean()) for metric, x in values.items()},
      'spread': {metric: float(x.std(ddof=1)) if several else None for metric, x in values.items()},
    }
  return summary


def shown(name: str) -> str:
  """Returns the name of a run, which may be a stranger's folder, as text of Markdown in a line."""
  return visible(as_text(name))


def table(summary: dict[str, dict[str, Any]]) -> str:
  """Formats what `summarize` returns as Markdown."""
  rows = [row for found in summary.values() for row in found['runs'].values()]
  metrics = [name for name in metric_names(summary) if any(name in row for row in rows)]
  heads = ['target', 'run', 'fold', *(metric.upper() for metric in metrics), 'best epoch']
  lines = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
  for target, found in summary.items():
    several = len(found['runs']) > 1
    for name, row in sorted(found['runs'].items(), key=lambda item: item[1]['fold']):
      mark = ' (best)' if name == found['best'] and several else ''
      scores = ' | '.join(f'{row[metric]:.3f}' if metric in row else '' for metric in metrics)
      lines.append(
        f'| {target} | {shown(name)}{mark} | {row["fold"]} | {scores} | {row["best_epoch"] + 1} |'
      )
    if several:
      scores = ' | '.join(
        f'{found["mean"][metric]:.3f} ± {found["spread"][metric]:.3f}'
        if metric in found['mean']
        else ''
        for metric in metrics
      )
      lines.append(f'| {target} | mean ± spread | | {scores} | |')
  return '\n'.join(lines)


def read_predictions(folder: pathlib.Path, target: str) -> dict[str, dict[int, float]]:
  """Reads {clip: {frame id: value}} from the CSVs of a run's split.

  Raises InputError for a file that is damaged, or whose name no clip has.
  """
  predictions = {}
  for path in find_predictions(folder):
    clip = check_name(path.stem, f'{folder} has the predictions of a clip')
    with as_input_error(f'{path} is damaged; python -m avjax.evaluate writes it again'):
      rows = csv.DictReader(files.read_text(path).splitlines())
      predictions[clip] = {int(row['frame']): float(row[target]) for row in rows}
  return predictions


def combine(
  folder: pathlib.Path, summary: dict[str, dict[str, Any]], choose: Callable[[dict], Iterable[str]]
) -> ValuesByFrame:
  """Averages the predictions for the test split over runs, which may differ between targets.

  Args:
    folder: of the runs.
    summary: what `summarize` returns, with both of SUBMITTED.
    choose: maps the summary of a target to the names of the runs that are averaged for it.

  Returns {clip: {frame id: (valence, arousal)}}. Raises InputError where two of these runs have
  predicted other clips or other frames of them.
  """
  members = {
    target: {
      name: read_predictions(folder / name / run_folder.predictions_name('test'), target)
      for name in choose(summary[target])
    }
    for target in SUBMITTED
  }
  places = {
    name: {clip: list(frames) for clip, frames in found.items()}
    for runs in members.values()
    for name, found in runs.items()
  }
  first = next(iter(places))
  for name in places:
    if places[name] != places[first]:
      raise InputError(
        f'{folder / first} and {folder / name} have predicted other frames of the test partition; '
        'evaluate both on the same records'
      )
  return {
    clip: {
      frame: tuple(np.mean([run[clip][frame] for run in members[t].values()]) for t in SUBMITTED)
      for frame in frames
    }
    for clip, frames in places[first].items()
  }


def gather(
  folder: str | pathlib.Path,
  evaluate_test: Callable[[pathlib.Path], Any],
  template: str | pathlib.Path | None = None,
) -> list[str]:
  """Writes the table of the runs under a folder and, where it can, their submissions.

  summary.json and summary.md hold the table. Where the records have test clips and both targets
  were trained, submission_best.txt has each target from its best fold, and submission_mean.txt
  the mean over its folds.

  Args:
    folder: of the runs; the files are written into it.
    evaluate_test: writes the test predictions of the run in a folder, and returns None where there
      are no test clips.
    template: the organisers' sample submission, whose rows the new ones get; by default a
      submission has all frames of the test records.

  Returns the lines to print.
  """
  folder = pathlib.Path(folder)
  wanted = submission.read_template(template) if template else None
  runs, unfinished = find_runs(folder)
  files.remove_abandoned(folder)
  summary = summarize(runs)
  files.write_json(folder / 'summary.json', summary)
  files.write_text(folder / 'summary.md', table(summary) + '\n')
  lines = [table(summary), '', f'summary      {folder / "summary.json"}, {folder / "summary.md"}']
  if unfinished:
    lines.append(f'unfinished   {", ".join(map(shown, unfinished))}')
  missing = [target for target in SUBMITTED if target not in summary]
  if missing:
    return [*lines, f'no submission: no run for {missing[0]} has ended']
  for name in runs:
    if evaluate_test(folder / name) is None:
      return [*lines, 'no submission: the records have no test clips']
  choices = {'best': lambda found: [found['best']], 'mean': lambda found: found['runs']}
  for kind, choose in choices.items():
    predictions = combine(folder, summary, choose)
    places = wanted or [
      (clip, frame) for clip in sorted(predictions) for frame in sorted(predictions[clip])
    ]
    rows, repeated, left_out = submission.fit(predictions, places)
    path = folder / f'submission_{kind}.txt'
    submission.write(path, rows)
    lines.append(
      f'submission   {path}: {len(rows):,} rows, {repeated} beyond the end of a video, '
      f'{left_out} frames not in the template'
    )
  return lines
