"""Tests that a run compiles once per stage and survives updates that are not finite.

Inputs without content, such as black faces and silence, are tested too.
"""

import functools
import json

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from avjax.data import dataset
from avjax.system import System
from avjax.system.steps import make_state
from avjax.training import loop, optimizer
from avjax.training.stage_steps import StageSteps
from avjax.training.state import Diverged
from avjax.training.stop import StopSignal
from avjax.training.unfreezing import TrainableMask
from fault.harness import final_state


@pytest.fixture
def poisoned(monkeypatch):
  """Returns poisoned(where), which makes the labels of some training batches NaN.

  They are the batches for which where(epoch, batch) is true.
  """
  batches = dataset.Records.batches

  def poison(where):
    count = iter(range(100))

    def spoiled(self, splits, batch_size, seed=None, *rest, **named):
      epoch = next(count) if seed is not None else None
      for i, batch in enumerate(batches(self, splits, batch_size, seed, *rest, **named)):
        if epoch is not None and where(epoch, i):
          batch = {**batch, 'va': np.full_like(batch['va'], np.nan)}
        yield batch

    monkeypatch.setattr(dataset.Records, 'batches', spoiled)

  return poison


def config_for(records, **settings):
  config = tiny.get_config()
  config.data.dir = str(records)
  config.update(settings)
  return config


@pytest.mark.slow
def test_one_compilation_a_stage_and_a_spoiled_batch_is_skipped(
  records, tmp_path, monkeypatch, poisoned, record
):
  stages, begin = [], StageSteps.begin
  monkeypatch.setattr(
    StageSteps,
    'begin',
    lambda self, *arguments: stages.append(arguments[0]) or begin(self, *arguments),
  )
  evaluation = {'encode': [], 'decode': []}

  def count(kind):
    step = getattr(System, f'{kind}_step').func
    counted = functools.cached_property(
      lambda self: evaluation[kind].append(step(self)) or evaluation[kind][-1]
    )
    counted.__set_name__(System, f'{kind}_step')
    monkeypatch.setattr(System, f'{kind}_step', counted)

  count('encode')
  count('decode')
  poisoned(lambda epoch, batch: (epoch, batch) == (1, 1))
  results = loop.train(config_for(records), tmp_path / 'run', StopSignal())
  assert results['best_epoch'] >= 0
  lines = [
    json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  ]
  assert [line['skipped_updates'] for line in lines] == [0, 1, 0, 0] and all(
    np.isfinite(line['train_loss']) for line in lines
  )
  assert '1 of the 5 updates were skipped' in (tmp_path / 'run' / 'train.log').read_text()
  counts = (
    [stages.count(stage) for stage in range(2)],
    [step._cache_size() for steps in evaluation.values() for step in steps],
  )
  record('compilations: of the train step of each stage, of evaluation', list(counts))
  assert counts == ([1, 1], [1, 1])  # two stages in four epochs; towers, and what is behind them


def test_a_row_of_skipped_updates_goes_on_over_the_end_of_an_epoch(records, tmp_path, poisoned):
  """Two skipped at the end of an epoch and one at the beginning of the next are three in a row."""
  poisoned(lambda epoch, batch: (epoch, batch) in ((0, 3), (0, 4), (1, 0)))
  with pytest.raises(Diverged, match='more than skip_most = 2 updates in a row'):
    loop.train(config_for(records, skip_most=2), tmp_path / 'run', StopSignal())
  assert final_state(tmp_path / 'run')[1]['skipped'] == 2


def test_too_many_spoiled_batches_end_the_run(records, tmp_path, poisoned):
  """Too many skipped updates end the run, and the state of the epoch before is kept.

  test_main.py has the exit code 3.
  """
  poisoned(lambda epoch, batch: epoch >= 1)
  with pytest.raises(Diverged):
    loop.train(config_for(records, skip_most=2), tmp_path / 'run', StopSignal())
  log = (tmp_path / 'run' / 'train.log').read_text()
  assert 'more than skip_most = 2 updates in a row' in log and '--config.resume' in log
  state, meta = final_state(tmp_path / 'run')
  assert meta['schedule']['epoch'] == 1 and all(
    np.isfinite(leaf).all() for leaf in jax.tree.leaves(state)
  )
  for path in (tmp_path / 'run' / 'checkpoints').glob('*/*/state'):
    with ocp.StandardCheckpointer() as checkpointer:
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpointer.restore(path)))


@pytest.mark.parametrize(
  'kind',
  [
    'black',
    'silent',
    'constant labels',
    'nothing annotated',
    'one annotated frame',
    'all of it',
    'NaN',
  ],
)
def test_inputs_that_hold_nothing(kind):
  """Black faces, silence and constant labels give a finite loss and gradient.

  The parameters change. With NaN the state stays as it was.
  """
  config = tiny.get_config()
  length, face, clips = config.data.length, config.data.face, 3
  rng = np.random.default_rng(0)
  batch = {
    'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
    'log_mel': rng.normal(size=(clips, 120, 64)).astype(np.float16),
    'starts': np.zeros((clips, length), np.int32),
    'real': np.ones((clips, length), bool),
    'labels': rng.uniform(-1, 1, (clips, length, len(config.targets))).astype(np.float32),
    'annotated': np.ones((clips, length), bool),
  }
  if kind in ('black', 'all of it'):
    batch['faces'][:] = 0
  if kind in ('silent', 'all of it'):
    batch['log_mel'][:] = np.log(0.01)
  if kind in ('constant labels', 'all of it'):
    batch['labels'][:] = 0.25
  if kind in ('nothing annotated', 'one annotated frame'):
    batch['annotated'][:, 0 if kind == 'nothing annotated' else 1 :] = False
  if kind == 'NaN':
    batch['labels'][1, 3] = np.nan
  system = System.from_config(config)
  tx = optimizer.make_optimizer(TrainableMask(('.*',)), {'weight_decay': 1e-3})
  state = make_state(system.init(0), tx)
  before = jax.tree.map(np.array, state)
  after, metrics = system.make_train_step(TrainableMask(('.*',)), tx)(
    state, batch, jax.random.key(1), np.float32(1e-3)
  )
  changed = [
    not np.array_equal(new, old)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
  ]
  if kind == 'NaN':
    assert not np.isfinite(metrics['loss']) and not any(changed)
  else:
    assert np.isfinite(metrics['loss']) and np.isfinite(metrics['gradient_norm']) and any(changed)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))
