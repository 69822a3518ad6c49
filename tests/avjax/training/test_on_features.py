"""Tests features of other backbones in place of towers.

Charon and CtyunAI are trained on .npy files, evaluated and exported.
"""

import csv
import importlib
import json

import numpy as np
import pytest
from jax import nn

from avjax import main
from avjax.data.dataset import Records
from avjax.errors import InputError
from avjax.evaluation.results import evaluate_run
from avjax.reports.tables import format_scores
from avjax.runs import folder as run_folder
from avjax.system import System
from avjax.targets import TARGETS, Target, metrics
from avjax.targets.losses import LOSSES, total_loss
from avjax.targets.metrics import METRICS
from avjax.training.loop import train
from avjax.training.plan import prepare
from avjax.training.stop import StopSignal
from avjax.weights import files as weight_files
from avjax.weights.exported import ExportedModel, export_run
from benchmarks import zoo
from data_prep import build, mini

SIZES = ['--length', '120', '--stride', '120', '--face', '24']
PIXELS = '--config.model.visual.tower=features/pixels'


@pytest.fixture(scope='module')
def featured(tmp_path_factory):
  """The records of a small mini set with four sets of features.

  `pixels` are 144 numbers per frame, which stand for a backbone's; `ones` are five ones; `mood` is
  a class, 0 to 2, that changes every 40 frames, and `hint` is 1 at its place among three numbers.
  """
  folder = tmp_path_factory.mktemp('featured')
  mini.generate(folder / 'mini', videos=17, seconds=8, workers=2)
  zoo.write_features(folder / 'mini', folder / 'pixels')
  rng = np.random.default_rng(0)
  for name in ('ones', 'mood', 'hint'):
    (folder / name).mkdir()
  for path in (folder / 'pixels').iterdir():
    n = len(np.load(path))
    mood = np.repeat(rng.integers(0, 3, n // 40 + 1), 40)[:n]
    np.save(folder / 'ones' / path.name, np.ones((n, 5), np.float32))
    np.save(folder / 'mood' / path.name, mood[:, None].astype(np.float32))
    np.save(folder / 'hint' / path.name, np.eye(3, dtype=np.float32)[mood])
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
        f'mood={folder / "mood"}',
        f'hint={folder / "hint"}',
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


@pytest.mark.slow
@pytest.mark.parametrize('config', zoo.ON_FEATURES)
def test_train_evaluate_and_export(config, featured, tmp_path):
  workdir = tmp_path / 'run'
  keys = ('max_epochs', 'max_stage_epochs', 'patience')
  budget = [PIXELS, *(f'--config.schedule.{key}=6' for key in keys)]
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
    'from faces.',
    '- Visual: features of another backbone, features/pixels, 144 numbers per frame.',
    'call(weights, pixels, real)',
    '- `features/pixels`: float32 (clips, 120, 144), of another backbone',
    '- Audio: not used.',
  ):
    assert words in card, words


def test_features_of_both_modalities(featured, tmp_path):
  """Each modality gets its own features, of 144 and 5 numbers."""
  config = importlib.import_module('configs.concatenation').get_config('mini')
  config.model.visual.tower, config.model.audio.tower = 'features/pixels', 'features/ones'
  config.data.dir = str(featured)
  plan = prepare(config, tmp_path / 'run')
  config, inputs = plan.config, plan.system.inputs
  assert inputs.fields == ('features/pixels', 'features/ones', 'real')
  batch = next(Records(featured, config.data).batches(['chunk5'], 2))
  visual, audio = inputs.prepare(batch)
  assert visual.shape == (2, 120, 144) and audio.shape == (2, 120, 5)
  assert (audio == batch['real'][..., None]).all() and np.std(visual) > 0.1


class Classes(Target):
  """Predicts one of K classes for each frame."""

  def activate(self, x):
    return nn.softmax(x)

  def decide(self, x):
    return x.argmax(axis=1)


def cross_entropy(outputs, labels, mask, **settings):
  """Computes the mean of -log p over the frames of the mask: (B,L,K), (B,L,1) -> a scalar."""
  classes = nn.one_hot(labels[..., 0].astype(int), outputs.shape[-1])
  losses = -(classes * nn.log_softmax(outputs)).sum(axis=-1)
  return (losses * mask).sum() / mask.sum()


@pytest.mark.slow
def test_a_target_of_classes(featured, tmp_path, monkeypatch):
  """Declaring a target suffices, even with several outputs and a loss and metric of its own.

  It is trained together with valence and evaluated; report and export contain it.
  """
  mood = Classes(
    'mood',
    0,
    '#009e73',
    '#40c9a0',
    field='features/mood',
    lowest=0,
    highest=2,
    outputs=3,
    loss='cross_entropy',
    metrics=('accuracy',),
  )
  monkeypatch.setitem(TARGETS, 'mood', mood)
  monkeypatch.setitem(LOSSES, 'cross_entropy', cross_entropy)
  monkeypatch.setitem(METRICS, 'accuracy', lambda p, y: float(np.mean(p == y)))
  config = importlib.import_module('configs.visual').get_config('mini')
  config.model.visual.tower = 'features/hint'
  config.model.head = {'name': 'linear', 'tanh': False}
  config.data.dir, config.targets = str(featured), ('mood', 'valence')
  config.schedule.update({'max_epochs': 12, 'patience': 12})
  config.smooth = 5
  workdir = tmp_path / 'run'
  with StopSignal() as stop:
    results = train(config, workdir, stop)
  assert results['mood']['accuracy'] > 0.8 and results['mood'].keys() == {
    'accuracy',
    'per_clip',
    'intervals',
    'clips',
    'mean_over_clips',
  }
  rows = [json.loads(row) for row in (workdir / 'metrics.jsonl').read_text().splitlines()]
  row = max(rows, key=lambda row: row['validation_score'])
  both = row['validation_accuracy_mood'], row['validation_ccc_valence']
  assert row['validation_score'] == pytest.approx(np.mean(both), abs=1e-9)
  assert results['mood']['accuracy'] == pytest.approx(both[0], abs=1e-9)
  assert evaluate_run(workdir, 'validation', report=True)[1] == results

  csvs = [
    path.read_text().splitlines()
    for path in (workdir / run_folder.predictions_name('validation')).iterdir()
  ]
  tables = [list(csv.DictReader(lines)) for lines in csvs]
  cells = [(float(row['mood']), float(row['mood_label'])) for table in tables for row in table]
  assert {predicted for predicted, _ in cells} <= {0, 1, 2}
  assert np.mean([p == y for p, y in cells]) == pytest.approx(results['mood']['accuracy'])
  report = (workdir / 'report.html').read_text()
  assert 'mood</b>, ACCURACY' in report and 'Clips by SCORE' in report and '.key.mood' in report
  table = format_scores(results, config.targets).splitlines()
  assert table[0].split()[:6] == ['ACCURACY', 'CCC', 'PCC', 'RMSE', 'SAGR', 'BIAS']
  assert len(table[1].split()) == 3 and 'post-processed' in table[0]  # mood, accuracy, clip mean

  export_run(workdir, tmp_path / 'model')
  card = (tmp_path / 'model' / 'README.md').read_text()
  assert 'it predicts mood and valence between -1 and 2 from faces.' in card
  found = ExportedModel(tmp_path / 'model')
  description = json.loads((tmp_path / 'model' / 'model.json').read_text())
  assert description['validation_score'] == pytest.approx(row['validation_score'])
  assert np.array(description['example']).shape == (2, 120, 4) and found


def test_total_loss_is_the_sum_over_targets(monkeypatch):
  """Targets with the same loss share one call of it; the losses are added (eq. 22)."""
  mood = Classes('mood', 0, '', '', outputs=3, loss='cross_entropy', metrics=('accuracy',))
  monkeypatch.setitem(TARGETS, 'mood', mood)
  monkeypatch.setitem(LOSSES, 'cross_entropy', cross_entropy)
  rng = np.random.default_rng(0)
  outputs = rng.normal(size=(2, 6, 5)).astype(np.float32)
  labels = rng.uniform(-1, 1, (2, 6, 3)).astype(np.float32)
  labels[..., 1] = rng.integers(0, 3, (2, 6))
  mask = rng.random((2, 6)) < 0.8
  both = {'scope': 'batch', 'variance': 'biased'}
  loss = total_loss(('arousal', 'mood', 'valence'), outputs, labels, mask, both)
  expected = sum(
    1 - metrics.ccc(outputs[mask][:, k], labels[mask][:, i]) for k, i in ((0, 0), (4, 2))
  )
  logits = np.float64(outputs[mask][:, 1:4])
  right = logits[np.arange(len(logits)), labels[mask][:, 1].astype(int)]
  expected += np.mean(np.log(np.exp(logits).sum(axis=1)) - right)
  assert float(loss) == pytest.approx(expected, abs=1e-5)


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
