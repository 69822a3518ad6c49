"""Tests the report of a run, as a file and in a browser."""

import json
import types

import numpy as np
import pytest
from pages import FAINT, HOSTILE, assert_named, in_browser, softmax
from tiny import get_config

from avjax.errors import InputError
from avjax.evaluation.results import score
from avjax.reports import plots, run_report, svg

RATE = 25  # frames a second
MODEL = {'parameter_count': 12_345, 'has_input': np.logical_or}  # of face and audio


@pytest.fixture(scope='module')
def reported(tmp_path_factory):
  """Returns the folder of a run with a report, and the config, results and series in it."""
  folder = tmp_path_factory.mktemp('runs') / '<b>run'
  folder.mkdir()
  rng, config = np.random.default_rng(1), get_config('target=joint')
  series = {}
  for k, clip in enumerate(['1', '2', '10', HOSTILE.replace('/', '|'), 'b', 'c', 'd']):
    labels = np.clip(np.cumsum(rng.normal(size=(50, 2), scale=0.1), axis=0), -1, 1)
    there = np.arange(50) >= 5  # both face and sound
    prediction = np.clip(labels + rng.normal(size=(50, 2), scale=0.1 * k), -1, 1)
    gates = {name: softmax(rng.normal(size=(50, 3))) for name in ('audio', 'visual')}
    # `va` is what `score` calls the labels.
    series[clip] = types.SimpleNamespace(
      frames=np.arange(50) + 1,
      times=np.arange(50) / RATE,
      prediction=prediction,
      labels=labels,
      annotated=np.arange(50) < 45,
      face_present=there,
      audio_present=there,
      gates=gates,
    )
  results = {'partition': 'validation', 'fold': 0, 'best_epoch': 1, **score(series, config.targets)}
  rows = [
    {
      'step': 1,
      'epoch': e,
      'stage': 1 + e // 2,
      'rate': 10.0**-e,
      'train_loss': 2 - e,
      'validation_ccc_valence': 0.1 * e,
      'validation_ccc_arousal': 0.2,
    }
    for e in range(4)
  ]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (folder / 'versions.json').write_text(json.dumps({'avjax': '<i>0</i>', 'init': {}}))
  run_report.write(folder, config, results, series, **MODEL)
  return folder, config, results, series


def ranking(chromium, column):
  """Returns the texts of one column of the table of clips, from top to bottom."""
  return chromium.evaluate(
    '[...document.querySelectorAll("#ranking tbody tr")]'
    f'.map(row => row.cells[{column}].textContent)'
  )


@in_browser
def test_report_has_the_numbers_of_the_results(chromium, reported):
  folder, config, results, series = reported
  chromium.emulate(1400)
  chromium.open(folder / 'report.html')
  shown = chromium.evaluate('[...document.querySelectorAll(".score dd")].map(e => e.textContent)')
  assert shown == [
    run_report._number(results[target][metric])
    for target in config.targets
    for metric in ('ccc', 'pcc', 'rmse')
  ]
  facts = chromium.evaluate('[...document.querySelectorAll(".facts dd")].map(e => e.textContent)')
  assert facts == ['7', '315', '2', '0', '12,345']
  per_clip = results['arousal']['per_clip']
  assert dict(zip(ranking(chromium, 1), ranking(chromium, 3), strict=True)) == {
    clip: run_report._number(ccc) for clip, ccc in per_clip.items()
  }
  scores = np.concatenate([s.gates['visual'][5:] for s in series.values()])
  gates = chromium.evaluate(
    '[...document.querySelectorAll("#gates tbody tr")]'
    '.map(row => [...row.cells].map(cell => cell.textContent))'
  )
  assert [row[0] for row in gates][:4] == [
    'face: unattended',
    'face: recursion 1',
    'face: recursion 2',
    'voice: unattended',
  ]
  assert gates[1][2:4] == [f'{scores[:, 1].mean():.3f}', f'{scores[:, 1].std():.3f}']
  assert chromium.evaluate('window.hacked') is None
  assert chromium.evaluate('document.images.length') == 0 and not chromium.errors
  assert all(url.startswith('file:') for url in chromium.requests)


