"""Tests that the groups of every config cover its model, and that grjca.py is section 4.3."""

import difflib
import importlib
import subprocess
import sys

import jax
import pytest

from avjax.command_line import load_config
from avjax.config import expand, parse_argument
from avjax.errors import InputError
from avjax.evaluation.series import smoothing_widths
from avjax.models.fusion import FUSIONS
from avjax.runs.folder import changed_keys
from avjax.system import System, steps
from avjax.training.plan import check_ranges, make_stages
from configs import base, dca, finetune, grjca, ustc
from configs.golden.__main__ import CONFIGS, FOLDER, SYSTEMS, resolve

RENEW = 'If this is meant: python -m configs.golden, and look at the diff of configs/golden/.'


def parameters(config):
  return System.from_config(config).shapes['params']


@pytest.mark.parametrize('argument', ['', 'mini'])
@pytest.mark.parametrize('name', SYSTEMS)
def test_every_config(name, argument):
  config = importlib.import_module(f'configs.{name}').get_config(argument)
  assert config.model.fusion.name in FUSIONS
  # This raises unless every parameter is in one group.
  stages = make_stages(config, steps.parameter_paths(parameters(config)))
  # In the small size the visual tower has two groups, and only the audio tower three.
  faces_only = config.model.audio.tower == 'none'
  assert len(stages) == (2 if argument == 'mini' and faces_only else 3)
  reference = grjca.get_config(argument)
  # The protocol is the same for all.
  for section in ('data', 'schedule', 'crop', 'batch_size', 'targets'):
    assert config[section] == reference[section]


def test_every_config_has_its_golden_file():
  """There is no other file either: a removed system leaves no golden file behind."""
  assert sorted(path.stem for path in FOLDER.glob('*.json')) == CONFIGS, RENEW


@pytest.mark.parametrize('name', CONFIGS)
def test_every_config_is_its_golden_file(name):
  """No change to base.py changes the settings of a system unnoticed."""
  golden = (FOLDER / f'{name}.json').read_text().splitlines()
  resolved = resolve(name).splitlines()
  changes = [line for line in difflib.ndiff(golden, resolved) if line[0] in '+-']
  assert not changes, f'configs/{name}.py resolves to other settings. {RENEW}'


def test_a_config_is_short_and_loads_no_jax():
  """Each file has at most 25 lines, so that it is read quickly, and importing it loads no JAX."""
  for name in SYSTEMS:
    assert len((FOLDER.parent / f'{name}.py').read_text().splitlines()) <= 25, name
  imports = '; '.join(f'import configs.{name}' for name in CONFIGS)
  program = f'import sys, avjax.command_line; {imports}; sys.exit("jax" in sys.modules)'
  subprocess.run([sys.executable, '-c', program], cwd=FOLDER.parents[1], check=True)


def test_the_paper_s_settings():
  c = grjca.get_config()
  assert (c.data.face, c.crop, c.data.length, c.data.stride, c.batch_size) == (48, 40, 300, 200, 12)
  assert c.optimizer.weight_decay == 0.001 and not c.optimizer.rate_factors
  assert (c.schedule.rate_max, c.schedule.rate_min, c.schedule.factor, c.schedule.patience) == (
    1e-5,
    1e-8,
    0.1,
    5,
  )
  assert (c.schedule.warmup_epochs, c.schedule.max_epochs, c.schedule.reload_best) == (5, 100, True)
  assert c.model.fusion.to_dict() == {
    'name': 'grjca',
    'recursions': 3,
    'temperature': 0.1,
    'formulation': 'paper',
    'dropout': 0.6,
    'joint_fc': False,
  }
  assert c.model.head.to_dict() == {'name': 'mlp', 'hidden': 256}
  assert c.targets == ('valence',) and c.fold == 0
  assert grjca.get_config('target=arousal,fold=3').targets == ('arousal',)
  assert grjca.get_config('target=arousal,fold=3').fold == 3


@pytest.mark.parametrize(
  'target, wanted', [('valence', (20,)), ('arousal', (50,)), ('joint', (20, 50))]
)
def test_the_smoothing_of_dca(target, wanted):
  """Its authors average valence over 20 frames and arousal over 50; the paper smooths nothing."""
  config = dca.get_config(f'target={target},protocol=author')
  assert config.smooth == wanted
  check_ranges(config)
  assert dca.get_config(f'target={target}').smooth == 1


