"""Tests the tables of scores: text for a terminal, and LaTeX."""

import re

import numpy as np
import pytest

from avjax.errors import InputError
from avjax.evaluation.results import score_in_detail
from avjax.evaluation.series import Series
from avjax.reports import tables

TARGETS = 'valence', 'arousal'
HOSTILE = r'[a] & \input{/etc/passwd} $x_1^2$ #~%{"<|>'


@pytest.fixture(scope='module')
def results():
  rng, yes, series = np.random.default_rng(0), np.ones(50, bool), {}
  for k in range(14):
    labels = np.clip(rng.normal(size=2, scale=0.3) + rng.normal(size=(50, 2), scale=0.2), -1, 1)
    prediction = labels + rng.normal(size=(50, 2), scale=0.2)
    series[f'c{k}'] = Series(
      np.arange(50) + 1, np.arange(50) / 25, prediction, labels, yes, yes, yes, {}
    )
  groups = {'site': {'Lyon': [*series][:10], HOSTILE: [*series][10:13]}}
  scores = score_in_detail(series, TARGETS, {}, groups=groups)
  return {'partition': 'validation', 'fold': 0, 'best_epoch': 1, **scores}


def test_a_terminal_shows_the_numbers_of_the_results(results):
  lines = tables.format_scores(results, TARGETS).splitlines()
  assert lines[0].split() == (
    ['CCC', 'CCC', 'interval', 'PCC', 'RMSE', 'SAGR', 'BIAS', 'clip', 'mean', 'post-processed']
  )
  for line, target in zip(lines[1:3], TARGETS, strict=True):
    found = results[target]
    low, high = found['intervals']['ccc']
    numbers = [found[name] for name in ('ccc', 'pcc', 'rmse', 'sagr', 'bias')]
    numbers[1:1] = [low, high]
    numbers += [found['mean_over_clips']['ccc'], found['post_processing']['ccc']['shift']]
    assert re.findall(r'-?\d\.\d{3}', line) == [f'{x:.3f}' for x in numbers]
    assert line.startswith(target)
  assert lines[3] == '700 frames of 14 clips'
  assert lines[4] == 'intervals: 95%, from 2,000 resamples of the 14 clips'
  assert lines[6].endswith('fitted without the clip that is scored')
  assert lines[-1] == 'clips in no group: 1'
  (few,) = [line for line in lines if line.startswith(HOSTILE)][:1]
  assert re.search(r' 3 +150 ', few) and few.count('too few') == 3
  assert max(map(len, lines)) < 150


def test_results_of_older_versions_and_of_few_clips(results):
  old = {'ccc': 0.5, 'pcc': 0.6, 'rmse': 0.3, 'per_clip': {}}
  text = tables.format_scores({'frames': 1234, 'clips': 2, 'valence': old}, ('valence',))
  assert text.split('\n') == [
    '               CCC     PCC    RMSE',
    'valence      0.500   0.600   0.300',
    '1,234 frames of 2 clips',
  ]
  few = {**results, 'intervals': {**results['intervals'], 'units': 3}}
  assert 'intervals: none, since 10 clips are needed and there are 3' in tables.notes(few, TARGETS)
  test = {**results, 'partition': 'test', 'valence': {**results['valence']}}
  del test['valence']['post_processing']
  assert any('evaluate that first' in note for note in tables.notes(test, ('valence',)))


def parse_latex(text):
  """Returns the cells of each tabular; fails for what LaTeX would not read.

  Comments and escapes are taken away first; then braces and environments must pair, a row must
  have as many cells as its table has columns, and nothing else may stand for a command.
  """
  text = re.sub(r'(?m)^%.*\n', '', text)
  plain = re.sub(r'\\[$&#_%{}]', 'x', text)
  depth = 0
  for character in plain:
    depth += {'{': 1, '}': -1}.get(character, 0)
    assert depth >= 0
  assert depth == 0 and not set('#_^~%') & set(plain) and plain.count('$') % 2 == 0
  known = {'begin', 'end', 'centering', 'caption', 'toprule', 'midrule', 'bottomrule', 'scriptsize'}
  known |= {f'text{name}' for name in ('backslash', 'less', 'greater', 'bar')}
  known |= {'textasciitilde', 'textasciicircum'}
  assert set(re.findall(r'\\([a-zA-Z]+)', plain)) <= known
  found = []
  for columns, body in re.findall(
    r'\\begin\{tabular\}\{(l r*|lr*)\}\n(.*?)\\end\{tabular\}', plain, re.DOTALL
  ):
    body = re.sub(r'\\(top|mid|bottom)rule\n', '', body)
    rows = [row.strip() for row in body.split(r'\\')]
    assert rows.pop() == '' and all(not row.startswith(('[', '*')) for row in rows)
    found.append([[cell.strip() for cell in row.split('&')] for row in rows])
    assert {len(row) for row in found[-1]} == {len(columns)}
  assert plain.count(r'\begin{table}') == plain.count(r'\end{table}') == len(found)
  return found


def test_latex(results, tmp_path):
  text = tables.latex(results, TARGETS)
  scores, valence, arousal = parse_latex(text)
  assert [row[0] for row in scores] == ['', 'valence', 'arousal']
  low, high = results['valence']['intervals']['rmse']
  rmse = results['valence']['rmse']
  assert scores[1][3] == rf'${rmse:.3f}$ {{\scriptsize $[{low:.3f}, {high:.3f}]$}}'
  assert [row[1] for row in valence] == ['clips', '10', '3'] and arousal[1][0] == 'Lyon'
  assert 'scriptsize' in valence[1][3] and 'scriptsize' not in valence[2][3]
  tables.write_latex(tmp_path / 'a.tex', results, TARGETS)
  tables.write_latex(tmp_path / 'a.tex', results, TARGETS)
  assert (tmp_path / 'a.tex').read_text() == text
  (tmp_path / 'a.tex').write_text('another')
  for path in (tmp_path / 'a.tex', tmp_path, tmp_path / 'none' / 'a.tex'):
    with pytest.raises(InputError, match='--latex'):
      tables.check_latex(path)
  with pytest.raises(InputError, match='a table needs annotations'):
    tables.latex({'frames': 0, 'partition': 'test'}, TARGETS)


def test_every_character_of_a_name_is_escaped():
  assert tables.escaped('[a] 50% & b_c') == r'{[}a{]} 50\% \& b\_c'
  assert tables.escaped('\\~^"') == r"\textbackslash{}\textasciitilde{}\textasciicircum{}''"
  assert tables.escaped('a\nb') == r'a\textbackslash{}nb'
