"""Several runs of one system, its folds and targets, gathered: a table, the best fold, the mean over folds, submissions.

`python -m avjax.evaluate --runs DIR` is the command.
"""

import csv
import json
import pathlib

import numpy as np

from avjax import files
from avjax.errors import InputError
from avjax.evaluation import submission
from avjax.runs import checkpoint
from avjax.runs import folder as run_folder
from avjax.targets import TARGETS
from avjax.targets.metrics import METRICS

OWN = ('fold', 'targets', 'seed', 'data.dir', 'resume')  # in which the runs of one protocol differ


def find_runs(folder):
  """{name: (config, results)} of the runs under a folder that have ended, and the names of those that have not."""
  runs, unfinished = {}, []
  for path in sorted(pathlib.Path(folder).glob('**/config.json')):
    name = str(path.parent.relative_to(folder))
    results = path.parent / 'results_validation.json'
    if checkpoint.ended(path.parent) and results.exists():
      runs[name] = run_folder.read_config(path.parent), check_results(results)
    else:
      unfinished.append(name)
  if not runs:
    raise InputError(f'{folder} holds no run that has ended')
  first = next(iter(runs))
  records = [files.read_json(pathlib.Path(folder) / name / 'versions.json').get('records') for name in runs]
  for name, other in zip(runs, records):
    if other != records[0]:
      raise InputError(f'{folder}: {name} and {first} were trained on different records')
  for name, (config, _) in runs.items():
    changed = run_folder.changed_keys(json.loads(runs[first][0].to_json()), json.loads(config.to_json()))
    changed = [key for key in changed if key not in OWN]
    if changed:
      raise InputError(f'{folder}: {name} and {first} differ in {", ".join(changed[:4])}; gather one system at a time')
  return runs, unfinished


def check_results(path):
  """The results in a file; InputError where they lack what a table needs."""
  results = files.read_json(path)
  try:
    results['fold'], results['best_epoch']
    for target in set(TARGETS) & results.keys():
      [float(results[target][metric]) for metric in METRICS]
    return results
  except (KeyError, TypeError, ValueError) as error:
    raise InputError(f'{path} is damaged: it lacks {error}; python -m avjax.evaluate {path.parent} writes it again') from error


def summarize(runs):
  """{target: {'runs': {name: {'fold', 'ccc', 'pcc', 'rmse', 'best_epoch'}}, 'best', 'mean': {...}, 'spread': {...}}}.

  best is the name of the run with the highest CCC; spread is the standard deviation over runs (n - 1), None for one run.
  """
  summary = {}
  for target in TARGETS:
    rows = {name: {'fold': results['fold'], **{metric: results[target][metric] for metric in METRICS},
                   'best_epoch': results['best_epoch']} for name, (_, results) in runs.items() if target in results}
    if rows:
      values = {metric: np.array([row[metric] for row in rows.values()]) for metric in METRICS}
      summary[target] = {
          'runs': rows, 'best': max(rows, key=lambda name: rows[name]['ccc']),
          'mean': {metric: float(x.mean()) for metric, x in values.items()},
          'spread': {metric: float(x.std(ddof=1)) if len(x) > 1 else None for metric, x in values.items()}}
  return summary


def table(summary):
  """The summary as Markdown."""
  lines = ['| target | run | fold | CCC | PCC | RMSE | best epoch |', '|---|---|---|---|---|---|---|']
  for target, found in summary.items():
    for name, row in sorted(found['runs'].items(), key=lambda item: item[1]['fold']):
      mark = ' (best)' if name == found['best'] and len(found['runs']) > 1 else ''
      lines.append(f'| {target} | {name}{mark} | {row["fold"]} | ' + ' | '.join(f'{row[m]:.3f}' for m in METRICS)
                   + f' | {row["best_epoch"] + 1} |')
    if len(found['runs']) > 1:
      lines.append(f'| {target} | mean ± spread | | ' + ' | '.join(
          f'{found["mean"][m]:.3f} ± {found["spread"][m]:.3f}' for m in METRICS) + ' | |')
  return '\n'.join(lines)


def read_predictions(folder, target):
  """{clip: {frame id: value}} of the CSVs of a run's partition."""
  return {path.stem: {int(row['frame']): float(row[target]) for row in csv.DictReader(path.read_text().splitlines())}
          for path in sorted(folder.glob('*.csv'))}


def combine(folder, summary, choose):
  """{clip: {frame id: (valence, arousal)}} of the test partition: for each target the mean over the runs that `choose` names."""
  series = []
  for target in TARGETS:
    members = [read_predictions(folder / name / 'predictions' / 'test', target) for name in choose(summary[target])]
    series.append({clip: {frame: np.mean([member[clip][frame] for member in members]) for frame in frames}
                   for clip, frames in members[0].items()})
  return {clip: {frame: (value, series[1][clip][frame]) for frame, value in frames.items()} for clip, frames in series[0].items()}


def gather(folder, evaluate_test, template=None):
  """Writes summary.json, summary.md and, where the records have test clips and both targets were trained, the submissions.

  submission_best.txt takes each target from its best fold, submission_mean.txt from the mean over its folds. Without a
  template their rows are all frames of the test records. evaluate_test(workdir) writes a run's test predictions, and returns
  None where there are no test clips. Returns lines for people.
  """
  folder = pathlib.Path(folder)
  wanted = submission.read_template(template) if template else None
  runs, unfinished = find_runs(folder)
  summary = summarize(runs)
  files.write_json(folder / 'summary.json', summary)
  (folder / 'summary.md').write_text(table(summary) + '\n')
  lines = [table(summary), '', f'summary      {folder / "summary.json"}, {folder / "summary.md"}']
  if unfinished:
    lines.append(f'unfinished   {", ".join(unfinished)}')
  missing = [target for target in TARGETS if target not in summary]
  if missing:
    return [*lines, f'no submission: no run for {missing[0]} has ended']
  for name in runs:
    if evaluate_test(folder / name) is None:
      return [*lines, 'no submission: the records have no test clips']
  for kind, choose in (('best', lambda found: [found['best']]), ('mean', lambda found: found['runs'])):
    predictions = combine(folder, summary, choose)
    places = wanted or [(clip, frame) for clip in sorted(predictions) for frame in sorted(predictions[clip])]
    rows, repeated, left_out = submission.fit(predictions, places)
    path = folder / f'submission_{kind}.txt'
    submission.write(path, rows)
    lines.append(f'submission   {path}: {len(rows):,} rows, {repeated} beyond the end of a video, {left_out} frames not in the template')
  return lines
