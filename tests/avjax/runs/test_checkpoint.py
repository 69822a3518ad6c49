"""Tests what is said of a checkpoint that cannot be saved or restored, and what is left then."""

import importlib.metadata
import json
import os
import resource
import shutil
import sys
import types

import jax
import numpy as np
import pytest
from fault.harness import run, why_not_loaded

from avjax.errors import InputError
from avjax.runs import damage
from avjax.runs.checkpoint import Checkpoints
from avjax.runs.damage import late_tasks_silenced
from avjax.runs.load import load_best

MAKE = np.random.default_rng(0).random


def test_a_save_that_fails_leaves_the_hook_and_the_states_before(tmp_path, monkeypatch):
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)
  hook = sys.unraisablehook
  state = {'params': {str(i): MAKE((50, 700)).astype(np.float32) for i in range(8)}}
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(checkpoints.last, 1, state, {'schedule': {'best_epoch': -1}})
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))  # bytes that a file may have
  try:
    with pytest.raises(InputError, match='checkpoint 2 cannot be written .* File too large'):
      checkpoints.save(checkpoints.last, 2, state, {'schedule': {'best_epoch': -1}})
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert sys.unraisablehook is hook and not told
  checkpoints.close()
  assert {path.name for path in (tmp_path / 'checkpoints' / 'last').iterdir()} >= {'1'}
  restored, *_ = Checkpoints(tmp_path, read_only=True).restore_last(lambda meta: state, None)
  np.testing.assert_array_equal(restored['params']['7'], state['params']['7'])


def test_which_steps_a_save_keeps_and_deletes(tmp_path):
  """The newest two stay. Steps after the one that is saved are those of a run that was killed."""

  def save(step, value):
    state = {'params': {'a': np.full(3, value, np.float32)}}
    checkpoints.save(checkpoints.last, step, state, {'schedule': {'best_epoch': -1}, 'made': value})
    return checkpoints.last.all_steps()

  def newest():
    state, meta, *_ = checkpoints.restore_last(
      lambda meta: {'params': {'a': np.zeros(3, np.float32)}}, None
    )
    assert (state['params']['a'] == meta['made']).all()
    return meta['made']

  checkpoints = Checkpoints(tmp_path)
  assert [save(step, step) for step in (1, 2, 3)] == [[1], [1, 2], [2, 3]]
  assert save(2, 2) == [2, 3]  # it is there and the same: nothing is written
  assert save(2, 20) == [2] and newest() == 20
  for path in (tmp_path / 'checkpoints/last/2/state/d').iterdir():
    path.write_bytes(path.read_bytes()[:10])
  assert save(2, 20) == [2] and newest() == 20  # it was damaged: it is written again
  assert save(3, 3) == [2, 3] and save(1, 1) == [1] and newest() == 1
  checkpoints.close()


def test_only_what_the_closed_event_loop_says_is_silenced(monkeypatch):
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)
  with late_tasks_silenced():
    for text in ('Event loop is closed', 'something else'):
      sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
  assert [str(unraisable.exc_value) for unraisable in told] == ['something else']


def export(workdir, **keywords):
  """Returns the one line with which python -m avjax.export refuses a run."""
  done = run(workdir, '--output', workdir.parent / 'model', module='avjax.export', **keywords)
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  return done.stderr.strip()


def without_rights():
  """The words before a command that make the rights of files count for root, too."""
  if os.geteuid():
    return ()
  if not shutil.which('setpriv'):
    pytest.skip('root may read everything, and there is no setpriv')
  return ('setpriv', '--bounding-set=-dac_override,-dac_read_search', '--inh-caps=-all')


@pytest.mark.parametrize('name', ['checkpoints', 'checkpoints/best/1/state', 'config.json'])
def test_a_run_that_may_not_be_read(workdir, name):
  (workdir / name).chmod(0)
  try:
    line = export(workdir, under=without_rights())
  finally:
    (workdir / name).chmod(0o700)
  assert line.startswith(f'error: {workdir / name} cannot be read: Permission denied'), line


def test_a_cut_file_is_damage(workdir):
  for path in (workdir / 'checkpoints/best/1/state/d').iterdir():
    path.write_bytes(path.read_bytes()[:10])
  assert 'checkpoints/best/1 is damaged (' in (line := why_not_loaded(workdir))
  assert line.endswith('; start the run again, which returns to an undamaged state')


@pytest.mark.parametrize(
  'change', [lambda text: '[]', lambda text: text.replace('digest', 'dugest')]
)
def test_a_meta_that_is_none_is_damage(workdir, change):
  path = workdir / 'checkpoints/best/1/meta/metadata'
  path.write_text(change(path.read_text()))
  assert 'checkpoints/best/1 is damaged (checksum of its meta differs)' in why_not_loaded(workdir)


def test_a_cause_that_is_no_damage_is_named(workdir):
  """Orbax's own description of the state lacks a key: all of it is there and can be parsed."""
  path = workdir / 'checkpoints/best/1/state/_METADATA'
  path.write_text(path.read_text().replace('"key_type"', '"kind"'))
  assert "best/1 cannot be restored (KeyError: 'key_type'); start the run again" in why_not_loaded(
    workdir
  )


def test_a_description_without_the_format_of_the_arrays(workdir):
  """Orbax 0.11 did not name it; the format is the same."""
  whole = load_best(workdir)[2]
  path = workdir / 'checkpoints/best/1/state/_METADATA'
  found = json.loads(path.read_text())
  assert found.pop('use_ocdbt') is True
  path.write_text(json.dumps(found))
  jax.tree.map(np.testing.assert_array_equal, load_best(workdir)[2], whole)


def test_a_checkpoint_of_another_orbax(workdir):
  """What another version has written may look cut; a checksum that differs is damage even so."""
  versions = json.loads((workdir / 'versions.json').read_text())
  (workdir / 'versions.json').write_text(json.dumps({**versions, 'orbax-checkpoint': '0.5.3'}))
  (workdir / 'checkpoints/best/1/state/_METADATA').write_text('')
  here = importlib.metadata.version('orbax-checkpoint')
  line = why_not_loaded(workdir)
  assert ' cannot be restored (JSONDecodeError: ' in line and ' damaged' not in line
  assert line.endswith(
    f'; Orbax 0.5.3 wrote it and this is Orbax {here}: install orbax-checkpoint==0.5.3'
  )
  assert damage.is_damage(damage.Damaged('checksum of its meta differs'), workdir)
  assert damage.is_damage(ValueError('DATA_LOSS: CRC-32C checksum verification failed'), workdir)


def test_no_older_state_is_taken_where_the_newest_may_not_be_read(tmp_path, monkeypatch):
  state = {'params': {'a': np.zeros(3, np.float32)}}
  checkpoints = Checkpoints(tmp_path)
  for step in (1, 2):
    checkpoints.save(checkpoints.last, step, state, {'schedule': {'best_epoch': -1}})
  read = checkpoints._read

  def refuse_the_newest(manager, step, abstract):
    if step == 2:
      raise ValueError("PERMISSION_DENIED: Failed to open [os_error_code='13']")
    return read(manager, step, abstract)

  monkeypatch.setattr(checkpoints, '_read', refuse_the_newest)
  with pytest.raises(InputError, match='last/2 cannot be read: Permission denied; mend that'):
    checkpoints.restore_last(lambda meta: state, None)
  checkpoints.close()
