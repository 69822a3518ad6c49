"""Pages that follow from the code are of this code, and every file that a page links is there."""

import pathlib
import re

import pytest

from benchmarks import equations

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_every_equation_has_its_line():
  assert sorted(equations.places()) == list(range(1, 23))
  assert (ROOT / 'docs' / 'equations.md').read_text() == equations.page(), 'run python -m benchmarks.equations'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links(page):
  for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
    assert '://' in target or (page.parent / target).exists(), target


def test_every_row_of_the_ambiguities_is_there():
  rows = re.findall(r'^\| (\d+) \|', (ROOT / 'docs' / 'deviations.md').read_text(), re.M)
  assert list(map(int, rows)) == list(range(1, 55))


def test_the_switches_of_the_page_exist():
  """What docs/deviations.md names as a switch is a key of configs/grjca.py."""
  from avjax.config import flatten
  from configs import grjca
  known = flatten(grjca.get_config())
  for row in re.findall(r'^\| \d+ \|.*\| (.*?) \|$', (ROOT / 'docs' / 'deviations.md').read_text(), re.M):
    for switch in re.findall(r'`([a-z_.]+)`', row):
      if '.' in switch and not switch.startswith('submission'):
        assert any(key == switch or key.startswith(switch + '.') for key in known), switch
