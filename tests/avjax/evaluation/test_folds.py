"""Tests that one command trains several folds and targets, and another gathers them.

The submission has the organisers' format.
"""

import csv
import json
import shutil

import numpy as np
import pytest
from fault.harness import TINY, call, fingerprint, flags, run

from avjax import main
from avjax.errors import InputError
from avjax.evaluation import protocol, results, submission
from avjax.training import loop, plan
from avjax.training.state import Diverged


@pytest.fixture(scope='module')
def runs(records, tmp_path_factory):
  """Trains folds 0 and 1 of both targets by one command, for one epoch each."""
  folder = tmp_path_factory.mktemp('runs') / 'grjca'
  done = run(
    *flags(folder, records, '--config.schedule.max_epochs=1', config=f'{TINY}:fold=0+1,target=both')
  )
  assert done.returncode == 0, done.stderr
  return folder, done.stdout


@pytest.mark.slow
def test_each_run_has_its_own_folder(runs, records, tmp_path):
  folder, out = runs
  names = ['arousal_fold0', 'arousal_fold1', 'valence_fold0', 'valence_fold1']
  assert sorted(path.name for path in folder.iterdir()) == names and out.count('best epoch 1') == 4
  for name in names:
    config = json.loads((folder / name / 'config.json').read_text())
    assert name == f'{config["targets"][0]}_fold{config["fold"]}'
  # One of them alone, as an array job runs it, is the same run.
  done = call(
    *flags(
      tmp_path / 'alone',
      records,
      '--config.schedule.max_epochs=1',
      config=f'{TINY}:fold=1,target=arousal',
    )
  )
  assert done.returncode == 0 and fingerprint(tmp_path / 'alone') == fingerprint(
    folder / 'arousal_fold1'
  )


def test_a_sequence_is_stopped_between_two_runs_and_goes_on_after_one_that_blew_up(
  monkeypatch, tmp_path
):
  trained, act = [], {}

  def train_one(config, workdir, stop):
    trained.append(workdir.name)
    act.get(workdir.name, lambda stop: None)(stop)
    return {}

  def blow_up(stop):
    raise Diverged('loss is not finite')

  monkeypatch.setattr(plan, 'prepare', lambda config, workdir: None)
  monkeypatch.setattr(loop, 'train', train_one)
  monkeypatch.setattr(results, 'summarize_run', lambda *arguments: '')
  words = [
    'main',
    '--config=configs/grjca.py:fold=0+1+2',
    f'--workdir={tmp_path}',
    '--config.data.dir=x',
  ]
  act['valence_fold1'] = lambda stop: stop._ask(15, None)  # a SIGTERM after its last batch
  assert main.main(words) == 0 and trained == ['valence_fold0', 'valence_fold1']
  trained.clear()
  act['valence_fold1'] = blow_up
  assert main.main(words) == 3 and trained == ['valence_fold0', 'valence_fold1', 'valence_fold2']
  trained.clear()
  act['valence_fold2'] = lambda stop: stop._ask(15, None)
  assert main.main(words) == 3  # what failed before the stop is not forgotten


def test_nothing_is_trained_if_the_last_run_would_be_refused(runs, records, tmp_path):
  folder = tmp_path / 'runs'
  (folder / 'arousal_fold1').mkdir(parents=True)
  (folder / 'arousal_fold1' / 'thesis.tex').write_text('mine')
  done = call(*flags(folder, records, config=f'{TINY}:fold=0+1,target=both'))
  assert (
    done.returncode == 2
    and 'arousal_fold1 is not empty' in done.stderr
    and len(done.stderr.splitlines()) == 1
  )
  assert [path.name for path in folder.iterdir()] == ['arousal_fold1']


def gather(folder, *arguments):
  return call('--runs', folder, *arguments, module='avjax.evaluate')


