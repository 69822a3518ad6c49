"""Windows -> one series per clip -> CCC. Also `python -m avjax.evaluate RUN [--split validation|test] [--report]`."""

import argparse
import csv
import dataclasses
import functools
import pathlib
import sys

import jax
import numpy as np
from absl import logging

from avjax import folds, metrics, plots, run, run_report, sharding, step
from avjax.checkpoint import Checkpoints
from avjax.dataset import Records
from avjax.weights import brief
from data_prep import errors
from data_prep.affwild2 import fold_chunks
from data_prep.windows import Merger


AVERAGED = ('times', 'va', 'annotated', 'face_present', 'audio_present')  # of a record, over windows: the same in each


@dataclasses.dataclass
class Series:
  """One clip, a row a frame: frames (N,) from 1, times (N,) in s, prediction (N,targets), va (N,2), gates {name: (N,K)}.

  The masks (N,) are those of data_prep.records.
  """
  frames: np.ndarray
  times: np.ndarray
  prediction: np.ndarray
  va: np.ndarray
  annotated: np.ndarray
  face_present: np.ndarray
  audio_present: np.ndarray
  gates: dict


def predict(batches, predict_step, variables, config, mesh):
  """Runs the model over batches of records, averages overlapping windows per frame, and smooths where the config says so.

  batches yields dicts with the fields of data_prep.records. Returns {clip: Series} in order of name.
  """
  predictions = Predictions(predict_step, variables, config, mesh)
  for batch in batches:
    predictions.add(batch)
  return predictions.series()


class Predictions:
  """`predict` for batches that come one by one; what is kept grows with the frames, not with the windows that overlap on them."""

  def __init__(self, predict_step, variables, config, mesh):
    self.predict_step, self.variables, self.config, self.mesh, self.clips = predict_step, variables, config, mesh, {}

  def add(self, batch):
    """Runs the model over a batch of records."""
    rows, size = len(batch['clip']), sharding.padded_size(self.config.batch_size, self.mesh)
    device = sharding.shard(sharding.pad_rows(step.on_device(batch, self.config), size), self.mesh)
    output = jax.tree.map(lambda x: x[:rows], sharding.gather(self.predict_step(self.variables, device)))
    for i, clip in enumerate(batch['clip']):
      real = np.asarray(batch['real'][i], bool)
      values = {name: batch[name][i] for name in AVERAGED} | {'prediction': output['prediction'][i]} | {
          f'gates/{name}': scores[i] for name, scores in output['gates'].items()}
      self.clips.setdefault(clip.decode(), Merger()).add(np.asarray(batch['frames'][i])[real], {
          name: np.asarray(value)[real] for name, value in values.items()})

  def series(self):
    """{clip: Series} in order of name, once all windows are in."""
    return {clip: _series(self.clips.pop(clip), self.config) for clip in sorted(self.clips)}


