"""Tests what the folder of a run that somebody else made can do: links, sizes, types."""

import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tiny
from fault.harness import call

from avjax import errors, files
from avjax.errors import InputError
from avjax.evaluation.results import find_predictions, write_predictions
from avjax.evaluation.series import Series
from avjax.runs import damage, history, settings
from avjax.runs import folder as run_folder
from avjax.runs.checkpoint import Checkpoints
from avjax.runs.history import History
from avjax.runs.load import load_best, load_system
from avjax.weights.initialize import read_model

pytestmark = pytest.mark.attack('runs: links, settings, metrics, checkpoints')

REFUSED = ', which avjax does not use inside '


@pytest.fixture
def theirs(tmp_path):
  """A person's folder of years, to which links lead."""
  folder = tmp_path / 'theirs'
  for year in ('2019', '2020', '2021'):
    (folder / year).mkdir(parents=True)
    (folder / year / 'photo.csv').write_text('mine')
  return folder


def contents(folder):
  return {path: path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def refused(module, *arguments):
  """Returns the one line with which a command refuses its arguments."""
  done = call(*arguments, module=module)
  assert done.returncode == 2 and done.stderr.count('\n') == 1, done.stderr
  return done.stderr


@pytest.mark.parametrize(
  'name',
  [
    'checkpoints',
    'checkpoints/last',
    'checkpoints/best',
    'checkpoints/best/1/state/d',
    'checkpoints/best/1/state/d/.x/y',
    'predictions/validation',
    'report.html',
    'traces_validation.png',
    'metrics.jsonl',
    'train.log',
    'config.json.partial',
    '.avjax-12345678.json',
  ],
)
def test_a_run_that_holds_a_link_is_refused_by_all_commands(workdir, theirs, tmp_path, name):
  path, before = workdir / name, contents(theirs)
  if path.is_dir():
    shutil.rmtree(path)
  path.unlink(missing_ok=True)
  path.parent.mkdir(exist_ok=True)
  path.symlink_to(theirs if not path.suffix else theirs / '2019' / 'photo.csv')
  records = f'--config.data.dir={tmp_path / "records"}'
  fork = [f'--config={tiny.__file__}', f'--workdir={tmp_path / "new"}', records]
  for module, arguments in (
    ('avjax.evaluate', [workdir, '--report']),
    ('avjax.evaluate', ['--runs', tmp_path]),
    ('avjax.export', [workdir, '--output', tmp_path / 'model']),
  ):
    assert f'error: {path} is a link{REFUSED}{workdir}' in refused(module, *arguments), module
  assert 'error:' in refused('avjax.main', *fork)
  for check in (
    lambda: run_folder.check_folder(tiny.get_config(), workdir, {}),
    lambda: run_folder.check_fork(tiny.get_config(), workdir),
  ):
    with pytest.raises(InputError, match=f'is a link{REFUSED}'):
      check()
  assert contents(theirs) == before


def test_a_pipe_in_place_of_a_file_is_refused(workdir):
  for name in (
    'config.json',
    'metrics.jsonl',
    'versions.json',
    'checkpoints/best/1/state/_METADATA',
  ):
    kept = (workdir / name).read_bytes()
    os.remove(workdir / name)
    os.mkfifo(workdir / name)
    assert 'is a named pipe, a device or a socket' in refused('avjax.evaluate', workdir)
    os.remove(workdir / name)
    (workdir / name).write_bytes(kept)
  load_best(workdir)


def test_the_search_for_a_right_that_is_missing_opens_no_pipe(tmp_path):
  os.mkfifo(tmp_path / 'pipe')
  damage.check_right_to_read(tmp_path)


def test_a_folder_in_place_of_a_file_is_said(tmp_path):
  for name in ('metrics.jsonl', 'report.html', 'train.log'):
    (tmp_path / name).mkdir()
  for name, work in {
    'metrics.jsonl': lambda: History(tmp_path, 0, primary=False).history(),
    'report.html': lambda: files.write_text(tmp_path / 'report.html', ''),
    'train.log': lambda: files.open_to_append(tmp_path / 'train.log'),
  }.items():
    with pytest.raises(InputError, match=f'/{name}: Is a directory; remove that folder'):  # noqa: SIM117
      with errors.writing('the output'):  # as every command has it
        work()


def test_a_run_may_be_reached_through_links(workdir, tmp_path):
  (tmp_path / 'link').symlink_to(workdir)
  load_best(tmp_path / 'link')


@pytest.mark.parametrize(
  'key, value, words',
  [
    ('fold', '<script>', "config.fold '<script>' is not a whole number"),
    ('fold', True, 'config.fold True is not a whole number'),
    ('system', {'a': 1}, 'config.system is a section, where there is none'),
    ('system', 'a\nb', r"config.system 'a\\nb' is not a text of one line"),
    ('smooth', 10**30, 'config.smooth is out of range: it takes 1000000 at most'),
    ('smooth', '<b>', 'smooth'),
    ('data.length', 10**9, 'config.data.length is out of range: it takes 10000 at most'),
    ('data.face', 200_000, 'config.data.face is out of range: it takes 1024 at most'),
    ('schedule.rate_max', float('nan'), 'config.schedule.rate_max nan is not a finite number'),
    ('schedule.rate_max', '1', "config.schedule.rate_max '1' is not a number"),
    ('targets', 'valence', "config.targets 'valence' is not a list"),
    ('model.visual.ir50.units', [10**6] * 4, 'it takes 100 at most'),
    ('model.temporal.visual', [8] * 1000, 'config.model.temporal.visual has 1000 values'),
    ('model.temporal.visual', [8] * 64, 'the model of the config cannot be built'),
    ('model.fusion.width', 10**9, 'config.model.fusion.width is out of range'),
    ('model.fusion.<b>', 1, "has a key 'model.fusion.<b>', which is no name of a setting"),
    ('unfreezing', [], r'config.unfreezing \[\] is not a section'),
  ],
)
def test_settings_that_are_none(workdir, key, value, words):
  """They are refused when the config is read, by whatever command, and name their file."""
  path = workdir / 'config.json'
  config = section = json.loads(path.read_text())
  *sections, last = key.split('.')
  for name in sections:
    section = section[name]
  section[last] = value
  path.write_text(json.dumps(config))
  with pytest.raises(InputError, match=words) as error:
    load_system(workdir)
  assert str(error.value).startswith(f'{path}: ')


def test_settings_of_all_systems_are_some():
  settings.check(settings.defaults())
  settings.check(json.loads((pathlib.Path(run_folder.__file__).parents[2] / OLD).read_text()))


OLD = 'tests/data/made_by_656e7a9/run/config.json'
OLD_MODEL = pathlib.Path(run_folder.__file__).parents[2] / 'tests/data/made_by_656e7a9/model'
LINE = {'step': 5, 'epoch': 0, 'stage': 1, 'rate': 0.1, 'train_loss': 1.0, 'event': ''}


@pytest.mark.parametrize(
  'changed',
  [
    {'stage': '<script>'},
    {'stage': 1.5},
    {'stage': -1},
    {'epoch': True},
    {'epoch': 10**30},
    {'event': '<b>'},
    {'event': []},
    {'train_loss': '1'},
    {'train_loss': float('inf')},
    {'validation_ccc': {'a': 1}},
    {'<b>': 1},
    {'rate': None},
  ],
)
def test_lines_of_metrics_that_are_none(tmp_path, changed):
  path = tmp_path / 'metrics.jsonl'
  lines = [LINE, {**LINE, 'epoch': 1, 'validation_pcc': float('nan')}]
  path.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  assert [line['epoch'] for line in History(tmp_path, 0, primary=False).history()] == [0, 1]
  path.write_text(json.dumps(LINE) + '\n' + json.dumps({**LINE, **changed}) + '\n')
  with pytest.raises(InputError, match='metrics.jsonl, line 2 is damaged'):
    History(tmp_path, 0, primary=False).history()


def test_more_epochs_than_a_run_has(tmp_path, monkeypatch):
  monkeypatch.setattr(history, 'MOST_LINES', 2)
  for count in (2, 3):
    (tmp_path / 'metrics.jsonl').write_text((json.dumps(LINE) + '\n') * count)
    if count == 2:
      assert len(History(tmp_path, 0, primary=False).history()) == 2
  with pytest.raises(InputError, match='metrics.jsonl has more than'):
    History(tmp_path, 0, primary=False).history()


def series(count=1):
  yes, zero = np.ones(count, bool), np.zeros((count, 1))
  return Series(np.arange(count) + 1, np.arange(count), zero, zero, yes, yes, yes, {})


def test_only_predictions_are_removed_from_predictions(tmp_path):
  write_predictions(tmp_path, {'old': series(), 'kept': series()}, ['valence'])
  (tmp_path / 'diary.csv').write_text('mine')
  (tmp_path / 'photo.csv').symlink_to(tmp_path / 'diary.csv')
  write_predictions(tmp_path, {'kept': series(2), 'photo': series()}, ['valence'])
  assert sorted(path.name for path in tmp_path.iterdir()) == ['diary.csv', 'kept.csv', 'photo.csv']
  assert (tmp_path / 'diary.csv').read_text() == 'mine'
  assert [path.stem for path in find_predictions(tmp_path)] == ['kept', 'photo']


def test_checkpoints_are_only_deleted_in_our_folders(workdir, theirs):
  """The commands refuse such a run before; what a save deletes is in the folder all the same."""
  before = contents(theirs)
  shutil.rmtree(workdir / 'checkpoints' / 'best')
  (workdir / 'checkpoints' / 'best').symlink_to(theirs)
  with pytest.raises(InputError, match=f'is a link{REFUSED}'):
    Checkpoints(workdir)
  assert contents(theirs) == before


def test_a_model_that_holds_a_link_is_refused(workdir, tmp_path):
  model = tmp_path / 'model'
  shutil.copytree(OLD_MODEL, model)
  (tmp_path / 'weights').write_bytes((model / 'weights.safetensors').read_bytes())
  os.remove(model / 'weights.safetensors')
  (model / 'weights.safetensors').symlink_to(tmp_path / 'weights')
  line = refused('avjax.export', '--check', model)
  assert f'error: {model}/weights.safetensors is a link{REFUSED}{model};' in line
  with pytest.raises(InputError, match=f'is a link{REFUSED}'):
    read_model(str(model / 'weights.safetensors'))
  read_model(str(tmp_path / 'weights'))  # only the folder of a model is looked at
