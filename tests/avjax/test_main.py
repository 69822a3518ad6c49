"""Tests that avjax.main starts a run, continues it, and refuses bad input in one line.

Bad input ends with exit code 2. tests/fault has kills and damage.
"""

import json
import os
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from fault import harness
from fault.harness import call, fingerprint, flags

from avjax import errors, main
from avjax.runs import folder as run_folder


def start(*arguments, **keywords):
  """Returns exit code, stdout and stderr of a start of avjax.main; arguments as in `flags`."""
  done = call(*flags(*arguments, **keywords))
  return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope='module')
def whole(records, tmp_path_factory):
  """A run from start to end: its folder and what it printed."""
  workdir = tmp_path_factory.mktemp('whole') / 'run'
  done = harness.run(
    *flags(workdir, records)
  )  # as people start it; the other starts of this file share this process
  assert done.returncode == 0, done.stderr
  return workdir, done.stdout, done.stderr


@pytest.mark.slow
def test_a_run_leaves_what_the_readme_promises(whole):
  workdir, out, err = whole
  head = 'CCC', 'PCC', 'RMSE', 'SAGR', 'BIAS', 'clip', 'mean'
  assert out.splitlines()[2].split() == [*head]
  for target in ('valence', 'arousal'):
    assert any(line.startswith(target) for line in out.splitlines())
  for name in (
    'config.json',
    'versions.json',
    'metrics.jsonl',
    'train.log',
    'results_validation.json',
    'curves.png',
    'traces_validation.png',
    'predictions/validation/200.csv',
    'checkpoints/best',
  ):
    assert (workdir / name).exists(), name
  assert list(workdir.glob('events.out.tfevents.*'))
  rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert [row['epoch'] for row in rows] == [0, 1, 2, 3]
  assert {'train_loss', 'rate', 'stage', 'validation_ccc_valence', 'examples_per_second'} <= rows[
    0
  ].keys()
  results = json.loads((workdir / 'results_validation.json').read_text())
  assert results['best_epoch'] == int(np.argmax([row['validation_ccc'] for row in rows]))
  best = rows[results['best_epoch']]
  for target in ('valence', 'arousal'):  # what is reported at the end is the best epoch's model
    assert results[target]['ccc'] == pytest.approx(best[f'validation_ccc_{target}'], abs=1e-6)
  assert 'Warning' not in err and 'WARNING' not in err


@pytest.mark.slow
def test_started_again_after_its_end(whole, records):
  before = fingerprint(whole[0])
  code, out, _ = start(whole[0], records)
  assert code == 0 and out == whole[1] and fingerprint(whole[0]) == before


def test_the_report_of_a_run(whole, tmp_path):
  workdir = shutil.copytree(whole[0], tmp_path / 'run')
  done = call(workdir, '--report', module='avjax.evaluate')
  assert (
    done.returncode == 0
    and f'{workdir}/report.html' in done.stdout
    and (workdir / 'report.html').stat().st_size > 10_000
  )


def test_evaluate_of_a_run(whole):
  def evaluate(*arguments):
    return call(*arguments, module='avjax.evaluate')

  done = evaluate(str(whole[0]))
  assert done.returncode == 0 and done.stdout == whole[1]
  done = evaluate(str(whole[0]), '--split', 'test')
  assert done.returncode == 0 and 'predictions only' in done.stdout
  assert (
    len((whole[0] / 'predictions/test/300.csv').read_text().splitlines()) == 26
  )  # every frame, crop or none
  done = evaluate(str(whole[0] / 'nothing'))
  assert done.returncode == 2 and one_line(done.stderr)


def one_line(err):
  lines = err.strip().splitlines()
  return len(lines) == 1 and lines[0].startswith('error: ') and 'Traceback' not in err


