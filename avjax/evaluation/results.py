"""Scores one series per clip, and writes the results into the folder of a run.

These are predictions, scores, figures and a report.
"""

import csv
import functools
import pathlib

import numpy as np
from tqdm import tqdm

from avjax import errors, files, ranges
from avjax.data.dataset import Records
from avjax.data.records import MOST_BYTES, most_bytes
from avjax.data.splits import TEST
from avjax.errors import InputError
from avjax.evaluation.breakdown import add_details, read_chains
from avjax.evaluation.groups import grouped, read_groups
from avjax.evaluation.shares import predict_split
from avjax.reports import plots, run_report, tables
from avjax.runs import folder as run_folder
from avjax.runs.load import load_system, restore_best
from avjax.system import sharding, steps
from avjax.targets import TARGETS
from avjax.targets.metrics import METRICS

FIRST_COLUMNS = b'frame,time,'  # begins every CSV of predictions


def score(series, targets):
  """Computes the metrics of each target over all annotated frames of a partition.

  It also computes the first metric, CCC for valence and arousal, of each clip.

  series: {clip: Series}; targets: their names, in the order of the predictions.
  Returns {'frames': n, 'clips': n, target: {metric: value, 'per_clip': {clip: value}}}.
  """
  scored = {clip: s for clip, s in series.items() if s.annotated.any()}
  result = {'clips': len(scored), 'frames': int(sum(s.annotated.sum() for s in scored.values()))}
  for i, target in enumerate(targets if scored else ()):  # a test partition has no labels
    names = TARGETS[target].metrics
    pairs = {
      clip: (s.prediction[s.annotated, i], s.labels[s.annotated, i]) for clip, s in scored.items()
    }
    prediction, label = (np.concatenate([pair[j] for pair in pairs.values()]) for j in (0, 1))
    result[target] = {name: METRICS[name](prediction, label) for name in names}
    result[target]['per_clip'] = {clip: METRICS[names[0]](*pair) for clip, pair in pairs.items()}
  return result


def score_in_detail(series, targets, subjects, *, groups=None, chains=None):
  """Returns what `score` does, and what `add_details`, whose arguments these are, adds to it."""
  results = score(series, targets)
  add_details(results, series, targets, subjects, groups=groups, chains=chains)
  return results


def mean_score(scores, targets):
  """Returns the number that chooses the best epoch: the mean of the targets' first metrics."""
  return float(np.mean([scores[target][TARGETS[target].metrics[0]] for target in targets]))


