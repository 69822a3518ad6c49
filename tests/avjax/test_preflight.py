"""Tests the command avjax.preflight: what it refuses, and what it says of the paper's systems."""

import json
import math
import os
import re

import pytest
from fault.harness import flags, one_line, run
from flax import traverse_util

from avjax.command_line import load_config
from avjax.preflight import TOO_LARGE
from avjax.system import System
from avjax.training import plan
from benchmarks.scale import CASES, FIGURES, OF_THE_PAPER, on_slice

try:
  import libtpu
except ImportError:
  libtpu = None
needs_libtpu = pytest.mark.skipif(
  libtpu is None, reason="compiles for TPUs: pip install 'avjax[tpu]', or make preflight"
)

# Sizes with which a system compiles within seconds.
SMALL = [
  '--config.data.length=12',
  '--config.data.stride=8',
  '--config.data.face=16',
  '--config.crop=12',
  '--config.model.visual.ir50.widths=(4,4,4,4)',
  '--config.model.visual.ir50.features=8',
  '--config.model.audio.widths=(8,8,2,2,2,2)',
  '--config.model.audio.features=8',
  '--config.model.temporal.visual=(8,)',
  '--config.model.temporal.audio=(4,)',
]


def preflight(*words, devices=None):
  """Returns (exit status, what --json prints) of the command in a process of its own."""
  count = f' --xla_force_host_platform_device_count={devices}' if devices else ''
  done = run(
    *words,
    '--json',
    module='avjax.preflight',
    env={'XLA_FLAGS': os.environ['XLA_FLAGS'] + count},
  )
  assert done.returncode in (0, TOO_LARGE), done.stderr
  return done.returncode, json.loads(done.stdout)


def exchanged(words):
  """Returns for each stage, by hand, bytes of (gradients, the least and the most that devices
  exchange beside them, frozen parameters).

  Beside the gradients of what is trained these are mean and variance of each norm that takes its
  statistics from the batch, and the gradients that go through them. XLA may add up the sums of the
  visual tower's last norm for every pixel, and there are numbers of frames, and the loss.
  """
  config = load_config(words)
  shapes = System.from_config(config).shapes
  parameters, statistics = (
    {path: 4 * math.prod(x.shape) for path, x in traverse_util.flatten_dict(tree, sep='/').items()}
    for tree in (shapes['params'], shapes['batch_stats'])
  )
  pixels = 4 * shapes['params']['visual']['output']['dense']['kernel'].shape[0]
  found = {}
  for i, trained in enumerate(plan.make_stages(config, list(parameters)), 1):
    gradients = sum(size for path, size in parameters.items() if trained(path))
    taken = sum(size for path, size in statistics.items() if trained(path))
    frozen = sum(parameters.values()) - gradients
    found[f'stage {i}'] = gradients, taken, 2 * taken + 2 * pixels + 256, frozen
  return found


def check(found, words):
  """Checks what the command says of a run on one device or several."""
  for name, row in found['programs'].items():
    assert row['fits'] and 0 < row['memory'] <= found['devices']['memory'], name
    if found['devices']['count'] == 1 or not row['trains']:
      assert not row['collectives'], name
  for stage, (gradients, least, most, frozen) in exchanged(words).items():
    row = found['programs'][stage]
    assert row['replicated'] and 0 < row['state'] < row['memory'], stage
    if found['devices']['count'] > 1:
      if found['devices']['kind'] == 'cpu':  # XLA counts the frames there for each channel
        most += 2 * least
      assert row['collectives'].keys() == {'all-reduce'}, stage
      assert least <= row['collectives']['all-reduce'][1] - gradients <= most, stage
      assert stage != 'stage 1' or frozen > most


@pytest.mark.slow
@pytest.mark.parametrize('name', OF_THE_PAPER)
def test_a_small_system_on_four_devices(name):
  """Of processors, which need no extra."""
  words = [f'--config=configs/{name}.py:mini', *SMALL]
  status, found = preflight(*words, '--batch=1x', devices=4)
  assert (status, found['devices']['count'], found['batch']) == (0, 4, 4)
  check(found, words)