@pytest.mark.parametrize(
  'overrides, words',
  [
    (['--config.batchsize=3'], ["'batchsize'", "'batch_size'"]),
    (['--config.schedule.patiense=3'], ["'schedule.patiense'", "'schedule.patience'"]),
    (['--config.batch_size=three'], ['three']),
    (['--config.data.length=300'], ['length', '--length 300']),
    (['--config.model.fusion.name=grjka'], ["'grjka'", "'grjca'"]),
    (['--config.model.visual.tower=resnet18'], ["'resnet18'", 'resnet50']),
    (['--config.fold=7'], ['fold']),
    (['--config.batch_size=0'], ['batch_size', 'at least 1']),
    (['--config.crop=20'], ['crop', '16']),
    (['--config.seed=-1'], ['seed']),
    (['--config.targets=()'], ['targets']),
    (['--config.model.fusion.temperature=0.0'], ['temperature', 'above 0']),
    (['--config.model.fusion.recursions=0'], ['recursions', 'at least 1']),
    (['--config.model.visual.ir50.widths=(8,8)'], ['model.visual.ir50.widths', '4 numbers']),
    (['--config.loss.scope=frame'], ['frame', 'sequence']),
    (
      ["--config.optimizer.rate_factors=(('fusion/x', 0.1),)"],
      ['fusion/x', 'matches no parameter'],
    ),
    (['--config.model.audio.tower=none'], ['model.audio.tower', 'grjca needs one']),
    (['--config.model.temporal.activation=relu'], ['relu', 'leaky_relu']),
    (['--config.model.fusion.dropout=1.5'], ['model.fusion.dropout', '0 to below 1']),
    (['--config.optimizer.clip=-1.0'], ['optimizer.clip']),
    (['--config.model.temporal.kernels=(0,)'], ['model.temporal.kernels']),
    (['--config.model.temporal.visual=(0,)'], ['cannot be built']),
    (['--nonsense'], ['nonsense']),
  ],
)
def test_bad_flags(records, tmp_path, capsys, overrides, words):
  with pytest.raises(SystemExit) as ended:
    errors.run_command(main.main, ['avjax.main', *flags(tmp_path / 'run', records, *overrides)])
  err = capsys.readouterr().err
  assert ended.value.code == 2 and one_line(err), err
  for word in words:
    assert word in err
  assert not (tmp_path / 'run').exists()


def test_bad_folders(whole, records, tmp_path):
  def refused(*args, **kwargs):
    code, _, err = start(*args, **kwargs)
    assert code == 2 and one_line(err), err
    return err

  assert 'data_prep.build' in refused(tmp_path / 'run', tmp_path / 'missing')
  assert 'No such file' in refused(tmp_path / 'run', records, config='configs/nothing.py')
  assert 'unknown config argument' in refused(
    tmp_path / 'run', records, config='configs/grjca.py:minni'
  )
  broken = tmp_path / 'broken'
  shutil.copytree(records, broken)
  shard = next(broken.rglob('*chunk0.tfrecord*'))
  shard.write_bytes(shard.read_bytes()[:-20])
  assert shard.name in refused(tmp_path / 'run', broken)
  shard.unlink()
  assert shard.name in refused(tmp_path / 'run', broken)
  assert not (tmp_path / 'run').exists()

  before = {path: path.read_bytes() for path in whole[0].rglob('*') if path.is_file()}
  err = refused(whole[0], records, '--config.seed=5', '--config.schedule.max_epochs=9')
  assert 'seed' in err and 'schedule.max_epochs' in err
  foreign = tmp_path / 'foreign'
  foreign.mkdir()
  (foreign / 'thesis.tex').write_text('mine')
  assert 'holds no run' in refused(foreign, records)
  assert [path.name for path in foreign.iterdir()] == ['thesis.tex']
  after = {path: path.read_bytes() for path in whole[0].rglob('*') if path.is_file()}
  assert before == after


@pytest.mark.slow
def test_states_that_a_kill_can_leave(whole, records, tmp_path):
  """A kill can leave half a line of metrics, a best checkpoint newer than the last, no config."""
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  lines = (workdir / 'metrics.jsonl').read_text()
  (workdir / 'metrics.jsonl').write_text(lines + lines[:50])
  last = workdir / 'checkpoints' / 'last'
  shutil.rmtree(
    max(last.iterdir(), key=lambda path: int(path.name))
  )  # so the last epoch is done again
  code, out, err = start(workdir, records)
  assert code == 0 and out.replace(str(workdir), '') == whole[1].replace(str(whole[0]), ''), err
  again = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(line)['train_loss'] for line in again] == [
    json.loads(line)['train_loss'] for line in lines.splitlines()
  ]

  shutil.rmtree(workdir / 'checkpoints' / 'best')
  shutil.rmtree(max(last.iterdir(), key=lambda path: int(path.name)))
  code, _, err = start(workdir, records)
  assert code == 2 and one_line(err) and 'damaged (such as best/' in err

  begun = tmp_path / 'begun'
  begun.mkdir()
  shutil.copy(workdir / 'versions.json', begun)
  code, _, err = start(
    begun, records, '--config.model.visual.tower=resnet50', '--config.schedule.max_epochs=1'
  )
  assert code == 0, err  # and the other face tower trains too


@pytest.mark.slow
def test_a_damaged_shard_is_named(whole, records, tmp_path):
  broken = tmp_path / 'broken'
  shutil.copytree(records, broken)
  shard = next(broken.rglob('*chunk5.tfrecord*'))
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 1
  shard.write_bytes(data)
  done = harness.run(whole[0], '--data_dir', broken, module='avjax.evaluate')
  last = done.stderr.strip().splitlines()[
    -1
  ]  # TensorFlow's own remark comes before it and cannot be silenced
  assert (
    done.returncode == 2
    and one_line(last)
    and f'{shard} is damaged' in last
    and 'Traceback' not in done.stderr
  )


