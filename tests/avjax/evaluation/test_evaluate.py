"""Tests how windows become one series per clip and its CCC, and the files that are written."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from fault.harness import made_run
from tiny import get_config

from avjax.data.dataset import Records
from avjax.data.splits import fold_chunks
from avjax.evaluation.results import evaluate_run, score, write_predictions
from avjax.evaluation.series import Series, predict_records
from avjax.system import System, sharding
from avjax.targets import TARGETS, metrics


def encode(variables, batch):
  """Stands in for the towers, and recognises frame k by its grey, which is 5 k."""
  del variables
  return np.round(np.asarray(batch['faces']).mean(axis=(2, 3, 4)) / 5)[..., None], None


def decode(variables, visual, audio, mask):
  """Stands in for what is behind the towers.

  It predicts the annotated valence, k / 100, plus an error that depends on the first frame of the
  window.
  """
  del variables, audio
  valence = np.asarray(visual) / 100
  return {
    'prediction': np.concatenate([valence + valence[:, :1], -valence], axis=-1),
    'gates': {'audio': np.ones((*mask.shape, 4)) / 4},
  }


def test_overlaps_are_averaged_and_scored_by_frame(records):
  config = get_config()
  data = Records(records, {'length': 12, 'stride': 8, 'face': 16})
  _, split = fold_chunks(0)
  mesh = sharding.make_mesh()
  system = System.from_config(config)
  vars(system).update({'encode_step': encode, 'decode_step': decode})
  series = predict_records(data.batches([split], 3), system, {}, mesh, batch_size=3, smooth=1)
  ((clip, s),) = series.items()
  # Clip 200 has 28 annotated frames, so windows start at the 1st, 9th and 17th of them; frame k
  # has valence k / 100.
  ids = [*range(1, 20), *range(25, 34)]
  assert clip == '200' and s.frames.tolist() == ids
  np.testing.assert_allclose(s.labels[:, 0], np.array(ids) / 100, atol=1e-7)
  np.testing.assert_allclose(s.times, (np.array(ids) - 1) / 25, atol=1e-6)
  starts = [0, 8, 16]
  errors = [np.mean([ids[w] / 100 for w in starts if w <= i < w + 12]) for i in range(28)]
  np.testing.assert_allclose(s.prediction[:, 0], np.array(ids) / 100 + errors, atol=1e-6)
  assert s.gates['audio'].shape == (28, 4)

  scores = score(series, config.targets)
  assert scores['frames'] == 28 and scores['clips'] == 1
  assert scores['arousal']['ccc'] == pytest.approx(1, abs=1e-9) and scores['arousal'][
    'rmse'
  ] == pytest.approx(0, abs=1e-9)
  expected = metrics.ccc(np.array(ids) / 100 + errors, np.array(ids) / 100)
  assert scores['valence']['ccc'] == pytest.approx(expected, abs=1e-6)
  assert scores['valence']['per_clip'] == {'200': pytest.approx(expected, abs=1e-6)}


def test_partition_ccc_is_over_all_frames_not_a_mean_of_clips():
  """The CCC of a partition is computed over all its frames, not averaged over clips.

  The two clips are predicted perfectly except for a constant offset in each, which lowers the CCC
  of a clip more than that of the partition.
  """

  def series(level, shift):
    va = np.stack([level + np.linspace(-0.1, 0.1, 50)] * 2, axis=1)
    yes = np.ones(50, bool)
    return Series(np.arange(50) + 1, np.arange(50) / 25, va + shift, va, yes, yes, yes, {})

  clips = {'a': series(-0.5, 0.2), 'b': series(0.5, -0.2)}
  clips['b'].annotated = np.arange(50) < 25
  scores = score(clips, ('valence', 'arousal'))
  x = np.concatenate([clips['a'].prediction[:, 0], clips['b'].prediction[:25, 0]])
  y = np.concatenate([clips['a'].labels[:, 0], clips['b'].labels[:25, 0]])
  assert scores['frames'] == 75
  assert scores['valence']['ccc'] == pytest.approx(metrics.ccc(x, y), abs=1e-12)
  assert (
    scores['valence']['ccc'] > 0.8 > 0.3 > np.mean(list(scores['valence']['per_clip'].values()))
  )


@pytest.mark.slow
def test_what_an_evaluation_writes(records, tmp_path):
  """The report is written only if asked for; a clip that the records no longer have is deleted."""
  config = get_config()
  config.data.dir = str(records)
  run = made_run(tmp_path / 'run', config)
  old = run / 'predictions' / 'validation' / 'gone.csv'
  old.parent.mkdir(parents=True)
  old.write_text('frame,time,valence\n')
  assert evaluate_run(run, 'validation')[1]['frames'] == 28
  assert [path.name for path in old.parent.iterdir()] == ['200.csv']
  assert not (run / 'report.html').exists()
  evaluate_run(run, 'validation', report=True)
  assert (run / 'report.html').exists()


def test_csv(tmp_path):
  series = {
    'x': Series(
      np.array([1, 2, 5]),
      np.array([0, 0.04, 0.16]),
      np.array([[0.25], [-0.5], [1]]),
      np.array([[0.1], [0.2], [0]]),
      np.array([True, True, False]),
      np.array([True, False, True]),
      np.array([True, True, True]),
      {},
    )
  }
  write_predictions(tmp_path / 'predictions', series, ('valence',))
  assert b'\r' not in (tmp_path / 'predictions' / 'x.csv').read_bytes()  # awk would keep it
  with open(tmp_path / 'predictions' / 'x.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert [r['frame'] for r in rows] == ['1', '2', '5'] and [float(r['valence']) for r in rows] == [
    0.25,
    -0.5,
    1,
  ]
  assert [r['valence_label'] for r in rows] == ['0.1', '0.2', ''] and [
    r['face_present'] for r in rows
  ] == ['1', '0', '1']


def test_the_order_of_batches_is_a_function_of_the_seed(records):
  data = Records(records, {'length': 12, 'stride': 8, 'face': 16})
  splits, _ = fold_chunks(0)

  def order(seed, skip=0):
    return [
      f'{clip.decode()}/{window}'
      for batch in data.batches(splits, 3, seed, skip)
      for clip, window in zip(batch['clip'], batch['window'], strict=True)
    ]

  first = order(1)
  assert len(first) == data.size(splits) == len(set(first)) > 9
  assert order(1) == first and order(2) != first and sorted(order(2)) == sorted(first)
  assert order(1, skip=2) == first[6:]  # a resumed epoch goes on with the same records


def test_step_needs_no_tensorflow():
  code = 'import sys, avjax.training.loop, avjax.evaluate; sys.exit("tensorflow" in sys.modules)'
  assert subprocess.run([sys.executable, '-c', code]).returncode == 0
  assert list(TARGETS) == ['valence', 'arousal']