@pytest.mark.slow
def test_a_run_finds_its_programs_compiled(records, tmp_path):
  """Those of the devices at hand: they are the very programs that training and validation call."""
  settings = {
    'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'compiled'),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
  }

  def programs():
    return {path.name for path in (tmp_path / 'compiled').glob('jit_*-cache')}

  words = flags(tmp_path / 'run', records, '--config.schedule.max_epochs=1')
  done = run(words[0], *words[2:], module='avjax.preflight', env=settings)
  assert done.returncode == 0 and len(done.stdout.splitlines()) > 10, done.stderr
  before = programs()
  assert run(*words, env=settings).returncode == 0
  new = {name.split('-')[0] for name in programs() - before}
  assert not new & {'jit_step', 'jit_encode', 'jit_decode'}


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize('topology', ['v5e:1x1', 'v5e:4x4'])
def test_a_small_system_on_tpus(topology):
  words = ['--config=configs/grjca.py:mini', *SMALL]
  status, found = preflight(*words, f'--topology={topology}', '--batch=12')
  assert (status, found['devices']['kind'], found['devices']['memory']) == (0, 'TPU v5 lite', 16e9)
  check(found, words)
  padded = [note for note in found['notes'] if 'padding' in note]
  assert bool(padded) == (topology == 'v5e:4x4')


@needs_libtpu
@pytest.mark.slow
def test_what_does_not_fit():
  words = ['--config=configs/grjca.py:mini', *SMALL, '--topology=v5e:1x1', '--batch=16384']
  status, found = preflight(*words)
  row = found['programs']['stage 3']
  assert (
    status == TOO_LARGE
    and not row['fits']
    and row['memory'] > found['devices']['memory'] > 16e9 - 1
  )
  assert any(note.startswith('stage 3 does not fit: it needs') for note in found['notes'])
  assert 'hours' not in found and 0 < found['largest_batch'] < 16384


@pytest.mark.parametrize('case', CASES)
def test_the_systems_of_the_paper_in_full_size(case):
  """As `make preflight` compiled them for docs/scale.md."""
  found = json.loads(FIGURES.read_text()).get(case)
  if not found:
    pytest.skip('docs/scale.json does not have it yet: make preflight')
  config, topology = case.split()[:2]
  check(found, [f'--config=configs/{config}.py'])
  assert found['devices']['count'] == math.prod(
    map(int, re.findall(r'\d+', topology.split(':')[1]))
  )


def test_a_slice_by_proportion():
  """For its own slice it is what was compiled, and for one chip within 2 % of that."""
  found = json.loads(FIGURES.read_text())
  compiled, alone = (found[f'grjca v5e:{sides} 12x'] for sides in ('4x4', '1x1'))
  for sides, wanted in (('4x4', compiled), ('1x1', alone)):
    one = on_slice(compiled, 'v5e', sides)
    near = 1e-9 if wanted is compiled else 0.02
    for name in ('hours', 'chip_hours', 'protocol_chip_hours', 'largest_batch'):
      assert one[name] == pytest.approx(wanted[name], rel=near), name
    assert (one['devices'], one['batch']) == (wanted['devices'], wanted['batch'])
    assert one['notes'] == wanted['notes']


BAD = {
  'a topology that is none': ['--topology=v5litepod-16'],
  'a topology of no such slice': ['--topology=v5e:3x3'],
  'a batch that is no number': ['--batch=many'],
  'a batch of none': ['--batch=0x'],
  'a batch without a number': ['--batch='],
  'a batch out of range': ['--batch=99999'],
  'a flag that is none': ['--topologi=v5e:4x4'],
  'a word too many': ['v5e:4x4'],
  'several runs': ['--config=configs/grjca.py:fold=all'],
  'no such config': ['--config=configs/no.py'],
  'a setting out of range': ['--config.schedule.factor=2.'],
  'records that are not there': ['--config.data.dir=nowhere'],
}


@pytest.mark.parametrize('words', BAD.values(), ids=BAD)
def test_a_mistake_is_one_line(words):
  if not any(word.startswith('--config=') for word in words):
    words = ['--config=configs/grjca.py', *words]
  done = run(*words, module='avjax.preflight')
  assert done.returncode == 2 and one_line(done.stderr), done.stderr
  assert not done.stdout


@pytest.mark.skipif(libtpu is not None, reason='libtpu is installed')
def test_without_libtpu():
  done = run('--config=configs/grjca.py', '--topology=v5e:4x4', module='avjax.preflight')
  assert done.returncode == 2 and one_line(done.stderr) and 'avjax[tpu]' in done.stderr
