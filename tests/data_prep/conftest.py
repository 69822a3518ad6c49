import pathlib
import shutil

import pytest
from official_set import SIZES, make_official

from data_prep import build


@pytest.fixture(scope='session')
def official(tmp_path_factory):
  """The data set as it should be; tests that damage it use `broken`."""
  return make_official(tmp_path_factory.mktemp('affwild2'))


@pytest.fixture
def broken(official, tmp_path):
  """A copy of the data set for a test to damage."""
  return pathlib.Path(shutil.copytree(official, tmp_path / 'source'))


@pytest.fixture(scope='session')
def built(official, tmp_path_factory):
  """The folder of the records made from `official`, with windows of 12 frames every 8 and faces of
  16 pixels.
  """
  records = tmp_path_factory.mktemp('records')
  assert (
    build.main(['--source', str(official), '--data_dir', str(records), '--workers', '2', *SIZES])
    == 0
  )
  return records
