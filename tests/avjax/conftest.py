"""Records in miniature: the official-layout set of data_prep's tests, built once."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / 'data_prep'))
from official_set import SIZES, make_official

from data_prep import build


@pytest.fixture(scope='session')
def records(tmp_path_factory):
  """The RECORDS folder of the little set, in the sizes of tiny.py."""
  source, folder = tmp_path_factory.mktemp('affwild2'), tmp_path_factory.mktemp('records')
  make_official(source)
  assert build.main(['--source', str(source), '--data_dir', str(folder), '--workers', '2', *SIZES]) == 0
  return folder
