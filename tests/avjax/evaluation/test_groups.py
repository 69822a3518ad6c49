"""Tests the file of groups, and scores by clip, subject and group against those of their frames."""

import json

import numpy as np
import pytest
from fault.harness import call, made_run, one_line
from hostile_records import copy_records, edit_manifest
from tiny import get_config

from avjax.data.dataset import Records
from avjax.errors import InputError
from avjax.evaluation import breakdown
from avjax.evaluation.groups import grouped, read_groups
from avjax.evaluation.postprocessing import Chain
from avjax.evaluation.results import score, score_in_detail
from avjax.evaluation.series import Series
from avjax.targets.metrics import METRICS

TARGETS = 'valence', 'arousal'
CLIPS = [f'clip{k:02d}' for k in range(24)]
SUBJECTS = {clip: f's{k // 2:02d}' for k, clip in enumerate(CLIPS)}


def make_series(seed=0):
  rng, found = np.random.default_rng(seed), {}
  for k, clip in enumerate(CLIPS):
    n = 40 + k
    labels = np.clip(rng.normal(size=2, scale=0.3) + rng.normal(size=(n, 2), scale=0.2), -1, 1)
    prediction = np.clip(labels + rng.normal(size=(n, 2), scale=0.2), -1, 1).astype(np.float32)
    yes = np.ones(n, bool)
    found[clip] = Series(
      np.arange(n) + 1, np.arange(n) / 25, prediction, labels, np.arange(n) > 3, yes, yes, {}
    )
  return found


def frames_of(series, clips, i):
  parts = [(series[c].prediction[4:, i], series[c].labels[4:, i]) for c in clips]
  return [np.concatenate(part) for part in zip(*parts, strict=True)]


def write(path, *lines):
  path.write_text('\n'.join(lines) + '\n')
  return path


@pytest.mark.parametrize('delimiter', [',', ';', '\t'])
def test_groups_of_clips_and_of_subjects(tmp_path, delimiter):
  lines = ['subject,sex,age', 's00,female,<30', 's01, male ,<30', '', 's02,"female",30-60']
  path = write(tmp_path / 'groups.csv', *(line.replace(',', delimiter) for line in lines))
  found = read_groups(path, CLIPS, SUBJECTS)
  assert found == {
    'sex': {'female': [*CLIPS[:2], *CLIPS[4:6]], 'male': CLIPS[2:4]},
    'age': {'<30': CLIPS[:4], '30-60': CLIPS[4:6]},
  }
  assert grouped(found) == set(CLIPS[:6])
  path = write(tmp_path / 'groups.csv', 'Name;SUBJECT;Sex;', 'clip03;s01;male;')
  assert read_groups(path, CLIPS, SUBJECTS) == {
    'subject': {'s01': ['clip03']}, 'sex': {'male': ['clip03']},
  }  # fmt: skip
  path = write(tmp_path / 'groups.csv', '\ufeffsite,name', 'Lyon,clip03')
  assert read_groups(path, CLIPS, {}) == {'site': {'Lyon': ['clip03']}}


@pytest.mark.parametrize(
  'lines, words',
  [
    ([''], 'line 1: expected a header with the names of the columns'),
    (['clip,sex', 'clip00,male'], 'line 1: .* and has clip,sex'),
    (['name', 'clip00'], 'line 1: the header has no column of groups after name'),
    (['name,sex,sex', 'clip00,male,male'], 'line 1: the header has two columns of one name'),
    (['name,sex'], 'has no rows below its header'),
    (['name,sex', 'clip00,male', 'clip99,male'], "line 3: the records have no clip 'clip99'"),
    (['subject,sex', 'clip00,male'], "line 2: the records have no subject 'clip00'"),
    (['name,sex', 'clip00,male', '', 'clip00,female'], "line 4: 'clip00' was in line 2 before"),
    (
      ['name,sex,age', 'clip00,male'],
      r'1 row has more or fewer cells than .*, line 2 \(2 cells\)',
    ),
    (['name,sex,age', 'clip00,,20'], 'line 2: sex is empty; .* such as unknown'),
    (['name,sex', 'clip00,\x1b[31m'], 'line 2: .* cannot be shown in a table'),
    (['name,sex', f'clip00,{"x" * 101}'], 'line 2: .* cannot be shown in a table'),
    (['name,,sex', 'clip00,a,b'], 'line 1: a column of the header has no name'),
  ],
)
def test_mistakes_in_the_groups(tmp_path, lines, words):
  path = write(tmp_path / 'groups.csv', *lines)
  with pytest.raises(InputError, match=words) as caught:
    read_groups(path, CLIPS, SUBJECTS)
  assert len(str(caught.value).splitlines()) == 1 and f'{path}' in str(caught.value)


