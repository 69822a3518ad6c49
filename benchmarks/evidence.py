"""Measures how well GRJCA learns the mini set, and how well its controls do.

python -m benchmarks.evidence --source MINI --data_dir RECORDS --output FOLDER

Writes docs/evidence.json, the figures of the demo, and the blocks `evidence`, `variations` and
`demo` in README.md. It fails if a CCC of GRJCA on the demo's set is below 0.75.

Every row is scored on the validation partition of fold 0, whose subjects are not in training. The
controls are early concatenation in place of the fusion, training labels taken from another clip,
the best constant, and a ridge regression on simple features. GRJCA and the ridge are also tried on
VARIATIONS of the set, on which no setting was chosen. Runs that are finished in FOLDER are not
repeated. None of this says anything about Aff-Wild2.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import numpy as np
from absl import logging

from avjax import errors
from avjax.data import records
from avjax.data.dataset import Records
from avjax.data.splits import fold_chunks
from avjax.evaluation.results import summarize_run
from avjax.targets import metrics
from benchmarks.pages import fill
from configs import grjca

ROOT = pathlib.Path(__file__).parents[1]
RUNS = {
  'grjca, seed 0': ('grjca', 0),
  'grjca, seed 1': ('grjca', 1),
  'grjca, seed 2': ('grjca', 2),
  'early concatenation': ('concatenation', 0),
  "another clip's labels": ('grjca', 0),
}
LOWEST = 0.75  # CCC of GRJCA on the demo's set
# Other settings of data_prep.mini, each with people and films of its own.
VARIATIONS = {
  'fewer and longer films': ('--seed', '11', '--videos', '26', '--seconds', '30'),
  '24 frames a second': ('--seed', '12', '--rate', '24', '--seconds', '10'),
  'both senses noisy, more conflict': ('--seed', '13', '--preset', 'balanced', '--rho', '.3'),
}
ANNOTATIONS = '*ABAW Annotations/VA_Estimation_Challenge/Train_Set/*.txt'


def run(module, *words):
  """Runs a command of the project with these words."""
  subprocess.run([sys.executable, '-m', module, *map(str, words)], cwd=ROOT, check=True)


def train(config, seed, records, workdir, *overrides):
  """Trains with the command line that a person would use.

  Returns the scores, the number of epochs, and the seconds of training and validation.
  A run that is finished returns at once, and a run of another config in the same folder is refused.
  """
  run(
    'avjax.main',
    f'--config=configs/{config}.py:mini',
    f'--workdir={workdir}',
    f'--config.data.dir={records}',
    f'--config.seed={seed}',
    *overrides,
  )
  scores = json.loads((workdir / 'results_validation.json').read_text())
  epochs = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return row(scores) | {
    'epochs': len(epochs),
    'best_epoch': scores['best_epoch'] + 1,
    'seconds': round(sum(epoch['seconds'] for epoch in epochs)),
  }


def row(scores):
  """Rounds the scores of both targets to four digits."""
  return {
    target: {name: round(scores[target][name], 4) for name in metrics.METRICS}
    for target in ('valence', 'arousal')
  }


def shuffled(source, folder):
  """Makes a copy of the set in which each training clip has the annotation of the next clip.

  The annotation is cut or repeated to the length of the clip.
  """
  shutil.rmtree(folder, ignore_errors=True)
  shutil.copytree(source, folder, copy_function=os.link)
  files = sorted(folder.glob(ANNOTATIONS))
  texts = [file.read_text().splitlines() for file in files]
  for file, (header, *own), (_, *other) in zip(files, texts, texts[1:] + texts[:1], strict=True):
    file.unlink()  # removes only the link to the original
    file.write_text('\n'.join([header, *(other[i % len(other)] for i in range(len(own)))]) + '\n')
  return folder


def build(source, data_dir, *options):
  """Builds records in the sizes of the mini configs."""
  data = grjca.get_config('mini').data
  sizes = (word for name in ('length', 'stride', 'face') for word in (f'--{name}', data[name]))
  run('data_prep.build', '--source', source, '--data_dir', data_dir, *sizes, *options)


def vary(output, name, options):
  """Makes a variation of the mini set in output/NAME and trains on it.

  Returns the CCC of each row of `variations_table`.
  """
  place = folder(output, name)
  run('data_prep.mini', '--output', place / 'affwild2', *options)
  build(place / 'affwild2', place / 'records')
  data = Records(place / 'records', grjca.get_config('mini').data)
  return {
    'grjca': train('grjca', 0, place / 'records', place / 'grjca'),
    'ridge': ridge(data),
  }


def features(data, splits):
  """Returns simple features (N,D) and labels (N,2) of the N annotated frames of some splits.

  The features are a grey face of 12 x 12 pixels, and mean and standard deviation of the log-mel
  window.
  """
  inputs, labels = [], []
  for batch in data.batches(splits, 1):
    rows = batch['starts'][0][:, None] + np.arange(records.WINDOW_ROWS)
    sound = batch['log_mel'][0].astype(np.float64)[rows]  # (L,96,64)
    grey = batch['faces'][0].mean(-1) / 255
    n, size = len(grey), grey.shape[1]
    face = grey.reshape(n, 12, size // 12, 12, size // 12).mean((2, 4)).reshape(n, -1)
    keep = batch['annotated'][0]
    inputs.append(np.concatenate([face, sound.mean(1), sound.std(1)], axis=1)[keep])
    labels.append(batch['va'][0][keep])
  return np.concatenate(inputs), np.concatenate(labels)


def ridge(data):
  """Scores a ridge regression whose penalty is chosen on the last training split."""
  splits, held_out = fold_chunks(0)

  def fit(splits, penalty):
    x, y = features(data, splits)
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x = (x - mean) / scale
    weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
    return lambda x: (x - mean) / scale @ weights + y.mean(0)

  def scores(model, splits):
    x, y = features(data, splits)
    prediction = np.clip(model(x), -1, 1)
    return {
      target: {name: metric(prediction[:, i], y[:, i]) for name, metric in metrics.METRICS.items()}
      for i, target in enumerate(('valence', 'arousal'))
    }

  penalties = 10.0 ** np.arange(1, 7)
  chosen = max(
    penalties,
    key=lambda p: sum(s['ccc'] for s in scores(fit(splits[:-1], p), splits[-1:]).values()),
  )
  return row(scores(fit(splits, chosen), [held_out])) | {'penalty': float(chosen)}


def constant(data):
  """Scores the mean of the training labels as the prediction of every frame.

  Its CCC is 0 by definition; its RMSE is the one to beat.
  """
  splits, held_out = fold_chunks(0)
  mean, y = features(data, splits)[1].mean(0), features(data, [held_out])[1]
  return row(
    {
      target: {
        name: metric(np.full(len(y), mean[i]), y[:, i]) for name, metric in metrics.METRICS.items()
      }
      for i, target in enumerate(('valence', 'arousal'))
    }
  )


def table(rows):
  """Formats the rows as a Markdown table."""
  lines = [
    '| | valence CCC | arousal CCC | valence RMSE | arousal RMSE | epochs | seconds |',
    '|---|---|---|---|---|---|---|',
  ]
  for name, values in rows.items():
    cells = [
      f'{values[target][metric]:.3f}'
      for metric in ('ccc', 'rmse')
      for target in ('valence', 'arousal')
    ]
    lines.append(
      f'| {name} | '
      + ' | '.join([*cells, *(str(values.get(key, '')) for key in ('epochs', 'seconds'))])
      + ' |'
    )
  return '\n'.join(lines)


def variations_table(variations):
  """Formats the CCC of valence and arousal on each variation as a Markdown table."""
  lines = ['| set | GRJCA, seed 0 | ridge on simple features |', '|---|---|---|']
  for name, rows in variations.items():
    options = ' '.join(VARIATIONS[name])
    cells = [f'{row["valence"]["ccc"]:.2f} / {row["arousal"]["ccc"]:.2f}' for row in rows.values()]
    lines.append(f'| {name}: `{options}` | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def arguments_of(module, doc):
  """Parses --source, --data_dir and --output, the options of benchmarks on the mini set."""
  parser = argparse.ArgumentParser(prog=f'python -m {module}', description=doc.splitlines()[0])
  for name in ('source', 'data_dir', 'output'):
    parser.add_argument(f'--{name}', required=True, type=pathlib.Path)
  logging.set_verbosity(logging.ERROR)  # silences the remarks of TFDS
  return parser.parse_args()


def main():
  arguments = arguments_of('benchmarks.evidence', __doc__)
  build(arguments.source, arguments.data_dir)
  config = grjca.get_config('mini')
  data = Records(arguments.data_dir, config.data)
  rows = {}
  for name, (system, seed) in RUNS.items():
    records = arguments.data_dir
    if name == "another clip's labels":
      records = arguments.output / 'shuffled_records'
      if not records.exists():
        build(shuffled(arguments.source, arguments.output / 'shuffled'), records)
    rows[name] = train(system, seed, records, folder(arguments.output, name))
  rows |= {'ridge on simple features': ridge(data), 'best constant': constant(data)}
  variations = {name: vary(arguments.output, name, how) for name, how in VARIATIONS.items()}

  first = folder(arguments.output, 'grjca, seed 0')
  evidence = {
    'set': json.loads((arguments.source / 'mini.json').read_text()),
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'rows': rows,
    'variations': variations,
    'demo': json.loads((first / 'results_validation.json').read_text()),
  }
  (ROOT / 'docs' / 'evidence.json').write_text(json.dumps(evidence, indent=1) + '\n')
  for figure, source in (
    ('demo_curves.png', 'curves.png'),
    ('demo_traces.png', 'traces_validation.png'),
  ):
    shutil.copy(first / source, ROOT / 'docs' / figure)
  readme = fill((ROOT / 'README.md').read_text(), 'evidence', table(rows))
  readme = fill(readme, 'variations', variations_table(variations))
  demo = (
    summarize_run(evidence['demo'], config.targets, first).strip().replace(str(first), 'demo/run')
  )
  (ROOT / 'README.md').write_text(fill(readme, 'demo', f'```\n{demo}\n```'))
  print(table(rows), variations_table(variations), sep='\n\n')
  low = [
    name
    for name, values in rows.items()
    if name.startswith('grjca')
    and min(values[target]['ccc'] for target in ('valence', 'arousal')) < LOWEST
  ]
  return 1 if low else 0


def folder(output, name):
  """Returns the folder of the run that has this name in the table."""
  return output / name.replace(' ', '_').replace(',', '').replace("'", '')


if __name__ == '__main__':
  errors.run_command(main)