@in_browser
def test_ranks_sort(chromium, reported):
  folder, _, results, _ = reported
  chromium.emulate(1400)
  chromium.open(folder / 'report.html')
  valence, arousal = (results[target]['per_clip'] for target in ('valence', 'arousal'))
  means = {clip: valence[clip] + arousal[clip] for clip in arousal}
  assert ranking(chromium, 1) == sorted(means, key=means.get, reverse=True)
  chromium.evaluate('document.querySelectorAll("#ranking button")[1].focus()')
  for reverse, direction in ((True, 'descending'), (False, 'ascending')):
    chromium.key('Enter')
    assert ranking(chromium, 1) == sorted(valence, key=valence.get, reverse=reverse)
    assert ranking(chromium, 0) == [str(k) for k in range(1, 8)]
    assert chromium.evaluate(
      '[...document.querySelectorAll("[aria-sort]")].map(e => e.ariaSort)'
    ) == [direction]
  chromium.evaluate('document.querySelectorAll("#ranking button")[0].click()')
  assert [clip for clip in ranking(chromium, 1) if clip.isdigit()] == ['1', '2', '10']
  assert not chromium.errors


@in_browser
@pytest.mark.parametrize('width', [360, 1400])
def test_report_looks(chromium, reported, width):
  folder, *_ = reported
  chromium.emulate(width)
  chromium.open(folder / 'report.html')
  chromium.evaluate('document.querySelector("details").open = true')
  for dark in (False, True):
    chromium.emulate(width, dark=dark)
    assert chromium.evaluate('document.documentElement.scrollWidth') == width
    assert not chromium.evaluate(FAINT)
  assert_named(chromium)


def test_report_of_a_run_without_gates_or_epochs(reported, tmp_path):
  _, config, _, series = reported
  one = {'only': series['1']}
  one['only'].gates = {}
  (tmp_path / 'versions.json').write_text('{}')
  results = {'partition': 'validation', 'fold': 0, 'best_epoch': 1, **score(one, config.targets)}
  run_report.write(tmp_path, config, results, one, **MODEL)
  text = (tmp_path / 'report.html').read_text()
  assert 'no metrics.jsonl' in text
  assert 'What the model trusted' not in text and 'Worst clips' not in text
  unlabelled = {'partition': 'test', 'frames': 0}
  with pytest.raises(InputError, match='annotated'):
    run_report.write(tmp_path, config, unlabelled, one, **MODEL)


def test_figures_of_a_page_are_the_same_every_time_and_need_nothing_else():
  def draw():
    axes = svg.page_axes()
    prediction = np.array([0, np.nan, 1, np.nan])
    plots.draw_trace(axes, np.arange(4), np.full(4, 0.5), prediction, 'arousal')
    return svg.to_html(axes, '<clip>', x_ticks=(0, 3), x_unit=' s', y_ticks=(-1, 0, 1))

  figure = draw()
  assert figure == draw()
  assert 'aria-label="&lt;clip&gt;"' in figure
  assert f'{svg.MINUS}1</span>' in figure and '3 s</span>' in figure
  assert 'var(--arousal)' in figure and 'var(--muted)' in figure and '#' not in figure
  assert figure.count('h0M') == 1  # two frames between gaps, each a dot of the same line
  assert not any(word in figure for word in ('id=', 'href', 'url(', 'http', '<image', '<style'))


def test_markers_become_dots_that_keep_their_shape():
  axes = svg.page_axes()
  plots.draw_loss(axes, [{'epoch': e, 'train_loss': loss} for e, loss in enumerate((2, None, 1))])
  figure = svg.to_html(axes, 'loss')
  assert figure.count('<path class="dot" d="M') == 2 and '<use' not in figure


def test_numbers_along_an_axis_are_round():
  axes = svg.page_axes()
  axes.set_ylim(-0.65, 0.7)
  assert svg.ticks(axes.yaxis, 7) == [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]


def test_an_axis_of_epochs_has_whole_numbers():
  axes = svg.page_axes()
  axes.set_xlim(0.5, 1.5)
  assert svg.ticks(axes.xaxis, 8, integer=True) == [1]
