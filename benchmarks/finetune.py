"""Compares fine-tuning on a small set with training from scratch on it.

python -m benchmarks.finetune --output FOLDER

Writes docs/finetune.json and the block `finetune` in docs/training.md. It fails if fine-tuning does
not beat training from scratch for each seed.

A model is trained on a made set, and then fine-tuned on the 20 training clips of another one: other
people, voices and films, another frame rate, noisier faces and voices, and windows of 80 frames in
place of 120. Fine-tuning and training from scratch get the same clips and the same epochs. Both are
scored on the clips of a third set, whose people are in neither of the others. This is done for
several seeds, each with a small set of its own. Runs that are finished in FOLDER are not repeated.
None of this says anything about films of real people.
"""

import argparse
import json
import pathlib
import subprocess
import sys

from absl import logging

from avjax import command_line, errors
from avjax.data.dataset import Records
from avjax.evaluation.results import mean_score, score
from avjax.evaluation.series import predict_records
from avjax.runs.load import load_best
from avjax.system import sharding
from avjax.training.plan import prepare
from benchmarks import evidence
from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'training.md'
FIGURES = ROOT / 'docs' / 'finetune.json'
SEEDS = (31, 32, 33)  # of the small sets, and of the runs on them
HELD_OUT = 34  # of the set on which all are scored
# 26 videos have 20 clips for training, 5 for validation and 2 without labels.
SMALL = ('--videos', '26', '--seconds', '12', '--rate', '20', '--preset', 'balanced', '--rho', '.2')
EPOCHS = 6
SIZES = ('--length', '80', '--stride', '80')
OVERRIDES = (
  '--config.data.length=80',
  '--config.data.stride=80',
  f'--config.schedule.max_epochs={EPOCHS}',
)
TARGETS = ('valence', 'arousal')


def make_set(folder, *options, sizes=()):
  """Makes a mini set and its records under a folder; returns the folder of the records."""
  words = [sys.executable, '-m', 'data_prep.mini', '--output', str(folder / 'set'), *options]
  subprocess.run(words, cwd=ROOT, check=True)
  evidence.build(folder / 'set', folder / 'records', *sizes)
  return folder / 'records'


def evaluate(config, system, variables, records):
  """Returns the CCC of each target, and their mean, over all annotated clips of a set."""
  data, mesh = Records(records, config.data), sharding.make_mesh()
  train, validation = data.fold(0)
  series = predict_records(
    data.batches([*train, validation], config.batch_size),
    system,
    sharding.replicate(variables, mesh),
    mesh,
    batch_size=config.batch_size,
    smooth=config.smooth,
  )
  scores = score(series, TARGETS)
  found = {target: scores[target]['ccc'] for target in TARGETS} | {
    'mean': mean_score(scores, TARGETS)
  }
  return {name: round(value, 4) for name, value in found.items()}


def of_run(workdir, records):
  """Scores the best state of a run on a set; adds the epochs that it was trained for."""
  config, system, variables, _ = load_best(workdir)
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return evaluate(config, system, variables, records) | {'epochs': len(lines)}


def compare(output, seed, pretrained, held_out):
  """Trains on the small set of a seed in both ways, and scores both on the held-out set."""
  folder = output / f'small{seed}'
  records = make_set(folder, '--seed', str(seed), *SMALL, sizes=SIZES)
  start = f'--config.init.model={pretrained}'
  for config, overrides in (('grjca', ()), ('finetune', (start,))):
    evidence.train(config, seed, records, folder / config, *OVERRIDES, *overrides)
  return {
    'from scratch': of_run(folder / 'grjca', held_out),
    'fine-tuned': of_run(folder / 'finetune', held_out),
  }


def untrained(output, held_out):
  """Scores what fine-tuning begins with. Windows are cut, and so no seed has a part in it."""
  plan = prepare(load_best(output / f'small{SEEDS[0]}' / 'finetune')[0], output / 'untrained')
  return evaluate(plan.config, plan.system, plan.initial_variables(), held_out)


def table(found):
  """Formats what was found as a Markdown table: the mean CCC of both targets, seed by seed."""
  seeds = found['seeds']
  rows = {
    name: [rows[name]['mean'] for rows in seeds.values()] for name in ('fine-tuned', 'from scratch')
  }
  rows['before fine-tuning'] = [found['before']['mean']] * len(seeds)
  lines = [f'| | {" | ".join(f"seed {seed}" for seed in seeds)} | mean |']
  lines.append('|---' * (len(seeds) + 2) + '|')
  for name, values in rows.items():
    cells = [f'{value:.3f}' for value in (*values, sum(values) / len(values))]
    lines.append(f'| {name} | {" | ".join(cells)} |')
  return '\n'.join(lines)


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.finetune', description=__doc__.splitlines()[0]
  )
  parser.add_argument('--output', required=True, type=pathlib.Path)
  output = parser.parse_args().output.absolute()
  logging.set_verbosity(logging.ERROR)  # silences the remarks of TFDS
  command_line.start_jax()
  first = output / 'first'
  source = evidence.train('grjca', 0, make_set(first), first / 'run')
  held_out = make_set(output / 'held_out', '--seed', str(HELD_OUT), *SMALL, sizes=SIZES)
  seeds = {str(seed): compare(output, seed, first / 'run', held_out) for seed in SEEDS}
  found = {
    'options': ' '.join(SMALL),
    'epochs': EPOCHS,
    'source': {target: source[target]['ccc'] for target in TARGETS},
    'before': untrained(output, held_out),
    'seeds': seeds,
  }
  FIGURES.write_text(json.dumps(found, indent=1) + '\n')
  PAGE.write_text(fill(PAGE.read_text(), 'finetune', table(found)))
  print(table(found))
  better = [rows['fine-tuned']['mean'] > rows['from scratch']['mean'] for rows in seeds.values()]
  return 0 if all(better) else 1


if __name__ == '__main__':
  errors.run_command(main)