def smoothed(series, frames, counted, width):
  """The centred moving average of (N,targets) over an odd number of frames, by frame id: gaps do not bring distant frames together.

  frames (N,) ascending; counted (N,) bool: the others are left out of every average. Where none is counted the value stays.
  """
  total = np.cumsum(np.pad(np.where(counted[:, None], series, 0), ((1, 0), (0, 0))), axis=0)
  count = np.cumsum(np.pad(counted.astype(int), (1, 0)))
  first, last = np.searchsorted(frames, frames - width // 2), np.searchsorted(frames, frames + width // 2, side='right')
  among = (count[last] - count[first])[:, None]
  return np.where(among > 0, (total[last] - total[first]) / np.maximum(among, 1), series) if width > 1 else series


def _series(merger, config):
  """The Series of a clip whose windows are merged."""
  frames, merged = merger.means()
  gates = {name.removeprefix('gates/'): merged.pop(name) for name in list(merged) if name.startswith('gates/')}
  masks = {name: merged[name] > 0.5 for name in ('annotated', 'face_present', 'audio_present')}
  prediction = smoothed(merged['prediction'], frames, step.seen(config, masks['face_present'], masks['audio_present']), config.smooth)
  return Series(frames, merged['times'], prediction, merged['va'], **masks, gates=gates)


def score(series, targets):
  """CCC, PCC and RMSE of a partition over all annotated frames of all clips, and the CCC of each clip.

  Returns {'frames': n, 'clips': n, target: {'ccc', 'pcc', 'rmse', 'per_clip': {clip: ccc}}}.
  """
  scored = {clip: s for clip, s in series.items() if s.annotated.any()}
  result = {'clips': len(scored), 'frames': int(sum(s.annotated.sum() for s in scored.values()))}
  for i, target in enumerate(targets if scored else ()):  # a test partition has no labels
    pairs = {clip: (s.prediction[s.annotated, i], s.va[s.annotated, step.TARGETS.index(target)]) for clip, s in scored.items()}
    prediction, label = (np.concatenate([pair[j] for pair in pairs.values()]) for j in (0, 1))
    result[target] = {name: metric(prediction, label) for name, metric in metrics.METRICS.items()}
    result[target]['per_clip'] = {clip: metrics.ccc(*pair) for clip, pair in pairs.items()}
  return result


def write_csv(folder, series, targets):
  """One CSV per clip: frame id, time in seconds, the prediction of each target, its label where annotated, and the masks."""
  folder.mkdir(parents=True, exist_ok=True)
  for old in folder.glob('*.csv'):  # of other records
    if old.stem not in series:
      old.unlink()
  for clip, s in series.items():
    with open(folder / f'{clip}.csv', 'w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(['frame', 'time', *targets, *(f'{t}_label' for t in targets), 'face_present', 'audio_present'])
      for n in range(len(s.frames)):
        labels = [f'{s.va[n, step.TARGETS.index(t)]:.6g}' if s.annotated[n] else '' for t in targets]
        writer.writerow([int(s.frames[n]), f'{s.times[n]:.4f}', *(f'{p:.6f}' for p in s.prediction[n]), *labels,
                         int(s.face_present[n]), int(s.audio_present[n])])


def table(result, targets):
  """The result as a text table for people."""
  if not result['frames']:
    return 'no annotated frames: predictions only'
  lines = [f'{"":<10}{"CCC":>8}{"PCC":>8}{"RMSE":>8}']
  for target in targets:
    row = result[target]
    lines.append(f'{target:<10}{row["ccc"]:>8.3f}{row["pcc"]:>8.3f}{row["rmse"]:>8.3f}')
  lines.append(f'{result["frames"]:,} frames of {result["clips"]} clips')
  return '\n'.join(lines)


def write_results(workdir, config, split, series, extra):
  """Writes a partition's CSVs, results and pictures into the folder of a run (the primary process does); returns the results."""
  folder = pathlib.Path(workdir)
  results = {'partition': split, 'fold': config.fold, **extra, **score(series, config.targets)}
  if not sharding.is_primary():
    return results
  with errors.writing(folder):
    write_csv(folder / 'predictions' / split, series, config.targets)
    run.write_json(folder / f'results_{split}.json', results)
    if results['frames']:
      plots.traces(series, results, config.targets, folder / f'traces_{split}.png')
  return results


def summary(results, targets, workdir):
  """What a run ends with: its table, and where everything lies."""
  folder, split = pathlib.Path(workdir), results['partition']
  where = {'checkpoint': 'checkpoints/best', 'metrics': 'metrics.jsonl', 'results': f'results_{split}.json',
           'predictions': f'predictions/{split}', 'curves': 'curves.png', 'traces': f'traces_{split}.png', 'report': 'report.html'}
  lines = ['', f'{split} of fold {results["fold"]}, best epoch {results["best_epoch"] + 1}', table(results, targets), '',
           *(f'{name:<13}{folder / path}' for name, path in where.items() if (folder / path).exists())]
  return '\n'.join(lines)


def best(workdir):
  """Returns (config, model, variables, meta) of the best checkpoint of a run. InputError if it has none yet."""
  config = run.read_config(workdir)
  try:
    model = step.make_model(config)
    shapes = jax.eval_shape(lambda: step.init_variables(config, model, config.seed))
  except (AttributeError, LookupError, TypeError) as error:  # a file that somebody has edited
    raise errors.InputError(f'{workdir}/config.json is no sound config of a run: {brief(error)}') from error
  checkpoints = Checkpoints(workdir, read_only=True)
  restored = checkpoints.restore_best(lambda meta: shapes)
  checkpoints.close()
  return config, model, *restored


def evaluate_run(workdir, split, data_dir=None, report=False):
  """Evaluates the best checkpoint of a run and writes predictions, results and pictures into its folder; returns (config, results).

  split: 'validation' or 'test'. data_dir: records, by default those the run was trained on. None where they have no test clips.
  report: whether to write report.html, too.
  """
  config = run.read_config(workdir)
  records = Records(data_dir or config.data.dir, config.data)
  part = 'test' if split == 'test' else fold_chunks(config.fold)[1]
  if not records.size([part]):
    return None
  _, model, variables, meta = best(workdir)
  mesh = sharding.make_mesh()
  batches = records.batches([part], config.batch_size)
  series = predict(batches, step.make_predict_step(config, model), sharding.replicate(variables, mesh), config, mesh)
  results = write_results(workdir, config, split, series, {'best_epoch': meta['epoch']})
  if report:
    run_report.write(workdir, config, results, series)
  return config, results


def main(argv):
  """Evaluates the best checkpoint of a run, or gathers the runs of several folds and targets; writes into their folder."""
  parser = argparse.ArgumentParser(prog='python -m avjax.evaluate', description=main.__doc__)
  parser.add_argument('run', metavar='RUN', nargs='?', help='folder of a run (the --workdir it was trained with)')
  parser.add_argument('--runs', help='instead: a folder of runs of one system; writes their table, ensemble and submission files')
  parser.add_argument('--split', default='validation', choices=('validation', 'test'))
  parser.add_argument('--report', action='store_true', help='also write RUN/report.html')
  parser.add_argument('--template', help="with --runs: the organisers' sample submission, whose rows are wanted")
  parser.add_argument('--data_dir', help='records; by default those the run was trained on')
  arguments = parser.parse_args(argv[1:])
  logging.set_verbosity(logging.ERROR)
  if bool(arguments.run) == bool(arguments.runs) or (arguments.template and not arguments.runs) or (arguments.report and arguments.runs):
    raise errors.InputError('give RUN with or without --report, or --runs DIR with or without --template FILE')
  if arguments.runs:
    evaluate_test = functools.partial(evaluate_run, split='test', data_dir=arguments.data_dir)
    print('\n'.join(folds.gather(arguments.runs, evaluate_test, arguments.template)))
    return
  evaluated = evaluate_run(arguments.run, arguments.split, arguments.data_dir, arguments.report)
  if evaluated is None:
    raise errors.InputError(f'the records of {arguments.run} have no clips of the {arguments.split} partition')
  config, results = evaluated
  print(summary(results, config.targets, arguments.run))


if __name__ == '__main__':
  errors.run(main, sys.argv)
