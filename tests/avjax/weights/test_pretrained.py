"""The weights that a run starts from."""

import json
import pathlib

import ml_dtypes
import numpy as np
import pytest
import tiny
from fault.harness import call, flags
from flax import traverse_util

from avjax.errors import InputError
from avjax.system import System
from avjax.training.plan import check_ranges
from avjax.weights import files as weight_files
from avjax.weights.initialize import describe_origins, initialize


@pytest.fixture(scope='module')
def start():
  """(config, variables) of tests/support/tiny.py."""
  config = tiny.get_config()
  return config, System.from_config(config).init(0)


ORIGIN = {'source': 'made.pth', 'source_sha256': '12345678' * 8, 'licence': 'none'}


def tower_file(path, variables, tower, architecture, change=lambda arrays: arrays, origin=ORIGIN):
  flat = traverse_util.flatten_dict(variables, sep='/')
  arrays = {
    name.replace(f'/{tower}/', '/', 1): np.asarray(x) + 0.5
    for name, x in flat.items()
    if name.split('/')[1] == tower
  }
  weight_files.save(path, change(arrays), {'architecture': architecture, **origin})
  return str(path)


def test_init_replaces_the_towers_it_names_and_nothing_else(start, tmp_path):
  config, variables = start
  config = config.copy_and_resolve_references()
  config.init.visual = tower_file(tmp_path / 'v.safetensors', variables, 'visual', 'ir50')
  config.init.audio = tower_file(tmp_path / 'a.safetensors', variables, 'audio', 'vggish')
  found, origins = initialize(config, variables)
  before, after = (traverse_util.flatten_dict(tree, sep='/') for tree in (variables, found))
  assert before.keys() == after.keys()
  for name, x in before.items():
    np.testing.assert_array_equal(
      after[name], x + (0.5 if name.split('/')[1] in ('visual', 'audio') else 0)
    )
  assert list(describe_origins(config, origins)) == [
    'visual tower: ir50 from made.pth, SHA-256 12345678',
    'audio tower: vggish from made.pth, SHA-256 12345678',
  ]
  assert next(iter(describe_origins(config, {}))) == 'visual tower: random weights'


@pytest.mark.parametrize(
  'part, architecture, change, words',
  [
    ('visual', 'vggish', dict, 'holds vggish, but config.init.visual takes ir50'),
    ('visual', 'resnet50', dict, 'holds resnet50, but'),
    (
      'audio',
      'vggish',
      lambda arrays: dict(list(arrays.items())[1:]),
      r'1 of 18 arrays differ \(params/audio/\S+ is missing',
    ),
    (
      'visual',
      'ir50',
      lambda arrays: arrays | {'params/stage9/x': np.zeros(2, np.float32)},
      "visual/stage9/x' is not in",
    ),
    (
      'visual',
      'ir50',
      lambda arrays: {name: x[..., :1] for name, x in arrays.items()},
      'arrays differ',
    ),
    (
      'visual',
      'ir50',
      lambda arrays: {name: x.astype(np.float16) for name, x in arrays.items()},
      'is float16, not float32',
    ),
    (
      'visual',
      'ir50',
      lambda arrays: {name: x.astype(ml_dtypes.bfloat16) for name, x in arrays.items()},
      'is bfloat16, not',
    ),
    (
      'audio',
      'vggish',
      lambda arrays: {name: (100 * x).astype(np.int32) for name, x in arrays.items()},
      'is int32, not',
    ),
    (
      'visual',
      'ir50',
      lambda arrays: {name: x * np.float32('nan') for name, x in arrays.items()},
      'not finite',
    ),
    (
      'visual',
      'ir50',
      lambda arrays: {name: -x if name.endswith('/var') else x for name, x in arrays.items()},
      '/var has .* negative variance',
    ),
  ],
)
def test_init_is_strict(start, tmp_path, part, architecture, change, words):
  config, variables = start
  config = config.copy_and_resolve_references()
  config.init[part] = tower_file(tmp_path / 'w.safetensors', variables, part, architecture, change)
  with pytest.raises(InputError, match=words):
    initialize(config, variables)


@pytest.mark.parametrize('lacking', ORIGIN)
def test_init_says_where_it_comes_from(start, tmp_path, monkeypatch, lacking):
  config = start[0].copy_and_resolve_references()
  origin = {name: text for name, text in ORIGIN.items() if name != lacking}
  config.init.visual = tower_file(
    tmp_path / 'w.safetensors', start[1], 'visual', 'ir50', origin=origin
  )
  with pytest.raises(InputError, match=f'does not say its {lacking};'):
    initialize(config, start[1])
  with monkeypatch.context() as patched:  # as another program would write it
    patched.setattr(weight_files, 'check_printable', lambda *_: None)
    forged = origin | {lacking: 'x\n2026-01-01 audio tower: vggish from vggish.pth'}
    config.init.visual = tower_file(
      tmp_path / 'forged.safetensors', start[1], 'visual', 'ir50', origin=forged
    )
  with pytest.raises(InputError, match='unprintable characters') as refused:
    initialize(config, start[1])
  assert str(refused.value).isprintable()


def test_resnet50_s_projection_is_not_in_its_file(start, tmp_path):
  config = start[0].copy_and_resolve_references()
  config.model.visual.tower = 'resnet50'
  check_ranges(config)
  variables = System.from_config(config).init(0)
  config.init.visual = tower_file(
    tmp_path / 'v.safetensors',
    variables,
    'visual',
    'resnet50',
    lambda arrays: {name: x for name, x in arrays.items() if '/output/' not in name},
  )
  found, _ = initialize(config, variables)
  for leaf in ('kernel', 'bias'):
    assert (
      found['params']['visual']['output'][leaf] == variables['params']['visual']['output'][leaf]
    ).all()


@pytest.mark.slow
def test_a_run_that_starts_from_pretrained_towers(start, records, tmp_path):
  """A run that starts from pretrained towers names them in its log and in versions.json.

  The first steps train them, and a bad file stops the run before it begins.
  """
  visual = tower_file(tmp_path / 'v.safetensors', start[1], 'visual', 'ir50')

  def run(workdir, *overrides):
    return call(*flags(workdir, records, '--config.schedule.max_epochs=1', *overrides))

  done = run(tmp_path / 'run', f'--config.init.visual={visual}')
  assert done.returncode == 0, done.stderr
  assert (
    'visual tower: ir50 from made.pth, SHA-256 12345678' in done.stderr
    and 'audio tower: random weights' in done.stderr
  )
  kept = json.loads((tmp_path / 'run' / 'versions.json').read_text())['init']
  assert kept['visual']['source'] == 'made.pth' and list(kept) == ['visual']
  data = bytearray(pathlib.Path(visual).read_bytes())
  data[-1] ^= 1
  pathlib.Path(visual).write_bytes(data)
  for overrides, words in (
    ([f'--config.init.visual={visual}'], 'is damaged'),
    (['--config.init.audio=nowhere.safetensors'], 'nowhere.safetensors does not exist'),
    (['--config.init.audio=a', '--config.init.model=b'], 'config.init.model is the whole model'),
  ):
    done = run(tmp_path / 'refused', *overrides)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, (
      done.stderr
    )
    assert not (tmp_path / 'refused').exists()
  # The run that is there goes on from its own state, whatever has become of the file.
  done = run(tmp_path / 'run', f'--config.init.visual={visual}')
  assert done.returncode == 0 and 'resumed after 1 epochs' in done.stderr