@pytest.mark.parametrize(
  'value, wanted', [('5', 5), ('4', 4), ('20,50', (20, 50)), ('(20,50)', (20, 50))]
)
def test_smoothing_from_the_command_line(value, wanted):
  config = load_config(['--config=configs/grjca.py:target=joint', f'--config.smooth={value}'])
  assert config.smooth == wanted
  check_ranges(config)


@pytest.mark.parametrize('value', ['0', '-3', '20,50,7', '20,0', '20,', '()'])
def test_smoothing_that_no_run_can_have(value):
  config = load_config(['--config=configs/grjca.py:target=joint', f'--config.smooth={value}'])
  with pytest.raises(InputError) as error:
    check_ranges(config)
  assert str(error.value) == (
    f'config.smooth {config.smooth!r} is out of range: it takes a number of frames, 1 to 1000000, '
    'or 2 of them, for valence and arousal'
  )


@pytest.mark.parametrize('value', ['2.5', 'abc', 'True'])
def test_a_type_that_a_setting_does_not_have(value):
  config = load_config(['--config=configs/grjca.py:target=joint', f'--config.smooth={value}'])
  with pytest.raises(InputError, match=rf'config.smooth {config.smooth!r} is not a whole number'):
    check_ranges(config)


def test_a_number_that_no_setting_has():
  config = load_config(['--config=configs/grjca.py:target=joint', f'--config.smooth={10**30}'])
  with pytest.raises(InputError, match=r'config.smooth is out of range: it takes 1000000 at most'):
    check_ranges(config)


@pytest.mark.parametrize('value', [7, (7,), [7]])
def test_smoothing_of_saved_configs(value):
  """A number, as in runs of version 0.2.0, is that of all targets."""
  assert smoothing_widths(value, ['arousal']) == [7]
  if value == 7:
    assert smoothing_widths(value, ['valence', 'arousal']) == [7, 7]


def test_the_system_is_described():
  """Model cards quote it; a config of one's own says what its docstring says, on one line."""
  assert ustc.get_config().system.startswith('USTC-IAT-United 2025, a reconstruction: multi-scale')
  names = {'__doc__': '  Mine,\tin one line.  \nMore.', 'base': base}
  exec('change = lambda config: None', names)
  assert base.get_config('', names['change']).system == 'Mine, in one line'
  names['__doc__'] = None
  assert base.get_config('', names['change']).system == base.get_config('').system == ''


def test_the_authors_protocol():
  """`protocol=author` sets every switch of docs/deviations.md at once, in every config.

  The config is otherwise the same.
  """
  for name in SYSTEMS:
    get_config = importlib.import_module(f'configs.{name}').get_config
    paper, author = get_config(), get_config('protocol=author')
    changed = {
      key
      for key in changed_keys(paper.to_dict(), author.to_dict())
      if not key.startswith('model.fusion.')
    }
    of_dca = {'smooth'} if name == 'dca' else set()
    assert changed == of_dca | {
      'loss.variance',
      'schedule.warmup',
      'schedule.release',
      'frozen_mode',
      'shuffle',
    }, name
  fusion = grjca.get_config('protocol=author').model.fusion
  assert (fusion.name, fusion.formulation, fusion.dropout, fusion.joint_fc) == (
    'grjca',
    'author',
    0.6,
    False,
  )


@pytest.mark.parametrize(
  'argument, runs',
  [
    ('mini,fold=2', ['mini,fold=2']),
    ('fold=0+3', ['fold=0', 'fold=3']),
    ('target=both', ['target=valence', 'target=arousal']),
    ('mini,fold=4+1', ['mini,fold=4', 'mini,fold=1']),
  ],
)
def test_an_argument_that_stands_for_several_runs(argument, runs):
  assert expand(argument) == runs