@pytest.mark.slow
def test_gathered(runs, tmp_path):
  """The table repeats the runs' own JSON, and the submission has the rows of its template.

  The submission is made from the best fold, and from the mean of the folds.
  """
  folder = shutil.copytree(runs[0], tmp_path / 'runs')
  (folder / 'valence_fold5').mkdir()
  shutil.copy(folder / 'valence_fold0' / 'config.json', folder / 'valence_fold5')
  template = tmp_path / 'template.txt'
  frames = [*range(1, 26), 26, 27]  # two more than the video has
  template.write_text(
    'image_location,valence,arousal\n' + ''.join(f'300/{k:05d}.jpg,,\n' for k in frames)
  )
  done = gather(folder, '--template', template)
  assert done.returncode == 0 and 'unfinished   valence_fold5' in done.stdout, done.stderr
  assert '27 rows, 2 beyond the end of a video, 0 frames not in the template' in done.stdout
  summary = json.loads((folder / 'summary.json').read_text())
  assert (folder / 'summary.md').read_text().strip() in done.stdout
  best, members = {}, {}
  for target in ('valence', 'arousal'):
    own = {
      f'{target}_fold{k}': json.loads(
        (folder / f'{target}_fold{k}' / 'results_validation.json').read_text()
      )[target]['ccc']
      for k in (0, 1)
    }
    values = np.array(list(own.values()))
    assert {name: row['ccc'] for name, row in summary[target]['runs'].items()} == own
    assert summary[target]['mean']['ccc'] == pytest.approx(values.mean(), abs=1e-12)
    assert summary[target]['spread']['ccc'] == pytest.approx(
      abs(values[0] - values[1]) / np.sqrt(2), abs=1e-12
    )
    best[target] = summary[target]['best']
    assert (
      own[best[target]] == values.max() and f'| {target} | {best[target]} (best) |' in done.stdout
    )
    members[target] = {}
    for name in own:
      with open(folder / name / 'predictions' / 'test' / '300.csv', newline='') as file:
        members[target][name] = [float(row[target]) for row in csv.DictReader(file)]
  for kind in ('best', 'mean'):
    rows = list(submission.read_rows(folder / f'submission_{kind}.txt'))
    assert [row[1] for row in rows] == [f'300/{k:05d}.jpg' for k in frames]
    for column, target in ((2, 'valence'), (3, 'arousal')):
      series = (
        members[target][best[target]]
        if kind == 'best'
        else np.mean(list(members[target].values()), axis=0)
      )
      np.testing.assert_allclose(
        [float(row[column]) for row in rows], [*series, series[-1], series[-1]], rtol=0, atol=1.1e-6
      )
  done = call(folder / 'submission_mean.txt', '--template', template, module='avjax.submission')
  assert done.returncode == 0 and 'is valid: 27 rows of 1 clips' in done.stdout

  # Predictions of other records do not stay.
  (folder / 'valence_fold0' / 'predictions' / 'test' / 'OLD.csv').write_text(
    'frame,time,valence\n1,0,0\n'
  )
  assert gather(folder, '--template', template).returncode == 0
  assert not (folder / 'valence_fold0' / 'predictions' / 'test' / 'OLD.csv').exists()

  template.write_text(template.read_text() + '301/00001.jpg,,\n')
  assert "clip '301'" in gather(folder, '--template', template).stderr
  damaged = shutil.copytree(folder, tmp_path / 'damaged')
  for path in (damaged / 'valence_fold1' / 'checkpoints' / 'last').rglob('metadata'):
    path.write_bytes(b'{')
  done = gather(damaged)
  assert done.returncode == 0 and 'unfinished   valence_fold1, valence_fold5' in done.stdout, (
    done.stderr
  )
  (folder / 'valence_fold1' / 'results_validation.json').rename(folder / 'kept')
  (folder / 'valence_fold1' / 'results_validation.json').write_text(
    '{"fold": 1, "best_epoch": 0, "valence": {}}'
  )
  done = gather(folder)
  assert (
    done.returncode == 2 and "it lacks 'ccc'" in done.stderr and len(done.stderr.splitlines()) == 1
  )
  (folder / 'kept').rename(folder / 'valence_fold1' / 'results_validation.json')
  versions = (folder / 'valence_fold1' / 'versions.json').read_text()
  (folder / 'valence_fold1' / 'versions.json').write_text(
    versions.replace('"records": "', '"records": "0')
  )
  done = gather(folder)
  assert (
    done.returncode == 2
    and 'different records' in done.stderr
    and len(done.stderr.splitlines()) == 1
  )
  (folder / 'valence_fold1' / 'versions.json').write_text(versions)
  config = json.loads((folder / 'valence_fold1' / 'config.json').read_text())
  config['model']['fusion']['recursions'] = 1
  (folder / 'valence_fold1' / 'config.json').write_text(json.dumps(config))
  done = gather(folder)
  assert (
    done.returncode == 2
    and 'model.fusion.recursions' in done.stderr
    and len(done.stderr.splitlines()) == 1
  )


