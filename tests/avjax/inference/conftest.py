"""Gives the tests of this folder a run to predict with."""

import pytest
import tiny
from fault.harness import made_run


@pytest.fixture(scope='module')
def tiny_run(tmp_path_factory):
  """A run on windows of 12 frames every 8, with faces of 16 pixels."""
  return made_run(tmp_path_factory.mktemp('run') / 'tiny', tiny.get_config())
