"""The command line of avjax.main: which runs it stands for, and what it says of mistakes."""

import pathlib
import re
import shlex
import subprocess

import pytest

from avjax import command_line
from avjax.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize('words', [['--config=configs/grjca.py:fold=all,target=both'], ['--config', 'configs/grjca.py:target=both,fold=all']])
def test_the_twelve_runs_of_the_protocol(words):
  values, configs = command_line.parse(['main', *words, '--workdir=RUNS', '--config.data.dir=RECORDS', '--config.seed=3'])
  assert values.workdir == 'RUNS' and set(configs) == {f'{target}_fold{fold}' for fold in range(6) for target in ('valence', 'arousal')}
  for name, config in configs.items():
    assert name == f'{config.targets[0]}_fold{config.fold}' and config.seed == 3


@pytest.mark.parametrize('words, message', [
    (['--config=configs/grjca.py:fold=0+1', '--config.fold=3'], '--config.fold cannot be given'),
    (['--config=configs/grjca.py:target=both', "--config.targets=('valence',)"], '--config.targets cannot be given'),
    (['--config=configs/grjca.py:fold=0+0'], 'a fold or target twice'),
    (['--config=configs/grjca.py:fold=0+7'], "'fold=7': fold takes 0"),
    (['--config=configs/grjca.py', '--process=1'], 'need --coordinator')])
def test_command_lines_that_contradict_themselves(words, message):
  with pytest.raises(InputError, match=re.escape(message)):
    command_line.parse(['main', *words, '--workdir=RUNS', '--config.data.dir=RECORDS'])


@pytest.mark.parametrize('config', ['configs/grjca.py', 'configs/dca.py:protocol=author'])
def test_the_array_job_is_the_protocol(config):
  """Each of its twelve command lines is one that avjax takes, and together they are all folds of both targets."""
  done = subprocess.run(['bash', 'launch/slurm.sbatch', '--dry-run', config, 'RECORDS', 'RUNS', '--config.seed=3'], cwd=ROOT,
                        capture_output=True, text=True)
  seen = {}
  for line in done.stdout.splitlines():
    values, configs = command_line.parse(['main', *line.split('avjax.main ')[1].split()])
    seen[values.workdir] = (*configs[''].targets, configs[''].fold, configs[''].loss.variance, configs[''].seed)
  variance = 'mixed' if 'author' in config else 'biased'
  assert seen == {f'RUNS/{target}_fold{fold}': (target, fold, variance, 3) for fold in range(6) for target in ('valence', 'arousal')}


def test_the_other_launch_scripts_show_what_they_would_do():
  def dry(*words):
    return subprocess.run(['bash', *words], cwd=ROOT, capture_output=True, text=True)
  lines = dry('launch/multihost_cpu.sh', '--dry-run', '2', '4', '--config=configs/grjca.py', '--workdir=W', '--config.data.dir=R').stdout.splitlines()
  assert len(lines) == 2 and all('device_count=4' in line for line in lines)
  for i, line in enumerate(lines):
    assert command_line.parse(['main', *line.split('avjax.main ')[1].split()])[0].process == i
  for words in (('--dry-run', '0', '1', 'x'), ('two', '1', 'x'), ()):
    assert dry('launch/multihost_cpu.sh', *words).returncode == 2
  group = "--config.unfreezing.common.group2=('audio/fc1_2/',)"
  last = dry('launch/tpu_vm.sh', '--dry-run', 'name', 'zone', 'configs/grjca.py', '/mnt/r', '/mnt/w', group).stdout.splitlines()[-1]
  remote = shlex.split(shlex.split(last)[-1].removeprefix('--command='))
  assert remote[-1] == group and '--distributed' in remote