@pytest.mark.parametrize('number', [10**400, float('inf'), -(10**20)])
def test_a_score_that_is_none(tmp_path, number):
  path = tmp_path / 'results_validation.json'
  scores = {'ccc': number, 'pcc': float('nan'), 'rmse': 0.5}
  path.write_text(json.dumps({'fold': 0, 'best_epoch': 3, 'valence': scores}))
  with pytest.raises(InputError, match='is damaged: it lacks a number of a size'):
    protocol.check_results(path)
  path.write_text(json.dumps({'fold': 0, 'best_epoch': 3, 'valence': {**scores, 'ccc': 0.5}}))
  assert protocol.check_results(path)['valence']['ccc'] == 0.5


def test_a_table_has_the_metrics_of_all_its_runs():
  """Runs of older versions have neither sign agreement nor bias."""
  old = {'ccc': 0.5, 'pcc': 0.6, 'rmse': 0.3}
  new = {**old, 'sagr': 0.9, 'bias': 0.1}

  def heads(*scores):
    results = [{'fold': k, 'best_epoch': 0, 'valence': row} for k, row in enumerate(scores)]
    summary = protocol.summarize({str(k): (None, row) for k, row in enumerate(results)})
    assert len({line.count('|') for line in protocol.table(summary).split('\n')}) == 1
    return protocol.table(summary).split('\n')[0].split(' | ')[3:-1]

  assert heads(new, new) == ['CCC', 'PCC', 'RMSE', 'SAGR', 'BIAS']
  assert heads(new, old) == heads(old) == ['CCC', 'PCC', 'RMSE']


def test_means_of_other_frames_are_none(tmp_path):
  """As after a test partition was evaluated on other records."""

  def predict(name, *frames):
    folder = tmp_path / name / 'predictions' / 'test'
    folder.mkdir(parents=True, exist_ok=True)
    lines = ['frame,time,valence,arousal', *(f'{frame},0,{value},.5' for frame, value in frames)]
    (folder / 'a.csv').write_text('\n'.join(lines) + '\n')

  summary = {target: {'runs': ['one', 'two']} for target in protocol.SUBMITTED}
  predict('one', (1, 0.25), (2, 0.5))
  predict('two', (1, 0.75), (2, 0.5))
  wanted = {'a': {1: (0.5, 0.5), 2: (0.5, 0.5)}}
  assert protocol.combine(tmp_path, summary, lambda found: found['runs']) == wanted
  predict('two', (1, 0.75), (3, 0.5))
  with pytest.raises(InputError, match='have predicted other frames of the test partition'):
    protocol.combine(tmp_path, summary, lambda found: found['runs'])


def test_what_cannot_be_gathered(tmp_path):
  with pytest.raises(InputError, match='no run that has ended'):
    protocol.gather(tmp_path, None)


@pytest.fixture
def valid(tmp_path):
  """A template of two clips and a submission that fits it."""
  places = [('a', 1), ('a', 2), ('b', 1)]
  path = tmp_path / 'submission.txt'
  submission.write(path, [(*place, 0.25, -0.5) for place in places])
  return path, places