def write_predictions(folder, series, targets):
  """Writes one CSV per clip, as `write_series` does, and removes those of other clips.

  They are written into a new folder first, so that no link in `folder` is followed.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for old in find_predictions(folder):  # from an evaluation on other records
    if old.stem not in series:
      old.unlink()
  with files.temporary_folder(folder) as partial:
    for clip, s in series.items():
      write_series(partial / f'{clip}.csv', s, targets)
      (partial / f'{clip}.csv').replace(folder / f'{clip}.csv')


def find_predictions(folder):
  """Returns the CSVs in a folder that `write_predictions` wrote, in order of name."""
  found = []
  for path in files.visible(folder):
    if path.suffix == '.csv' and path.is_file():
      with files.open_regular(path) as file:
        if file.read(len(FIRST_COLUMNS)) == FIRST_COLUMNS:
          found.append(path)
  return found


def write_series(path, s, targets):
  """Writes the CSV of a clip, a row per frame of the Series s.

  A row has the frame id, the time in seconds, the prediction of each target, its label where the
  frame is annotated, and the masks of face and audio.
  """
  label_names = [f'{target}_label' for target in targets]
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['frame', 'time', *targets, *label_names, 'face_present', 'audio_present'])
    for n in range(len(s.frames)):
      labels = [f'{label:.6g}' if s.annotated[n] else '' for label in s.labels[n]]
      writer.writerow(
        [
          int(s.frames[n]),
          f'{s.times[n]:.4f}',
          *(f'{p:.6f}' for p in s.prediction[n]),
          *labels,
          int(s.face_present[n]),
          int(s.audio_present[n]),
        ]
      )


def write_results(workdir, config, split, series, extra, subjects, *, groups=None, chains=None):
  """Writes the CSVs, scores and figures of a partition into the folder of a run.

  Only the primary process writes.

  Args:
    workdir: folder of the run.
    config: its config.
    split: 'validation' or 'test'.
    series: {clip: Series} of the partition.
    extra: further entries of the results, such as {'best_epoch': ...}.
    subjects: {clip: subject}, as far as they are known.
    groups: what `read_groups` returns.
    chains: {target: Chain} of post-processing fitted on the validation partition, if this is
      another; see `add_details`.

  Returns the results, which results_<split>.json holds:

  partition, fold, clips, frames, subjects   the counts are of what is annotated
  intervals   unit ('clip' or 'subject'), units, level, resamples, seed, least_units
  ungrouped   number of clips that are in no group
  TARGET      its metrics over all frames, and
    per_clip            {clip: first metric}
    intervals           {metric: [low, high]}; {} where there are fewer than least_units units
    clips, subjects     {name: {clips, frames, metric: value}}
    mean_over_clips     {metric: mean over clips of the value of each}
    groups              {column: {group: {clips, frames, subjects, metric: value, intervals}}}
    post_processing     see avjax.evaluation.breakdown.post_process

  What is not known or was not asked for has no entry.
  """
  folder = pathlib.Path(workdir)
  scores = score_in_detail(series, config.targets, subjects, groups=groups, chains=chains)
  results = {'partition': split, 'fold': config.fold, **extra, **scores}
  if not sharding.is_primary():
    return results
  with errors.writing(folder):
    write_predictions(folder / run_folder.predictions_name(split), series, config.targets)
    files.write_json(folder / run_folder.results_name(split), results)
    if results['frames']:
      with files.replacing(folder / run_folder.traces_name(split)) as partial:
        plots.traces(series, results, config.targets, partial)
  return results


def summarize_run(results, targets, workdir):
  """Returns the text that a run prints at its end: the table of scores, the paths of its files."""
  folder, split = pathlib.Path(workdir), results['partition']
  where = {
    'checkpoint': f'{run_folder.CHECKPOINTS}/best',
    'metrics': run_folder.METRICS,
    'results': run_folder.results_name(split),
    'predictions': run_folder.predictions_name(split),
    'curves': run_folder.CURVES,
    'traces': run_folder.traces_name(split),
    'report': run_folder.REPORT,
  }
  lines = [
    '',
    f'{split} of fold {results["fold"]}, best epoch {results["best_epoch"] + 1}',
    tables.format_scores(results, targets),
    '',
    *(f'{name:<13}{folder / path}' for name, path in where.items() if (folder / path).exists()),
  ]
  return '\n'.join(lines)


def evaluate_run(workdir, split, data_dir=None, report=False, groups=None):
  """Evaluates the best checkpoint of a run, and writes the results into its folder.

  Args:
    workdir: folder of the run.
    split: 'validation' or 'test'.
    data_dir: records, by default those that the run was trained on, if they are on this machine.
    report: whether to write report.html as well.
    groups: path of a CSV file that `read_groups` reads.

  Returns (config, results), or None where the records have no clips of this split.
  """
  config, system = load_system(workdir)
  files.remove_abandoned(workdir)
  if not data_dir and files.is_address(config.data.dir):  # the run may be a stranger's
    raise InputError(
      f'{workdir} was trained on records on a bucket; name them with --data_dir, if you want to '
      f'read {config.data.dir}'
    )
  records = Records(data_dir or config.data.dir, config.data, '--data_dir')
  part = TEST if split == 'test' else records.fold(config.fold)[1]
  if not records.size([part]):
    return None
  if groups:
    path, groups = groups, read_groups(groups, records.clips, records.subjects)
    if not grouped(groups) & records.manifest['chunks'][part]['clips'].keys():
      raise InputError(f'{path} has no row for a clip of the {split} partition')
  ranges.check('', config, {'batch_size': ranges.at_least(1)})
  # No more than there are, or than is little: a run of other people may name any number.
  little = MOST_BYTES // most_bytes(records.layout)
  batch_size = min(config.batch_size, max(records.size([part]), little))
  variables, meta = restore_best(workdir, system)
  bar = functools.partial(
    tqdm,
    total=-(-records.size([part]) // batch_size),
    desc=f'predicting the {split} partition',
    leave=False,
    disable=None,
  )
  series = predict_split(
    records, part, system, variables, batch_size=batch_size, smooth=config.smooth, watch=bar
  )
  chains = None
  if part == TEST:
    validated = pathlib.Path(workdir) / run_folder.results_name('validation')
    chains = read_chains(validated, meta['epoch'], config.fold)
  results = write_results(
    workdir,
    config,
    split,
    series,
    {'best_epoch': meta['epoch']},
    records.subjects,
    groups=groups,
    chains=chains,
  )
  if report:
    run_report.write(
      workdir,
      config,
      results,
      series,
      parameter_count=steps.parameter_count(variables['params']),
      has_input=system.inputs.has_input,
    )
  return config, results
