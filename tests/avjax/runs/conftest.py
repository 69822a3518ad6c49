"""Makes the run that the tests of this folder change."""

import pathlib
import shutil

import pytest
import tiny
from fault.harness import made_run


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """The folder of a run whose best state is random."""
  folder = made_run(tmp_path_factory.mktemp('made') / 'run', tiny.get_config())
  for name in ('metrics.jsonl', 'train.log'):
    (folder / name).write_text('')
  (folder / 'predictions' / 'validation').mkdir(parents=True)
  return folder


@pytest.fixture
def workdir(made, tmp_path):
  return pathlib.Path(shutil.copytree(made, tmp_path / 'run'))
