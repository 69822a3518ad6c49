"""Tests in which type each part of a model computes, and where that is said."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from fault.harness import call, flags
from flax import traverse_util
from ml_collections import ConfigDict
from test_step import random_batch

from avjax.errors import InputError
from avjax.models.layers import Norm, PReLU, everything_trainable, nothing_trainable
from avjax.runs.folder import changed_keys
from avjax.system import System, steps
from avjax.training import optimizer
from avjax.training.plan import make_stages
from configs import grjca

TYPES = 'float32', 'bfloat16'


def make(towers, tower='ir50', config=None):
  config = config or tiny.get_config()
  config.model.visual.tower, config.precision.towers = tower, towers
  return config, System.from_config(config)


@pytest.mark.parametrize('tower', ['ir50', 'resnet50'])
def test_towers_in_bfloat16_predict_nearly_the_same(tower):
  """In the demo's model; fewer channels, as in the tiny one, average less of the rounding out."""
  found = {}
  for towers in TYPES:
    config, system = make(towers, tower, grjca.get_config('mini'))
    variables, batch = system.init(0), random_batch(config)
    batch['real'][1, -3:] = False
    features = jax.jit(system.encode)(variables, batch)
    assert [x.dtype for x in features] == [np.float32] * 2
    found[towers] = np.asarray(jax.jit(system.predict)(variables, batch)['prediction'])
  difference = np.abs(found['bfloat16'] - found['float32'])
  assert 0 < difference.max() <= 0.03 and np.sqrt(np.mean(difference**2)) <= 0.006


def products(lowered):
  """Returns (type of the result, precision) of each convolution and product of a program."""
  text = lowered.as_text()
  lines = re.findall(r'stablehlo\.(?:convolution|dot_general).*', text)
  assert lines
  found = []
  for line in lines:
    precision = re.search(r'precision(?:_config)? = \[(?:#stablehlo<precision )?(\w+)', line)
    kind = re.search(r'-> tensor<(?:\d+x)*(f32|bf16)>', line)
    found.append((kind[1], precision[1] if precision else 'DEFAULT'))
  return found


@pytest.mark.parametrize('towers', TYPES)
def test_products_of_towers_are_fast_and_those_behind_exact(towers):
  config, system = make(towers)
  whole = random_batch(config)
  batch = {name: whole[name] for name in system.inputs.fields}
  encode = products(jax.jit(system.encode).lower(system.shapes, batch))
  kind = {'float32': 'f32', 'bfloat16': 'bf16'}[towers]
  assert set(encode) == {(kind, 'DEFAULT')}
  features = jax.eval_shape(system.encode, system.shapes, batch)
  decode = products(jax.jit(system.decode).lower(system.shapes, *features, batch['real']))
  assert set(decode) == {('f32', 'HIGHEST')}


def test_what_is_trained_stays_float32():
  """Parameters, statistics, gradients and Adam's moments: bfloat16 would lose small updates."""
  config, system = make('bfloat16')
  variables, batch = system.init(0), random_batch(config)
  paths = steps.parameter_paths(variables['params'])
  last = make_stages(config, paths)[-1]
  chosen = optimizer.make_optimizer(last, config.optimizer)
  state = steps.make_state(variables, chosen)
  before = jax.tree.map(np.asarray, state.params)
  step = system.make_train_step(last, chosen)
  # A rate so small that bfloat16 would round every update away.
  after, metrics = step(state, batch, jax.random.key(0), np.float32(1e-6))
  types = {x.dtype for x in jax.tree.leaves(after) if jnp.issubdtype(x.dtype, jnp.floating)}
  assert types == {np.dtype(np.float32)} and np.isfinite(metrics['loss'])
  old = traverse_util.flatten_dict(before, sep='/')
  moved = [
    not np.array_equal(old[path], x)
    for path, x in traverse_util.flatten_dict(after.params, sep='/').items()
    if path.startswith(('visual/stage4', 'audio/fc')) and last(path) and path.endswith('kernel')
  ]
  assert moved and all(moved)


def test_norm_keeps_float32_statistics_of_bfloat16():
  """A sum of 4,096 numbers near 3 is off by more than a tenth in bfloat16."""
  x = jnp.asarray(np.random.default_rng(0).normal(3, 0.5, (4096, 2)), jnp.bfloat16)
  variables = Norm().init(jax.random.key(0), x, nothing_trainable)
  y, updated = Norm().apply(variables, x, everything_trainable, mutable=['batch_stats'])
  exact = np.asarray(x, np.float64)
  wanted = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(y, float), wanted, rtol=2**-8, atol=1e-5)
  running = updated['batch_stats']
  np.testing.assert_allclose(running['mean'], 0.1 * exact.mean(0), rtol=1e-6)
  np.testing.assert_allclose(running['var'], 0.9 + 0.1 * exact.var(0, ddof=1), rtol=1e-6)


def test_prelu_keeps_the_type():
  x = jnp.asarray([[-2.0, 3.0]], jnp.bfloat16)
  y, _ = PReLU().init_with_output(jax.random.key(0), x)
  assert y.dtype == jnp.bfloat16 and y.tolist() == [[-0.5, 3.0]]


@pytest.mark.parametrize('key', ['towers', 'rest'])
def test_a_type_that_there_is_not(key):
  config = tiny.get_config()
  config.precision[key] = 'float16'
  with pytest.raises(InputError, match=f'config.precision.{key}'):
    System.from_config(config)


@pytest.mark.slow
def test_a_run_in_bfloat16(records, tmp_path):
  """It trains, says so, is continued only with the same type, and is exported."""
  workdir, model = tmp_path / 'run', tmp_path / 'model'
  chosen = '--config.precision.towers=bfloat16', '--config.schedule.max_epochs=1'
  done = call(*flags(workdir, records, *chosen))
  assert done.returncode == 0, done.stderr
  assert 'device(s), towers in bfloat16' in (workdir / 'train.log').read_text()
  assert json.loads((workdir / 'config.json').read_text())['precision']['towers'] == 'bfloat16'
  done = call(*flags(workdir, records, chosen[1]))
  assert done.returncode == 2 and 'changed: precision.towers' in done.stderr
  done = call(workdir, '--output', model, module='avjax.export')
  assert done.returncode == 0, done.stderr
  card = (model / 'README.md').read_text()
  assert '- Precision: towers in bfloat16, the rest in float32.' in card


def test_a_run_that_is_older_than_the_setting():
  """Its towers computed in float32, and it is continued so."""
  new = tiny.get_config()
  old = {name: value for name, value in new.to_dict().items() if name != 'precision'}
  assert changed_keys(old, new.to_dict()) == []
  new.precision.towers = 'bfloat16'
  assert changed_keys(old, new.to_dict()) == ['precision.towers']
  assert System.from_config(ConfigDict(old)).model.tower_type == 'float32'
