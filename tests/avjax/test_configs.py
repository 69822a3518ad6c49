"""Every config in configs/ describes a model whose parameters its groups cover; grjca.py is the paper's section 4.3."""

import importlib
import pathlib
import re
import shlex
import subprocess

import jax
import pytest

from avjax import command_line
from avjax.config import expand, parse_argument
from avjax.errors import InputError
from avjax.models.fusion import FUSIONS
from avjax.system import System, steps
from avjax.training.plan import make_stages
from benchmarks.systems import CONFIGS
from configs import grjca

ROOT = pathlib.Path(__file__).parents[2]


def parameters(config):
  return System.from_config(config).shapes['params']


@pytest.mark.parametrize('argument', ['', 'mini'])
@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_every_config(name, argument):
  config = importlib.import_module(f'configs.{name}').get_config(argument)
  assert config.model.fusion.name in FUSIONS
  stages = make_stages(config, steps.parameter_paths(parameters(config)))  # raises unless every parameter is in one group
  assert len(stages) == 3
  reference = grjca.get_config(argument)
  for section in ('data', 'schedule', 'crop', 'batch_size', 'targets'):  # the protocol, which is the same for all
    assert config[section] == reference[section]


def test_the_paper_s_settings():
  c = grjca.get_config()
  assert (c.data.face, c.crop, c.data.length, c.data.stride, c.batch_size) == (48, 40, 300, 200, 12)
  assert c.optimizer.weight_decay == 0.001 and not c.optimizer.rate_factors
  assert (c.schedule.rate_max, c.schedule.rate_min, c.schedule.factor, c.schedule.patience) == (1e-5, 1e-8, 0.1, 5)
  assert (c.schedule.warmup_epochs, c.schedule.max_epochs, c.schedule.reload_best) == (5, 100, True)
  assert c.model.fusion.to_dict() == {'name': 'grjca', 'recursions': 3, 'temperature': 0.1, 'formulation': 'paper', 'dropout': 0.6,
                                      'joint_fc': False}
  assert c.model.head.to_dict() == {'name': 'mlp', 'hidden': 256}
  assert c.targets == ('valence',) and c.fold == 0
  assert grjca.get_config('target=arousal,fold=3').targets == ('arousal',)
  assert grjca.get_config('target=arousal,fold=3').fold == 3


def test_the_authors_protocol():
  """Every switch of docs/deviations.md at once, in every config; the config is otherwise the same."""
  from avjax.runs.folder import changed_keys
  for name in CONFIGS:
    get_config = importlib.import_module(f'configs.{name}').get_config
    paper, author = get_config(), get_config('protocol=author')
    changed = {key for key in changed_keys(paper.to_dict(), author.to_dict()) if not key.startswith('model.fusion.')}
    assert changed == {'loss.variance', 'schedule.warmup', 'schedule.release', 'frozen_mode', 'shuffle'}, name
  fusion = grjca.get_config('protocol=author').model.fusion
  assert (fusion.name, fusion.formulation, fusion.dropout, fusion.joint_fc) == ('grjca', 'author', 0.6, False)


@pytest.mark.parametrize('argument, runs', [
    ('mini,fold=2', ['mini,fold=2']), ('fold=0+3', ['fold=0', 'fold=3']),
    ('target=both', ['target=valence', 'target=arousal']), ('mini,fold=4+1', ['mini,fold=4', 'mini,fold=1'])])
def test_an_argument_that_stands_for_several_runs(argument, runs):
  assert expand(argument) == runs


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


def test_group_sizes():
  """The sizes of each group of the two towers, from the predecessors' index ranges (37.3 M and 72.1 M in all)."""
  config = grjca.get_config()
  shapes = jax.tree_util.tree_flatten_with_path(parameters(config))[0]
  sizes = {'/'.join(key.key for key in path): leaf.size for path, leaf in shapes}
  stages = make_stages(config, sizes)

  def opened(stage, tower):
    before = stages[stage - 1] if stage else (lambda path: False)
    return sum(size for path, size in sizes.items() if path.startswith(f'{tower}/') and stages[stage](path) and not before(path))
  unit = 2 * 9 * 256 * 256 + 256 + 2 * 2 * 256  # two convolutions, PReLU, two norms
  assert [opened(k, 'visual') for k in range(3)] == [6_556_160, 13_115_392, 3 * unit]
  assert [opened(k, 'audio') for k in range(3)] == [4096 * 128 + 128, 4096 * 4096 + 4096, 12288 * 4096 + 4096]
  # What is never trained: of IR-50, and the six convolutions of VGGish.
  frozen = sum(size for path, size in sizes.items() if path.startswith('visual/') and not stages[2](path))
  assert frozen == 37_283_520 - 6_556_160 - 13_115_392 - 3 * unit
  convolutions = 9 * (64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512) + 64 + 128 + 2 * 256 + 2 * 512
  assert steps.parameter_count(parameters(config), lambda path: not stages[2](path)) == frozen + convolutions


@pytest.mark.parametrize('name', ['ir50', 'resnet50'])
def test_both_face_towers(name):
  config = grjca.get_config()
  config.model.visual.tower = name
  assert len(make_stages(config, steps.parameter_paths(parameters(config)))) == 3


@pytest.mark.parametrize('argument, words', [
    ('minni', "did you mean 'mini'"), ('fold=6', '0, 1, 2, 3, 4, 5'), ('fold=x', 'fold takes'), ('fold', 'fold takes'),
    ('target=joy', 'valence, arousal, joint'), ('mini=3', 'no value')])
def test_bad_arguments(argument, words):
  with pytest.raises(InputError, match=words):
    parse_argument(argument)
