"""Trains every system on the mini set for a few epochs: docs/results.json, and its table docs/results.md.

python -m benchmarks.zoo --source MINI --data_dir RECORDS --output FOLDER

Validation of fold 0, subjects that are not in training. The two systems that were published on features of other backbones are also
trained on a feature file, which holds pixels here. Runs that are finished in FOLDER are not repeated.
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

EPOCHS, IN_ONE_STAGE = 9, 6  # of each run, whatever its validation says; on features there is one stage
ON_FEATURES = ('charon', 'ctyunai')
SIDE = 12  # pixels a side of what stands for a backbone here


def write_features(source, target):
  """Writes target/CLIP.npy for each clip of a set: grey crops of 12 x 12 pixels, a row a frame, zeros without a crop.

  Each pixel has mean 0 and variance 1 over the frames of all clips that are not for validation or test.
  """
  target.mkdir(parents=True, exist_ok=True)
  grey, present = {}, {}
  clips = affwild2.list_clips(affwild2.find_roots(source))
  for clip in clips:
    frames = np.arange(1, len(video.read_timeline(clip.video).times) + 1)
    crops, present[clip.name], _ = faces.read_faces(clip.crops, frames, SIDE, faces.read_unreadable(source))
    grey[clip.name] = crops.mean(axis=-1).reshape(len(crops), -1)
  seen = np.concatenate([grey[clip.name][present[clip.name]] for clip in clips if clip.partition == 'train'])
  for name, rows in grey.items():
    np.save(target / f'{name}.npy', np.float32((rows - seen.mean(axis=0)) / seen.std(axis=0) * present[name][:, None]))
  return target


def table(rows):
  """The rows as Markdown, the best mean CCC first."""
  lines = ['| system | what it is | valence CCC | arousal CCC | mean | best epoch | seconds |', '|---|---|---|---|---|---|---|']
  for name, row in sorted(rows.items(), key=lambda item: -mean(item[1])):
    cells = [row['system'], *(f'{row[target]["ccc"]:.3f}' for target in ('valence', 'arousal')), f'{mean(row):.3f}',
             str(row['best_epoch']), str(row['seconds'])]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def mean(row):
  return (row['valence']['ccc'] + row['arousal']['ccc']) / 2


PAGE = """# Every system on the mini set

Made by `make zoo`: each config of `configs/` in its smallest size (`mini`), {epochs} epochs of {records} training records, seed 0, one
model for valence and arousal; CCC on the validation partition of fold 0, whose subjects are not in training. The numbers show that
every system runs end to end under one protocol, the second group of layers from epoch {in_one_stage} on; some have hardly begun to learn
after so few epochs. They do not rank the systems: the set is synthetic and small, all towers start from random weights, and {epochs}
epochs are few; nothing here says anything about Aff-Wild2. The rows *on features* take grey crops of {side} x {side} pixels from a
feature file (`data_prep.build --features`) in place of the face tower. Reconstructions are called so.

{table}

The best epoch is chosen on the same partition. Seconds of training and validation, two runs at a time on {cores} CPU cores.
"""


def page(found):
  """docs/results.md, from what docs/results.json holds."""
  return PAGE.format(**{name: found[name] for name in ('epochs', 'records', 'cores')}, in_one_stage=IN_ONE_STAGE + 1, side=SIDE,
                     table=table(found['rows']))


def main():
  arguments = arguments_of('benchmarks.zoo', __doc__)
  features = write_features(arguments.source, arguments.output / 'features')
  build(arguments.source, arguments.data_dir, '--features', f'pixels={features}')

  runs = {name: (name, []) for name in sorted(systems.CONFIGS)}
  on_features = ['--config.model.visual.tower=features/pixels', f'--config.schedule.max_stage_epochs={EPOCHS}']
  runs |= {f'{name}, on features': (name, on_features) for name in ON_FEATURES}
  budget = [f'--config.schedule.{key}={value}' for key, value in
            (('max_epochs', EPOCHS), ('max_stage_epochs', IN_ONE_STAGE), ('patience', EPOCHS))]

  def result(name):
    config, overrides = runs[name]
    return {'system': systems.describe(config), **train(config, 0, arguments.data_dir, folder(arguments.output, name), *budget, *overrides)}
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rows = dict(zip(runs, pool.map(result, runs)))

  manifest = json.loads(next(arguments.data_dir.glob('*/*/manifest.json')).read_text())
  records = sum(chunk['records'] for name, chunk in manifest['chunks'].items() if name not in ('chunk5', 'test'))
  found = {'set': json.loads((arguments.source / 'mini.json').read_text()), 'epochs': EPOCHS, 'records': records, 'cores': os.cpu_count(),
           'python': platform.python_version(), 'rows': rows}
  (ROOT / 'docs' / 'results.json').write_text(json.dumps(found, indent=1) + '\n')
  (ROOT / 'docs' / 'results.md').write_text(page(found))
  print(table(rows))


if __name__ == '__main__':
  errors.run_command(main)
