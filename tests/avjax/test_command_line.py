"""Tests the command line of avjax.main: which runs it stands for, and its error messages."""

import pathlib
import re
import shlex
import subprocess

import pytest

from avjax import command_line
from avjax.config import flatten
from avjax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


def parse(*words):
  """Parses a command line of a run of grjca.py, unless `words` has another --config."""
  more = ['--workdir=RUNS', '--config.data.dir=RECORDS']
  if not any(word.startswith('--config=') for word in words):
    more.append('--config=configs/grjca.py')
  return command_line.parse(['main', *more, *words])


def parse_one(*words):
  """Returns the config of a command line that stands for one run."""
  return parse(*words)[1]['']


@pytest.mark.parametrize(
  'words',
  [
    ['--config=configs/grjca.py:fold=all,target=both'],
    ['--config', 'configs/grjca.py:target=both,fold=all'],
  ],
)
def test_the_twelve_runs_of_the_protocol(words):
  more = ['--workdir=RUNS', '--config.data.dir=RECORDS', '--config.seed=3']
  values, configs = command_line.parse(['main', *words, *more])
  assert values.workdir == 'RUNS'
  targets = ('valence', 'arousal')
  assert set(configs) == {f'{target}_fold{fold}' for fold in range(6) for target in targets}
  for name, config in configs.items():
    assert name == f'{config.targets[0]}_fold{config.fold}' and config.seed == 3


@pytest.mark.parametrize(
  'words, message',
  [
    (['--config=configs/grjca.py:fold=0+1', '--config.fold=3'], '--config.fold cannot be given'),
    (
      ['--config=configs/grjca.py:target=both', "--config.targets=('valence',)"],
      '--config.targets cannot be given',
    ),
    (['--config=configs/grjca.py:fold=0+0'], 'a fold or target twice'),
    (['--config=configs/grjca.py:fold=0+7'], "'fold=7': fold takes 0"),
    (['--config=configs/grjca.py', '--process=1'], 'need --coordinator'),
    (['--config=configs/grjca.py', '--config=configs/dca.py'], 'already defined'),
  ],
)
def test_command_lines_that_contradict_themselves(words, message):
  with pytest.raises(InputError, match=re.escape(message)):
    parse(*words)


@pytest.mark.parametrize(
  'word, key, value',
  [
    ('--config.seed=3', 'seed', 3),
    ('--config.schedule.rate_max=1', 'schedule.rate_max', 1.0),
    ('--config.augment=false', 'augment', False),
    ('--noconfig.augment', 'augment', False),
    ('-config.resume=RUN', 'resume', 'RUN'),
    ('--config.targets=arousal', 'targets', ('arousal',)),
    ("--config.targets=('valence', 'arousal')", 'targets', ('valence', 'arousal')),
    ('--config.model.temporal.visual=()', 'model.temporal.visual', ()),
    (
      "--config.optimizer.rate_factors=(('fusion/', 0.1),)",
      'optimizer.rate_factors',
      (('fusion/', 0.1),),
    ),
  ],
)
def test_overrides_keep_the_type_of_a_setting(word, key, value):
  flat = flatten(parse_one(word))
  assert flat[key] == value and type(flat[key]) is type(value)
  assert sum(flat[other] != setting for other, setting in flatten(parse_one()).items()) == 1


def test_overrides_in_two_words_and_in_any_order():
  words = ['--config.seed', '3', '--config.model.temporal.visual=8', '--workdir=RUNS']
  words += ['--config.model.temporal.visual=9', '--config.data.dir=X', '--config', 'configs/dca.py']
  config = command_line.parse(['main', *words, '--config.data.dir=RECORDS'])[1]['']
  assert (config.seed, config.data.dir, config.model.fusion.name) == (3, 'RECORDS', 'dca')
  assert config.model.temporal.visual == (8, 9)  # a tuple is given at once, or an item a word


@pytest.mark.parametrize(
  'words, message',
  [
    (['--config.batch_size=three'], "'three'"),
    (['--config.batch_size=2.5'], "'2.5'"),
    (['--config.augment=maybe'], "'maybe'"),
    (['--config.seed'], 'Missing value for flag --config.seed'),
    (['--config.model=3'], "no key 'model'"),
    (['--noconfig.augmen'], "did you mean 'augment'"),
    (['--wokdir=3'], "unknown flag '--wokdir'; did you mean 'workdir'"),
    (['--processes=x'], "'x'"),
    (['more'], "unexpected argument 'more'"),
    (['--config='], 'no --config;'),
    (['--config.data.dir='], 'no --config.data.dir'),
    (['--workdir='], 'no --workdir'),
  ],
)
def test_mistakes(words, message):
  with pytest.raises(InputError, match=re.escape(message)):
    parse(*words)


def test_an_override_is_never_executed(tmp_path):
  call = f"__import__('pathlib').Path('{tmp_path}/made').touch()"
  assert parse_one(f'--config.targets={call}', f'--config.resume={call}').targets == (call,)
  for key in ('seed', 'augment', 'schedule.rate_max'):
    with pytest.raises(InputError):
      parse(f'--config.{key}={call}')
  assert not list(tmp_path.iterdir())


