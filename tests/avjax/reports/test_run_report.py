"""Tests the report of a run, as a file and in a browser."""

import json
import shutil
import types

import numpy as np
import pytest
from pages import FAINT, HOSTILE, assert_named, assert_policy_holds, in_browser, softmax
from tiny import get_config

from avjax.errors import InputError
from avjax.evaluation.results import score_in_detail
from avjax.reports import page_scores, plots, run_report, svg, templates

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
  results = {
    'partition': 'validation',
    'fold': 0,
    'best_epoch': 1,
    **score_in_detail(series, config.targets, {}),
  }
  rows = [
    {
      'step': 1,
      'epoch': e,
      'stage': 1 + e // 2,
      'rate': 10.0**-e,
      'train_loss': 2 - e,
      'event': '',
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
    for metric in ('ccc', 'pcc', 'rmse', 'sagr')
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
  results = {
    'partition': 'validation',
    'fold': 0,
    'best_epoch': 1,
    **score_in_detail(one, config.targets, {}),
  }
  run_report.write(tmp_path, config, results, one, **MODEL)
  text = (tmp_path / 'report.html').read_text()
  assert 'no metrics.jsonl' in text
  assert 'What the model trusted' not in text and 'Worst clips' not in text
  unlabelled = {'partition': 'test', 'frames': 0}
  with pytest.raises(InputError, match='annotated'):
    run_report.write(tmp_path, config, unlabelled, one, **MODEL)


@in_browser
@pytest.mark.parametrize('width', [360, 1400])
def test_scores_groups_and_subjects(chromium, reported, tmp_path, width):
  _, config, _, series = reported
  clips = {f'{clip}/{k}': s for k in range(4) for clip, s in series.items()}
  names = [*clips]
  subjects = {clip: f'subject {k // 2}' for k, clip in enumerate(names)}
  groups = {HOSTILE: {'many': names[:22], f'few {HOSTILE}': names[22:27]}}
  scores = score_in_detail(clips, config.targets, subjects, groups=groups)
  results = {'partition': 'validation', 'fold': 0, 'best_epoch': 1, **scores}
  (tmp_path / 'versions.json').write_text('{}')
  run_report.write(tmp_path, config, results, clips, **MODEL)
  chromium.emulate(width)
  chromium.open(tmp_path / 'report.html')

  def rows(table):
    return chromium.evaluate(
      f'[...document.querySelectorAll("{table} tbody tr")]'
      '.map(row => [...row.cells].map(cell => cell.textContent.trim()))'
    )

  def shown(value, interval=()):
    return page_scores.number(value) + ' to '.join(map(page_scores.number, interval))

  for target, row in zip(config.targets, rows('#scores'), strict=True):
    found = results[target]
    post = found['post_processing']
    assert row[:6] == [target] + [
      shown(found[name], found['intervals'][name])
      for name in ('ccc', 'pcc', 'rmse', 'sagr', 'bias')
    ]
    assert row[6:-1] == [shown(found['mean_over_clips']['ccc'])] + [
      shown(ccc) for ccc in [*post['ccc'].values()][:-1]
    ]
    assert row[-1] == shown(post['ccc']['shift'], post['interval'])
  of_groups = rows('.groups')
  assert [row[0] for row in of_groups] == [f'few {HOSTILE}', 'many'] * 2
  few, many = results['arousal']['groups'][HOSTILE].values()
  assert of_groups[3] == ['many', '22', '11', '990'] + [
    shown(many[name], many['intervals'][name]) for name in ('ccc', 'bias', 'rmse')
  ]
  assert of_groups[2] == [f'few {HOSTILE}', '5', '3', '225'] + [
    f'{shown(few[name])}too few for an interval' for name in ('ccc', 'bias', 'rmse')
  ]
  assert chromium.evaluate('document.querySelectorAll(".groups svg").length') == 12
  assert [row[0] for row in rows('#subjects')] == sorted(set(subjects.values()))
  assert rows('#subjects')[0][1:4] == [
    '2',
    '90',
    shown(results['valence']['subjects']['subject 0']['ccc']),
  ]
  text = chromium.evaluate('document.body.innerText')
  assert 'resamples of the 14 subjects' in text and 'in no group: 1' in text
  chromium.evaluate('document.querySelectorAll("details").forEach(e => { e.open = true; })')
  for dark in (False, True):
    chromium.emulate(width, dark=dark)
    assert chromium.evaluate('document.documentElement.scrollWidth') == width
    assert not chromium.evaluate(FAINT)
  assert_named(chromium)
  assert chromium.evaluate('window.hacked') is None and not chromium.errors


def test_bars_of_intervals():
  bar = svg.interval_bar(0, [-0.5, 0.5], -1, 1, reference=1)
  assert (bar.value, bar.reference) == ('M500 5h0', 'M1000 0v10')
  assert bar.interval == 'M250 5H750M250 2v6M750 2v6'
  assert svg.interval_bar(0.5, None, 0, 1, reference=0).interval == ''
  assert svg.interval_bar(np.nan, None, 0, 1, reference=0) is None
  assert svg.interval_bar(0, None, 0, 0, reference=0) is None


@in_browser
def test_texts_of_a_stranger_are_only_text(chromium, reported, tmp_path, monkeypatch):
  """What metrics.jsonl, config.json and versions.json hold comes into no element or attribute."""
  _, config, results, series = reported
  hostile = f'" onload="window.hacked = 1" style="x:y {HOSTILE} $\\frac$'
  rows = [{'epoch': e, 'stage': hostile * e, 'rate': 0.1, 'train_loss': 1} for e in range(3)]
  monkeypatch.setattr(run_report.History, 'history', lambda self: rows)
  config = config.copy_and_resolve_references()
  with config.ignore_type():
    config.fold = config.model.fusion.name = config.system = hostile
  clips = {hostile + clip: s for clip, s in series.items()}
  results = {
    **results,
    'fold': hostile,
    'partition': hostile,
    **score_in_detail(clips, config.targets, {}),
  }
  (tmp_path / 'versions.json').write_text(json.dumps({hostile: hostile}))
  run_report.write(tmp_path, config, results, clips, **MODEL)
  chromium.emulate(1400)
  chromium.open(tmp_path / 'report.html')
  assert chromium.evaluate('window.hacked') is None and not chromium.errors
  counts = 'document.querySelectorAll("script, img, [onload], [style], [onerror]").length'
  assert chromium.evaluate(counts) == 1  # our own script
  assert hostile in chromium.evaluate('document.querySelector("h1").textContent')
  drawn = '[...document.querySelectorAll(".vertical")].map(e => e.textContent)'
  assert f'group {hostile} opens' in chromium.evaluate(drawn)
  assert ranking(chromium, 1)[0].startswith(hostile)


@in_browser
def test_nothing_that_is_put_into_the_report_takes_effect(chromium, reported, tmp_path):
  folder, *_ = reported
  shutil.copy(folder / 'report.html', tmp_path)
  chromium.emulate(1400)
  assert_policy_holds(chromium, tmp_path / 'report.html')
  before = ranking(chromium, 1)
  chromium.evaluate('document.querySelectorAll("#ranking button")[0].click()')
  assert ranking(chromium, 1) != before


def test_a_dollar_sign_in_a_name_is_no_formula_of_a_figure(reported, tmp_path):
  _, config, results, series = reported
  clips = {f'$\\frac$ {clip}': s for clip, s in series.items()}
  scores = {**results, **score_in_detail(clips, config.targets, {})}
  plots.traces(clips, scores, config.targets, tmp_path / 'traces.png')
  rows = [{'epoch': e, 'stage': '$\\frac$' * e, 'rate': 1, 'best_ccc': 0} for e in range(2)]
  plots.curves(rows, config.targets, tmp_path / 'curves.png')
  assert {path.name for path in tmp_path.iterdir()} == {'traces.png', 'curves.png'}


def test_figures_of_a_page_are_the_same_every_time_and_need_nothing_else():
  def draw():
    axes, rules = svg.page_axes(), templates.StyleRules()
    prediction = np.array([0, np.nan, 1, np.nan])
    plots.draw_trace(axes, np.arange(4), np.full(4, 0.5), prediction, 'arousal')
    drawing = svg.draw(axes, 'clip', rules, x_ticks=(0, 3), x_unit=' s', y_ticks=(-1, 0, 1))
    return drawing, rules.text()

  drawing, rules = draw()
  assert (drawing, rules) == draw()
  assert [text for _, text in drawing.words] == ['0 s', '3 s', f'{svg.MINUS}1', '0', '1']
  assert 'var(--arousal)' in rules and 'var(--muted)' in rules and '#' not in rules
  outlines = [outline for _, outline in drawing.paths]
  # Two frames between gaps, each a dot of the same line.
  assert sum(outline.count('h0M') for outline in outlines) == 1
  assert all(set(outline) <= set('MLh0123456789. z') for outline in outlines)
  assert not any(word in rules for word in ('url', 'http', '@', '<'))


def test_markers_become_dots_that_keep_their_shape():
  axes = svg.page_axes()
  plots.draw_loss(axes, [{'epoch': e, 'train_loss': loss} for e, loss in enumerate((2, None, 1))])
  drawing = svg.draw(axes, 'loss', templates.StyleRules())
  assert [outline[0] for kind, outline in drawing.paths if kind.startswith('dot ')] == ['M', 'M']


def test_numbers_along_an_axis_are_round():
  axes = svg.page_axes()
  axes.set_ylim(-0.65, 0.7)
  assert svg.ticks(axes.yaxis, 7) == [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]


def test_an_axis_of_epochs_has_whole_numbers():
  axes = svg.page_axes()
  axes.set_xlim(0.5, 1.5)
  assert svg.ticks(axes.xaxis, 8, integer=True) == [1]
