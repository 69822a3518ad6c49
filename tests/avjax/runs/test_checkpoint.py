"""Tests that a failed save raises one clear error and leaves the process as it was."""

import resource
import sys
import types

import numpy as np
import pytest

from avjax.errors import InputError
from avjax.runs.checkpoint import Checkpoints, late_writes_silenced

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


def test_only_what_the_closed_event_loop_says_is_silenced(monkeypatch):
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)
  with late_writes_silenced():
    for text in ('Event loop is closed', 'something else'):
      sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(text)))
  assert [str(unraisable.exc_value) for unraisable in told] == ['something else']