@pytest.mark.parametrize('argument', ['', 'mini'])
@pytest.mark.parametrize('name', SYSTEMS)
def test_fine_tuning_opens_towers_later(name, argument):
  """It is the system but for rates and groups: each stage trains the towers' groups of the last."""
  system = importlib.import_module(f'configs.{name}').get_config(argument)
  config = finetune.get_config(f'system={name},{argument}'.removesuffix(','))
  changed = changed_keys(system.to_dict(), config.to_dict())
  assert {key.split('.')[0] for key in changed} <= {'unfreezing', 'schedule', 'batch_size'}
  paths = steps.parameter_paths(parameters(config))
  towers = [path for path in paths if path.startswith(('visual/', 'audio/'))]
  before, stages = make_stages(system, paths), make_stages(config, paths)
  assert not any(map(stages[0], towers))
  for stage, earlier in zip(stages[1:], before, strict=False):
    assert [*map(stage, towers)] == [*map(earlier, towers)]
  for stage in stages:
    assert all(map(stage, {*paths} - {*towers}))


def test_fine_tuning_of_several_systems():
  """The system of the argument is GRJCA by default; a name that is none is refused in one line."""
  assert finetune.get_config('mini').system == grjca.get_config().system
  config = load_config(['--config=configs/finetune.py:target=arousal,system=rjca,fold=2'])
  assert (config.model.fusion.name, config.targets, config.fold) == ('rjca', ('arousal',), 2)
  for argument, words in (
    ('system=rjcca', "config argument system=rjcca: unknown; did you mean 'rjca'?"),
    ('system=base', 'config argument system=base: unknown'),
    ('system=../../x', 'config argument system=../../x: unknown'),
    ('systems=rjca', "unknown config argument 'systems'"),
  ):
    with pytest.raises(InputError) as refused:
      load_config([f'--config=configs/finetune.py:{argument}'])
    assert str(refused.value).startswith(f'configs/finetune.py: {words}')


def test_group_sizes():
  """The groups of the two towers have the sizes of the predecessors' index ranges.

  The towers have 37.3 M and 72.1 M parameters in all.
  """
  config = grjca.get_config()
  shapes = jax.tree_util.tree_flatten_with_path(parameters(config))[0]
  sizes = {'/'.join(key.key for key in path): leaf.size for path, leaf in shapes}
  stages = make_stages(config, sizes)

  def opened(stage, tower):
    before = stages[stage - 1] if stage else (lambda path: False)
    return sum(
      size
      for path, size in sizes.items()
      if path.startswith(f'{tower}/') and stages[stage](path) and not before(path)
    )

  unit = 2 * 9 * 256 * 256 + 256 + 2 * 2 * 256  # two convolutions, PReLU, two norms
  assert [opened(k, 'visual') for k in range(3)] == [6_556_160, 13_115_392, 3 * unit]
  assert [opened(k, 'audio') for k in range(3)] == [
    4096 * 128 + 128,
    4096 * 4096 + 4096,
    12288 * 4096 + 4096,
  ]
  # What is never trained: of IR-50, and the six convolutions of VGGish.
  frozen = sum(
    size for path, size in sizes.items() if path.startswith('visual/') and not stages[2](path)
  )
  assert frozen == 37_283_520 - 6_556_160 - 13_115_392 - 3 * unit
  kernels = 9 * (64 + 64 * 128 + 128 * 256 + 256 * 256 + 256 * 512 + 512 * 512)
  convolutions = kernels + 64 + 128 + 2 * 256 + 2 * 512
  assert (
    steps.parameter_count(parameters(config), lambda path: not stages[2](path))
    == frozen + convolutions
  )


@pytest.mark.parametrize('name', ['ir50', 'resnet50'])
def test_both_face_towers(name):
  config = grjca.get_config()
  config.model.visual.tower = name
  assert len(make_stages(config, steps.parameter_paths(parameters(config)))) == 3


@pytest.mark.parametrize(
  'argument, words',
  [
    ('minni', "did you mean 'mini'"),
    ('fold=6', '0, 1, 2, 3, 4, 5'),
    ('fold=x', 'fold takes'),
    ('fold', 'fold takes'),
    ('target=joy', 'valence, arousal, joint'),
    ('mini=3', 'no value'),
  ],
)
def test_bad_arguments(argument, words):
  with pytest.raises(InputError, match=words):
    parse_argument(argument)
