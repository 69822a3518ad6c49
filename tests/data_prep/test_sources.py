"""Tests that a data source brings its own options and its own plan, unknown to build."""

import pytest
from official_set import SIZES

from avjax.data import manifest
from avjax.data.dataset import Records
from data_prep import build
from data_prep.sources import SOURCES, Source, register


@pytest.fixture
def second():
  """Registers a second source, whose clips are those of Aff-Wild2 in two splits."""

  @register('halves')
  class Halves(Source):
    """Two halves of the clips."""

    def add_options(self, parser):
      parser.add_argument(
        '--videos', type=int, required=True, help='how many clips are in the first half'
      )

    def plan(self, args):
      official = build.parse_args(['--source', str(args.source), '--data_dir', str(args.data_dir)])
      jobs = [job for members in SOURCES['affwild2'].plan(official).values() for job in members]
      return {'half0': jobs[: args.videos], 'half1': jobs[args.videos :]}

  yield
  del SOURCES['halves']


@pytest.mark.slow
def test_a_second_source_is_chosen_by_name(official, second, tmp_path, capsys):
  options = ['--source', str(official), '--data_dir', str(tmp_path), '--workers', '2', *SIZES]
  assert build.main([*options, '--layout', 'halves', '--videos', '2']) == 0
  chunks = manifest.read_manifest(tmp_path)['chunks']
  assert list(chunks) == ['half0', 'half1'] and len(chunks['half0']['clips']) == 2
  assert Records(tmp_path, manifest.read_manifest(tmp_path)['layout']).fold(0) == (
    ('half0',),
    'half1',
  )
  with pytest.raises(SystemExit):
    build.parse_args([*options, '--layout', 'halves'])
  assert 'required: --videos' in capsys.readouterr().err


def test_help_shows_the_options_of_the_chosen_source(second, capsys):
  for layout, shown, hidden in (
    ('affwild2', '--test_list', 'how many'),
    ('halves', 'how many', '--test_list'),
  ):
    with pytest.raises(SystemExit):
      build.parse_args(['--layout', layout, '--help'])
    out = capsys.readouterr().out
    assert f'options of --layout {layout}' in out and shown in out and hidden not in out


def test_an_unknown_source_is_refused(capsys):
  with pytest.raises(SystemExit):
    build.parse_args(['--source', 'x', '--data_dir', 'y', '--layout', 'nothing'])
  assert "invalid choice: 'nothing'" in capsys.readouterr().err