def test_subjects_that_the_records_do_not_name(tmp_path):
  path = write(tmp_path / 'groups.csv', 'subject,sex', 's00,male')
  with pytest.raises(InputError, match='the records name no subjects; give the column name'):
    read_groups(path, CLIPS, {})


def test_scores_are_broken_down():
  series = make_series()
  groups = {'sex': {'a': CLIPS[:11], 'b': [*CLIPS[11:23], 'of another partition']}}
  results = score_in_detail(series, TARGETS, SUBJECTS, groups=groups)
  plain = score(series, TARGETS)
  assert results['subjects'] == 12 and results['ungrouped'] == 1
  assert results['intervals']['unit'] == 'subject' and results['intervals']['units'] == 12
  assert {name: results[name] for name in ('clips', 'frames')} == {
    name: plain[name] for name in ('clips', 'frames')
  }
  for i, target in enumerate(TARGETS):
    found = results[target]
    assert plain[target].items() <= found.items()
    sets = {
      'clips': {clip: [clip] for clip in CLIPS},
      'subjects': {s: [c for c in CLIPS if SUBJECTS[c] == s] for s in SUBJECTS.values()},
    }
    for kind, members in sets.items():
      assert found[kind].keys() == members.keys()
      for name, clips in members.items():
        pair = frames_of(series, clips, i)
        expected = {metric: METRICS[metric](*pair) for metric in METRICS}
        assert found[kind][name] == {'clips': len(clips), 'frames': len(pair[0])} | expected
    for metric, mean in found['mean_over_clips'].items():
      assert mean == np.mean([row[metric] for row in found['clips'].values()])
    a, b = found['groups']['sex'].values()
    assert (a['clips'], a['subjects'], b['clips'], b['subjects']) == (11, 6, 12, 7)
    assert a['ccc'] == METRICS['ccc'](*frames_of(series, CLIPS[:11], i))
    assert b['bias'] == METRICS['bias'](*frames_of(series, CLIPS[11:23], i))
    assert a['intervals'] == b['intervals'] == {}  # too few subjects, though clips enough
    assert set(found['intervals']) == set(METRICS)
  json.dumps(results, allow_nan=False)


def test_subjects_are_drawn_as_a_whole():
  """Twelve subjects with two equal clips each have the intervals of the twelve clips alone."""
  series = make_series()
  twins = {name + twin: series[name] for name in CLIPS[:12] for twin in 'xy'}
  of_twins = score_in_detail(twins, TARGETS, {clip: clip[:-1] for clip in twins})
  alone = score_in_detail({name: series[name] for name in CLIPS[:12]}, TARGETS, {})
  apart = score_in_detail(twins, TARGETS, {})
  for target in TARGETS:
    for name, interval in of_twins[target]['intervals'].items():
      assert interval == pytest.approx(alone[target]['intervals'][name], abs=1e-12)
    low, high = alone[target]['intervals']['ccc']
    narrow_low, narrow_high = apart[target]['intervals']['ccc']
    assert narrow_high - narrow_low < 0.9 * (high - low)
  assert of_twins['intervals']['unit'] == 'subject' and alone['intervals']['unit'] == 'clip'
  some = score_in_detail(twins, TARGETS, {f'{CLIPS[0]}x': 'one'})
  assert some['intervals']['unit'] == 'subject or clip' and some['intervals']['units'] == 24


def test_one_clip_has_neither_intervals_nor_post_processing():
  one = {'clip00': make_series()['clip00']}
  results = score_in_detail(one, TARGETS, {})
  assert results['valence']['intervals'] == {} and 'post_processing' not in results['valence']
  one['clip00'].annotated[:] = False
  assert score_in_detail(one, TARGETS, {}) == {'clips': 0, 'frames': 0}