def test_a_submission_in_full(valid):
  path, places = valid
  assert path.read_text() == (
    'image_location,valence,arousal\na/00001.jpg,0.250000,-0.500000\na/00002.jpg,0.250000,-0.500000\n'
    'b/00001.jpg,0.250000,-0.500000\n'
  )
  assert submission.check(path, places) == (3, 2)


@pytest.mark.parametrize(
  'old, new, words',
  [
    ('image_location,valence', 'image,valence', 'line 1: expected the header'),
    (
      'a/00002.jpg,0.250000,-0.500000\n',
      '',
      'line 3: b/00001.jpg, where the template has a/00002.jpg',
    ),
    ('b/00001.jpg,0.250000,-0.500000\n', '', 'ends too early: b/00001.jpg'),
    ('b/00001', 'a/00002', 'line 4: a/00002.jpg, where the template has b/00001.jpg'),
    (
      'a/00002.jpg,0.25',
      'a/00002.jpg,1.25',
      "line 3: valence '1.250000' is not a number between -1 and 1",
    ),
    (
      'a/00002.jpg,0.250000,-0.500000',
      'a/00002.jpg,0.250000,low',
      "line 3: arousal 'low' is not a number",
    ),
    ('a/00002.jpg,0.250000', 'a/00002.jpg,nan', "line 3: valence 'nan'"),
    ('a/00002.jpg,0.250000', 'a/00002.jpg,', "line 3: valence ''"),
    ('a/00002.jpg', f'a/{10**20}.jpg', "line 3: 'a/100000000000000000000.jpg' is not"),
    ('a/00002.jpg,0.250000', 'a/00002.jpg,' + '1' * 131_000 + 'x', 'line 3 has more than 4096'),
    ('a/00002.jpg,0.250000', 'a/00002.jpg,' + '1' * 4000 + 'x', "line 3: valence '1111"),
    ('a/00002.jpg', 'a/2.jpg', "line 3: 'a/2.jpg' is not <clip>/<00001>.jpg"),
    ('a/00002.jpg', 'a/000002.jpg', 'line 3: a/000002.jpg, where the template has a/00002.jpg'),
    ('a/00002.jpg,0.250000', 'a/00002.jpg, 0.25', "line 3: valence ' 0.25' is not a number"),
    ('a/00002.jpg,0.250000', 'a/00002.jpg,0_1', "line 3: valence '0_1' is not a number"),
    ('a/00002.jpg,', 'a/00002.jpg,0.1,', 'line 3: expected 3 columns, found 4'),
    (
      'b/00001.jpg,0.250000,-0.500000\n',
      'b/00001.jpg,0.250000,-0.500000\nb/00002.jpg,0,0\n',
      'line 5: b/00002.jpg, where the template has ended',
    ),
  ],
)
def test_a_submission_that_is_not_valid(valid, old, new, words):
  path, places = valid
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))
  with pytest.raises(InputError) as refused:
    submission.check(path, places)
  assert words in str(refused.value) and str(path) in str(refused.value)


def test_frames_and_clips_that_do_not_fit():
  predictions = {'a': {1: (0.1, 0.2), 2: (0.3, 0.4), 4: (0.5, 0.6)}}
  with pytest.raises(InputError, match="'a' has no prediction for frame 3"):
    submission.fit(predictions, [('a', 1), ('a', 2), ('a', 3)])
  with pytest.raises(InputError, match='for frame 35; its last one is for frame 4'):
    submission.fit(predictions, [('a', frame) for frame in (1, 2, 4, 34, 35)])
  rows, repeated, left_out = submission.fit(predictions, [('a', 1), ('a', 2)])
  assert rows == [('a', 1, 0.1, 0.2), ('a', 2, 0.3, 0.4)] and (repeated, left_out) == (0, 1)


def test_values_are_clipped(tmp_path):
  submission.write(tmp_path / 's', [('a', 1, 1.0000001, -3)])
  assert 'a/00001.jpg,1.000000,-1.000000' in (tmp_path / 's').read_text()