@pytest.mark.slow
def test_what_is_not_finite_is_not_saved(records, tmp_path):
  """A run that blows up ends with exit code 3, and no checkpoint holds NaN.

  With an absurdly high rate this happens in the first or second epoch.
  """
  workdir = tmp_path / 'run'
  code, _, err = start(
    workdir, records, '--config.schedule.rate_max=1e38', '--config.schedule.warmup_epochs=0'
  )
  assert code == 3 and 'not finite' in err
  for path in (workdir / 'checkpoints').glob('*/*/state'):
    with ocp.StandardCheckpointer() as checkpointer:
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(checkpointer.restore(path)))


@pytest.mark.slow
@pytest.mark.parametrize('kind', ['last', 'best'])
def test_a_damaged_checkpoint_is_not_used(whole, records, tmp_path, kind):
  """The state before a damaged checkpoint is taken, with the best that belongs to it.

  The run ends as it did before, and then both checkpoints are valid again.
  """
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  newest = max((workdir / 'checkpoints' / kind).iterdir(), key=lambda p: int(p.name))
  for path in newest.rglob('*'):
    if path.is_file() and os.path.getsize(path) > 4000:
      data = bytearray(path.read_bytes())
      data[len(data) // 2] ^= 1
      path.write_bytes(data)
  done = call(workdir, module='avjax.evaluate')
  assert done.returncode == (2 if kind == 'best' else 0), (
    done.stderr
  )  # what is left is not the best
  code, out, err = start(workdir, records)
  assert (
    code == 0
    and f'{newest} is damaged' in err
    and out.replace(str(workdir), '') == whole[1].replace(str(whole[0]), '')
  ), err
  assert f'{newest} is damaged' in (workdir / 'train.log').read_text()
  code, out, err = start(workdir, records)
  assert code == 0 and 'damaged' not in err and fingerprint(workdir) == fingerprint(whole[0])


@pytest.mark.slow
def test_a_damaged_line_of_metrics(whole, records, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(whole[0], workdir)
  data = (workdir / 'metrics.jsonl').read_bytes()
  for broken in (
    b'{' + data,
    data[:30] + b'\xff' + data[31:],
    data.replace(b'"epoch"', b'"epoxh"', 1),
  ):
    (workdir / 'metrics.jsonl').write_bytes(broken)
    code, _, err = start(workdir, records)
    assert (
      code == 2
      and 'metrics.jsonl, line 1 is damaged' in err.splitlines()[-1]
      and 'Traceback' not in err
    )
    assert (workdir / 'metrics.jsonl').read_bytes() == broken


def test_a_second_start_in_the_same_folder(whole, records, tmp_path):
  with run_folder.locked(tmp_path):
    code, _, err = start(tmp_path, records)
  assert code == 2 and one_line(err) and 'another process is training' in err


@pytest.mark.slow
def test_a_fork_goes_on_from_another_run(whole, records, tmp_path):
  """config.resume continues from the epochs and the best state of another run, at other rates.

  What does not fit is refused before anything is written. On other records it is fine-tuning, see
  weights/test_adapt.py.
  """
  fork = [
    f'--config.resume={whole[0]}',
    '--config.schedule.max_epochs=5',
    '--config.schedule.max_stage_epochs=9',
    '--config.schedule.rate_max=1e-3',
    '--config.batch_size=3',
    '--config.seed=4',
  ]
  for overrides, words in (
    (fork[:1], 'has trained its 4 epochs'),
    ([*fork, '--config.model.fusion.recursions=2'], 'model.fusion.recursions'),
    ([*fork, '--config.fold=1'], 'fold'),
    ([*fork, '--config.init.audio=x'], 'give no config.init'),
    ([f'--config.resume={tmp_path}'], 'config.json'),
  ):
    code, _, err = start(tmp_path / 'run', records, *overrides)
    assert code == 2 and one_line(err) and words in err, err
    assert not (tmp_path / 'run').exists()

  before = {path: path.read_bytes() for path in whole[0].rglob('*') if path.is_file()}
  code, out, err = start(tmp_path / 'run', records, *fork)
  assert code == 0, err
  assert (
    f'continues from {whole[0]} after 4 epochs' in err
    and 'changed: batch_size, schedule.max_epochs' in err
  )
  (row,) = [
    json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  ]
  assert row['epoch'] == 4 and row['rate'] <= 1e-3
  results = json.loads((whole[0] / 'results_validation.json').read_text())
  assert (
    row['best_ccc'] >= np.mean([results[target]['ccc'] for target in ('valence', 'arousal')]) - 1e-6
  )
  assert {path: path.read_bytes() for path in whole[0].rglob('*') if path.is_file()} == before

  code, again, err = start(tmp_path / 'run', records, *fork)  # now its own state comes first
  assert code == 0 and again == out and 'resumed after 5 epochs' in err
