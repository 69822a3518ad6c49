"""Tests that files of version 0.1.0 (commit 656e7a9) are still read and give the same results.

These are records, a run, an exported model and predictions: tests/data/made_by_656e7a9 has what the
commands of that commit wrote, in the smallest sizes.
"""

import csv
import filecmp
import json
import pathlib
import shutil

import numpy as np
import pytest
from fault.harness import call

import avjax
from avjax.data.dataset import Records
from avjax.evaluation.results import evaluate_run
from avjax.weights.exported import ExportedModel, export_run
from data_prep import build, verify

OLD = pathlib.Path(__file__).parent / 'data' / 'made_by_656e7a9'
TOLERANCE = 1e-6  # of predictions, which the CSVs give to six decimals


def read_csv(path):
  """Returns {column: values} of a CSV of predictions, NaN where a cell is empty."""
  with open(path, newline='') as file:
    rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
  return {name: np.array([float(row[name] or 'nan') for row in rows]) for name in rows[0]}


def assert_same_csv(found, wanted):
  found, wanted = read_csv(found), read_csv(wanted)
  assert list(found) == list(wanted)
  for name, values in wanted.items():
    np.testing.assert_allclose(found[name], values, rtol=0, atol=2 * TOLERANCE, err_msg=name)


@pytest.fixture
def run(tmp_path):
  """A copy of the old run, for evaluation to write into."""
  return pathlib.Path(shutil.copytree(OLD / 'run', tmp_path / 'run'))


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_a_run_and_its_records_are_evaluated_to_the_same(run, split):
  _, results = evaluate_run(run, split, data_dir=OLD / 'records')
  old = json.loads((OLD / 'run' / f'results_{split}.json').read_text())
  assert results.keys() >= old.keys() and results['best_epoch'] == old['best_epoch']
  for target in {'valence', 'arousal'} & old.keys():
    for metric in ('ccc', 'pcc', 'rmse'):
      assert results[target][metric] == pytest.approx(old[target][metric], abs=TOLERANCE)
  predictions = sorted((OLD / 'run' / 'predictions' / split).iterdir())
  assert predictions
  for path in predictions:
    assert_same_csv(run / 'predictions' / split / path.name, path)


@pytest.mark.parametrize('source', ['run', 'model'])
def test_a_video_is_predicted_to_the_same(source, tmp_path):
  found = avjax.predict_video(OLD / 'clip.mp4', OLD / source, tmp_path / 'out', crops=OLD / 'crops')
  assert len(found.frames) == 30
  assert_same_csv(tmp_path / 'out' / 'clip.csv', OLD / 'predicted' / 'clip.csv')


def test_an_exported_model_is_read_and_written_the_same(run, tmp_path):
  assert ExportedModel(OLD / 'model').check(TOLERANCE) <= TOLERANCE
  export_run(run, tmp_path / 'model')
  old, new = (
    json.loads((folder / 'model.json').read_text())
    for folder in (OLD / 'model', tmp_path / 'model')
  )
  np.testing.assert_allclose(new.pop('example'), old.pop('example'), rtol=0, atol=TOLERANCE)
  for description in (old, new):  # these follow from the version and from the bytes of the program
    del description['sha256'], description['versions']
  assert new == old


def test_a_run_goes_on(run, capsys):
  """A run that has ended, started again with the old command, gives its old results.

  It is not refused as another run.
  """
  old = json.loads((run / 'results_validation.json').read_text())
  done = call(
    f'--config={OLD / "config.py"}', f'--workdir={run}', f'--config.data.dir={OLD / "records"}'
  )
  assert done.returncode == 0 and 'resumed after 2 epochs' in done.stderr, done.stderr
  new = json.loads((run / 'results_validation.json').read_text())
  assert new['valence']['ccc'] == pytest.approx(old['valence']['ccc'], abs=TOLERANCE)


@pytest.mark.slow
def test_records_are_whole_and_made_the_same(tmp_path):
  assert verify.verify(OLD / 'records').startswith('OK')
  assert Records(OLD / 'records', {'length': 12, 'stride': 8, 'face': 16}).fold(0)[1] == 'chunk5'
  from official_set import SIZES, make_official

  make_official(tmp_path / 'source')
  assert (
    build.main(
      [
        '--source',
        str(tmp_path / 'source'),
        '--data_dir',
        str(tmp_path / 'records'),
        '--workers',
        '1',
        *SIZES,
      ]
    )
    == 0
  )
  old = OLD / 'records' / 'affwild2' / '1.0.0'
  names = sorted(path.name for path in old.iterdir())
  _, different, missing = filecmp.cmpfiles(
    old, tmp_path / 'records' / 'affwild2' / '1.0.0', names, shallow=False
  )
  assert not different and not missing