CONFIG = """
import dataclasses
from configs import lfan

@dataclasses.dataclass
class Chosen:
  argument: str = ''

def get_config(*argument):
  config = lfan.get_config('mini')
  config.resume = repr(Chosen(*argument))
  return config
"""


@pytest.mark.parametrize(
  'text, message',
  [
    ('import nothing_of_this_name', 'does not run: ModuleNotFoundError'),
    ('def get_config(:', 'does not run: SyntaxError'),
    ('def get_config():\n  return open("nothing")', 'does not run: FileNotFoundError'),
    ('x = 3', "does not run: AttributeError: module 'config_file' has no attribute 'get_config'"),
    ('def get_config():\n  return {"seed": 0}', 'get_config returns dict, not ConfigDict'),
  ],
)
def test_a_config_file_elsewhere(tmp_path, text, message):
  path = tmp_path / 'my config.txt'
  path.write_text(CONFIG)
  assert parse_one(f'--config={path}').resume == "Chosen(argument='')"
  assert parse_one(f'--config={path}:a=b:c').resume == "Chosen(argument='a=b:c')"
  path.write_text(text)
  with pytest.raises(InputError) as raised:
    parse(f'--config={path}')
  assert str(path) in str(raised.value) and message in str(raised.value)


def test_a_config_that_is_installed(tmp_path, monkeypatch):
  """configs/NAME.py is found from any folder; a file of that name in the folder comes first."""
  monkeypatch.chdir(tmp_path)
  assert parse_one('--config=configs/lfan.py').model.fusion.name == 'lfan'
  with pytest.raises(InputError, match=re.escape(f'{ROOT}/configs/lfan.py: unknown config')):
    parse('--config=configs/lfan.py:minni')
  for name in ('configs/nothing.py', 'lfan.py', 'configs', 'configs/' + 'n' * 300):
    with pytest.raises(InputError, match=f'cannot be read: {name}: No such file'):
      parse(f'--config={name}')
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'lfan.py').write_text(CONFIG)
  assert parse_one('--config=configs/lfan.py').resume == "Chosen(argument='')"


def test_a_config_without_a_run():
  """The conversion of published weights reads a config in this way."""
  words = ['--config=configs/lfan.py:mini', '--config.seed=3']
  config = command_line.load_config(words)
  assert (config.model.fusion.name, config.crop, config.seed) == ('lfan', 22, 3)
  for words, message in (
    (['--config=configs/lfan.py:fold=all'], 'describes 6 runs'),
    (['--config=configs/lfan.py', '--workdir=W'], "unknown flag '--workdir'"),
    (['--config=configs/lfan.py', '--config.sead=3'], "did you mean 'seed'"),
    ([], 'no --config'),
  ):
    with pytest.raises(InputError, match=re.escape(message)):
      command_line.load_config(words)


@pytest.mark.parametrize('config', ['configs/grjca.py', 'configs/dca.py:protocol=author'])
def test_the_array_job_is_the_protocol(config):
  """avjax takes each of its twelve command lines; together they are all folds of both targets."""
  words = ['--dry-run', config, 'RECORDS', 'RUNS', '--config.seed=3']
  seen = {}
  for line in dry_run('launch/slurm.sbatch', *words).stdout.splitlines():
    values, configs = command_line.parse(['main', *line.split('avjax.main ')[1].split()])
    one = configs['']
    seen[values.workdir] = (*one.targets, one.fold, one.loss.variance, one.seed)
  variance = 'mixed' if 'author' in config else 'biased'
  assert seen == {
    f'RUNS/{target}_fold{fold}': (target, fold, variance, 3)
    for fold in range(6)
    for target in ('valence', 'arousal')
  }


def test_the_other_launch_scripts_show_what_they_would_do():
  words = ['2', '4', '--config=configs/grjca.py', '--workdir=W', '--config.data.dir=R']
  lines = dry_run('launch/multihost_cpu.sh', '--dry-run', *words).stdout.splitlines()
  assert len(lines) == 2 and all('device_count=4' in line for line in lines)
  for i, line in enumerate(lines):
    values, _ = command_line.parse(['main', *line.split('avjax.main ')[1].split()])
    assert values.process == i
  for words in (('--dry-run', '0', '1', 'x'), ('two', '1', 'x'), ()):
    assert dry_run('launch/multihost_cpu.sh', *words).returncode == 2
  group = "--config.unfreezing.common.group2=('audio/fc1_2/',)"
  words = ['--dry-run', 'name', 'zone', 'configs/grjca.py', '/mnt/r', '/mnt/w', group]
  last = dry_run('launch/tpu_vm.sh', *words).stdout.splitlines()[-1]
  remote = shlex.split(shlex.split(last)[-1].removeprefix('--command='))
  assert remote[-1] == group and '--distributed' in remote


def dry_run(*words):
  """Runs a launch script, which with --dry-run prints what it would run."""
  return subprocess.run(['bash', *words], cwd=ROOT, capture_output=True, text=True)