def test_another_partition_takes_the_parameters_of_the_validation_partition(tmp_path):
  series = make_series()
  validated = score_in_detail(series, TARGETS, {}) | {'best_epoch': 3, 'fold': 0}
  path = tmp_path / 'results_validation.json'
  path.write_text(json.dumps(validated))
  chains = breakdown.read_chains(path, 3, 0)
  assert chains.keys() == set(TARGETS) and isinstance(chains['valence'], Chain)
  assert breakdown.read_chains(path, 4, 0) == breakdown.read_chains(path, 3, 1) == {}
  assert breakdown.read_chains(tmp_path / 'none.json', 3, 0) == {}
  # Whatever the labels of the test partition are, its predictions become the same.
  test, other = make_series(1), make_series(1)
  for s in other.values():
    s.labels[:] = -s.labels
  for labelled in (test, other):
    found = score_in_detail(labelled, TARGETS, {}, chains=chains)['valence']['post_processing']
    assert found['parameters'] == chains['valence']._asdict()
    assert found['fitted'] == 'on the validation partition'
  assert 'post_processing' not in score_in_detail(test, TARGETS, {}, chains={})['valence']
  for damage in ('x', None, True, 1e300, [1]):
    validated['valence']['post_processing']['parameters']['scale'] = damage
    path.write_text(json.dumps(validated))
    with pytest.raises(InputError, match='results_validation.json is damaged'):
      breakdown.read_chains(path, 3, 0)


def test_subjects_of_the_manifest(records, tmp_path):
  layout = {'length': 12, 'stride': 8, 'face': 16}
  assert Records(records, layout).subjects == {}
  folder, _ = copy_records(records, tmp_path / 'records')
  edit_manifest(folder, lambda made: made.update(subjects={'200': 'anna'}))
  opened = Records(folder, layout)
  assert opened.subjects == {'200': 'anna'} and '200' in opened.clips
  for wrong in ({'201x': 'anna'}, {'200': '../x'}, {'200': 5}, ['200'], {'200': 'a\x1b[31m'}):
    edit_manifest(folder, lambda made, wrong=wrong: made.update(subjects=wrong))
    with pytest.raises(InputError, match=r'manifest.json is damaged: .*; copy it again'):
      Records(folder, layout)


@pytest.mark.slow
def test_the_command(records, tmp_path):
  folder, _ = copy_records(records, tmp_path / 'records')
  edit_manifest(folder, lambda made: made.update(subjects={'200': 'anna'}))
  config = get_config('target=joint')
  config.data.dir = str(tmp_path / 'records')
  run = made_run(tmp_path / 'run', config)
  groups = write(tmp_path / 'groups.csv', 'subject,sex & more', 'anna,f_1')

  def evaluate(*arguments):
    return call(run, '--groups', groups, '--latex', latex, *arguments, module='avjax.evaluate')

  latex = tmp_path / 'thesis.tex'
  latex.write_text('mine')
  done = evaluate()
  assert done.returncode == 2 and one_line(done.stderr) and 'is not a table of avjax' in done.stderr
  assert latex.read_text() == 'mine' and not (run / 'results_validation.json').exists()
  latex = tmp_path / 'table.tex'
  for _ in '12':  # a table of its own is replaced
    done = evaluate('--report')
    assert done.returncode == 0, done.stderr
  assert 'valence by sex & more' in done.stdout and '1 clips of 1 subjects' in done.stdout
  assert r'sex \& more' in latex.read_text() and r'f\_1' in latex.read_text()
  results = json.loads((run / 'results_validation.json').read_text())
  group = results['arousal']['groups']['sex & more']['f_1']
  assert group['ccc'] == results['arousal']['ccc'] and group['subjects'] == 1
  assert 'sex &amp; more' in (run / 'report.html').read_text()
  write(groups, 'name,sex', '300,female')
  done = evaluate()
  assert done.returncode == 2 and 'no row for a clip of the validation partition' in done.stderr
  done = evaluate('--split', 'test')
  assert done.returncode == 2 and 'no frame of the test partition is annotated' in done.stderr
  done = call('--runs', tmp_path, '--groups', groups, module='avjax.evaluate')
  assert done.returncode == 2 and one_line(done.stderr)
