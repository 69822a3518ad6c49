"""Features of other backbones take the place of towers.

Charon and CtyunAI go from .npy files to a model that is trained, evaluated and exported.
"""

import importlib
import json

import numpy as np
import pytest

from avjax import main
from avjax.data.dataset import Records
from avjax.errors import InputError
from avjax.evaluation.results import evaluate_run
from avjax.runs import folder as run_folder
from avjax.system import System
from avjax.training.plan import prepare
from avjax.weights import files as weight_files
from avjax.weights.exported import export_run
from benchmarks import zoo
from data_prep import build, mini

SIZES = ['--length', '120', '--stride', '120', '--face', '24']
PIXELS = '--config.model.visual.tower=features/pixels'


@pytest.fixture(scope='module')
def featured(tmp_path_factory):
  """The records of a small mini set with the features `pixels`.

  They are 144 numbers per frame, which stand for a backbone's.
  """
  folder = tmp_path_factory.mktemp('featured')
  mini.generate(folder / 'mini', videos=17, seconds=8, workers=2)
  zoo.write_features(folder / 'mini', folder / 'pixels')
  (folder / 'ones').mkdir()
  for path in (folder / 'pixels').iterdir():
    np.save(folder / 'ones' / path.name, np.ones((len(np.load(path)), 5), np.float32))
  assert (
    build.main(
      [
        '--source',
        str(folder / 'mini'),
        '--data_dir',
        str(folder / 'records'),
        '--workers',
        '2',
        *SIZES,
        '--features',
        f'pixels={folder / "pixels"}',
        f'ones={folder / "ones"}',
      ]
    )
    == 0
  )
  return folder / 'records'


def start(config, workdir, records, *overrides):
  return main.main(
    [
      'avjax',
      f'--config=configs/{config}.py:mini',
      f'--workdir={workdir}',
      f'--config.data.dir={records}',
      *overrides,
    ]
  )


@pytest.mark.parametrize('config', zoo.ON_FEATURES)
def test_train_evaluate_and_export(config, featured, tmp_path):
  workdir = tmp_path / 'run'
  budget = [PIXELS, '--config.schedule.max_epochs=6', '--config.schedule.patience=6']
  assert start(config, workdir, featured, *budget) == 0
  rows = [json.loads(row) for row in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert len(rows) == 6 and {row['stage'] for row in rows} == {
    1
  }  # without towers there is nothing to open later
  assert rows[-1]['train_loss'] < rows[0]['train_loss'] - 0.1
  stored = run_folder.read_config(workdir)
  assert stored.data.features.to_dict() == {'pixels': 144}
  variables = System.from_config(stored).init(0)
  assert set(variables['params']) == {'visual_tcn', 'fusion', 'head'}
  assert start(config, workdir, featured, *budget) == 0  # it is complete

  before = json.loads((workdir / 'results_validation.json').read_text())
  assert evaluate_run(workdir, 'validation')[1] == before
  export_run(workdir, tmp_path / 'model')
  card = (tmp_path / 'model' / 'README.md').read_text()
  for words in (
    'from a face.',
    'features of another backbone: features/pixels, 144 numbers a frame',
    'call(weights, pixels, real)',
    '- `features/pixels`: float32 (clips, 120, 144), of another backbone',
    '- The voice is not used.',
  ):
    assert words in card, words


def test_features_of_both_modalities(featured, tmp_path):
  """Each modality gets its own: 144 and 5 numbers, and the model sees which is which."""
  config = importlib.import_module('configs.concatenation').get_config('mini')
  config.model.visual.tower, config.model.audio.tower = 'features/pixels', 'features/ones'
  config.data.dir = str(featured)
  plan = prepare(config, tmp_path / 'run')
  config, inputs = plan.config, plan.system.inputs
  assert inputs.fields == ('features/pixels', 'features/ones', 'real')
  batch = next(Records(featured, config.data).batches(['chunk5'], 2))
  visual, audio = inputs.prepare(inputs.select(batch))
  assert visual.shape == (2, 120, 144) and audio.shape == (2, 120, 5)
  assert (audio == batch['real'][..., None]).all() and np.std(visual) > 0.1


def test_what_does_not_fit_is_refused(featured, records, tmp_path):
  def refused(words, *overrides, data=featured):
    with pytest.raises(InputError, match=words):
      start('charon', tmp_path / 'run', data, *overrides)
    assert not (tmp_path / 'run').exists()

  refused(
    "no features 'clip', only .*pixels.*; build them with --features clip=DIR",
    '--config.model.visual.tower=features/clip',
  )
  refused(
    "no features 'pixels', only faces and log-mel",
    PIXELS,
    '--config.data.length=12',
    '--config.data.stride=8',
    '--config.data.face=16',
    '--config.crop=12',
    data=records,
  )
  refused(
    "config.model.visual.tower 'feature/pixels' is not one of ir50, resnet50, none, features/NAME",
    PIXELS.replace('features/', 'feature/'),
  )
  given = tmp_path / 'given.safetensors'
  weight_files.save(
    given,
    {'params/w': np.zeros(1, np.float32)},
    dict.fromkeys(('source', 'source_sha256', 'licence'), 'x') | {'architecture': 'ir50'},
  )
  refused(
    'holds ir50, but config.init.visual takes features/pixels',
    PIXELS,
    f'--config.init.visual={given}',
  )


def test_records_of_another_width_are_refused(featured):
  with pytest.raises(InputError, match='features pixels of width 144, the run has 145'):
    Records(featured, {'length': 120, 'stride': 120, 'face': 24, 'features': {'pixels': 145}})
