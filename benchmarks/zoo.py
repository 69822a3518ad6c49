"""Trains every system on the mini set for a few epochs.

python -m benchmarks.zoo --source MINI --data_dir RECORDS --output FOLDER

Writes docs/results.json and docs/results.md.

The scores are those of the validation partition of fold 0, whose subjects are not in training. Two
systems that were published on features of other backbones are also trained on a feature file,
which has pixels here. Runs that are finished in FOLDER are not repeated.
"""

import concurrent.futures
import json
import os
import platform

import numpy as np

from avjax import errors
from avjax.media import faces, video
from benchmarks import systems
from benchmarks.evidence import ROOT, arguments_of, build, folder, train
from data_prep.sources import affwild2

EPOCHS = 6  # of each run, whatever its validation CCC
IN_ONE_STAGE = 4  # epochs until the next group is unfrozen; on features there is only one stage
RATE = 2e-3  # of each run: twice that of the configs, since there are fewer epochs
ON_FEATURES = ('charon', 'ctyunai')
SIDE = 12  # pixels per side of the faces that stand for the features of a backbone


def write_features(source, target):
  """Writes target/CLIP.npy for each clip of a set: grey crops of 12 x 12 pixels, one row per frame.

  A row is zero where there is no crop. Each pixel has mean 0 and variance 1 over the frames of the
  training clips.
  """
  target.mkdir(parents=True, exist_ok=True)
  grey, present = {}, {}
  clips = affwild2.list_clips(affwild2.find_roots(source))
  for clip in clips:
    frames = np.arange(1, len(video.read_timeline(clip.video).times) + 1)
    crops, present[clip.name], _ = faces.read_faces(
      clip.crops, frames, SIDE, faces.read_unreadable(source)
    )
    grey[clip.name] = crops.mean(axis=-1).reshape(len(crops), -1)
  seen = np.concatenate(
    [grey[clip.name][present[clip.name]] for clip in clips if clip.partition == 'train']
  )
  for name, rows in grey.items():
    np.save(
      target / f'{name}.npy',
      np.float32((rows - seen.mean(axis=0)) / seen.std(axis=0) * present[name][:, None]),
    )
  return target


def table(rows):
  """Formats the rows as a Markdown table, with the best mean CCC first."""
  lines = [
    '| system | what it is | valence CCC | arousal CCC | mean | best epoch | seconds |',
    '|---|---|---|---|---|---|---|',
  ]
  for name, row in sorted(rows.items(), key=lambda item: -mean(item[1])):
    cells = [
      row['system'],
      *(f'{row[target]["ccc"]:.3f}' for target in ('valence', 'arousal')),
      f'{mean(row):.3f}',
      str(row['best_epoch']),
      str(row['seconds']),
    ]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def mean(row):
  """Returns the mean CCC of valence and arousal."""
  return (row['valence']['ccc'] + row['arousal']['ccc']) / 2


PAGE = """# Every system on the mini set

`make zoo` trains each config of `configs/` in its smallest size (`mini`) for {epochs} epochs of \
{records} training
records with seed 0, one model for valence and arousal, and writes this page. The numbers are CCC \
on the
validation partition of fold 0, whose subjects are not in training.

They show that every system runs from end to end under one protocol. The second group of layers \
opens at
epoch {in_one_stage}, and after so few epochs some systems have hardly begun to learn. The \
numbers do not rank the
systems: the set is synthetic and small, all towers start from random weights, and {epochs} epochs \
are few.
Nothing here says anything about Aff-Wild2.

In the rows *on features*, grey crops of {side} x {side} pixels from a feature file \
(`data_prep.build --features`)
take the place of the visual tower. A reconstruction is named as such.

{table}

The best epoch is chosen on the same partition. Seconds are those of training and validation, with \
two
runs at a time on {cores} CPU cores.{note}
"""


def page(found):
  """Returns the text of docs/results.md for the content of docs/results.json."""
  return PAGE.format(
    **{name: found[name] for name in ('epochs', 'records', 'cores')},
    note=found.get('note', ''),  # what holds for rows that were not made together with the others
    in_one_stage=IN_ONE_STAGE + 1,
    side=SIDE,
    table=table(found['rows']),
  )


def main():
  arguments = arguments_of('benchmarks.zoo', __doc__)
  features = write_features(arguments.source, arguments.output / 'features')
  build(arguments.source, arguments.data_dir, '--features', f'pixels={features}')

  runs = {name: (name, []) for name in sorted(systems.CONFIGS)}
  on_features = [
    '--config.model.visual.tower=features/pixels',
    f'--config.schedule.max_stage_epochs={EPOCHS}',
  ]
  runs |= {f'{name}, on features': (name, on_features) for name in ON_FEATURES}
  budget = [
    f'--config.schedule.{key}={value}'
    for key, value in (
      ('max_epochs', EPOCHS),
      ('max_stage_epochs', IN_ONE_STAGE),
      ('patience', EPOCHS),
      ('rate_max', RATE),
    )
  ]

  def result(name):
    config, overrides = runs[name]
    return {
      'system': systems.describe(config),
      **train(config, 0, arguments.data_dir, folder(arguments.output, name), *budget, *overrides),
    }

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rows = dict(zip(runs, pool.map(result, runs), strict=True))

  manifest = json.loads(next(arguments.data_dir.glob('*/*/manifest.json')).read_text())
  records = sum(
    chunk['records'] for name, chunk in manifest['chunks'].items() if name not in ('chunk5', 'test')
  )
  found = {
    'set': json.loads((arguments.source / 'mini.json').read_text()),
    'epochs': EPOCHS,
    'records': records,
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'rows': rows,
  }
  (ROOT / 'docs' / 'results.json').write_text(json.dumps(found, indent=1) + '\n')
  (ROOT / 'docs' / 'results.md').write_text(page(found))
  print(table(rows))


if __name__ == '__main__':
  errors.run_command(main)
