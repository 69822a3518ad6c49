"""Tests that the towers have sizes worked out by hand and the values of the oracle.

What frozen and trained norms do is tested too.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest

from avjax.models.layers import Norm, nothing_trainable
from avjax.models.towers.ir50 import IR50, UnitIR
from avjax.models.towers.resnet50 import Bottleneck, ResNet50
from avjax.models.towers.vggish import VGGish


@pytest.fixture
def rng():
  return np.random.default_rng(0)


def shapes(model, size, *arguments):
  """Returns the output of a model and its variables, as shapes."""
  x = jnp.zeros(size)
  return jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x, *arguments))


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def run(model, variables, x, *arguments, dtype=np.float64):
  return oracle.compute(
    jax.jit(lambda v, x: model.apply(v, x, *arguments)), variables, x, dtype=dtype
  )


def test_ir50_sizes():
  output, variables = shapes(IR50(), (2, 40, 40, 3), nothing_trainable)
  params = variables['params']
  assert output.shape == (2, 512)
  # conv 3*3*3*64 = 1,728, norm 2*64, PReLU 64.
  assert count(params['input']) == 1_728 + 128 + 64
  # A unit from a to b channels: norm 2a, conv 9ab, PReLU b, conv 9bb, norm 2b; if a != b, a
  # shortcut: conv ab, norm 2b.
  unit = lambda a, b: 2 * a + 9 * a * b + b + 9 * b * b + 2 * b + (a * b + 2 * b if a != b else 0)
  assert count(params['stage1']) == 3 * unit(64, 64) == 222_144
  assert count(params['stage2']) == unit(64, 128) + 3 * unit(128, 128) == 1_116_800
  assert count(params['stage3']) == unit(128, 256) + 13 * unit(256, 256) == 16_271_104
  assert count(params['stage4']) == unit(256, 512) + 2 * unit(512, 512) == 13_115_392  # group 2
  # Group 3: the last 3 of 14 units, 3 * 1,180,928.
  assert (
    count([params['stage3'][f'unit{i}'] for i in (11, 12, 13)]) == 3 * unit(256, 256) == 3_542_784
  )
  assert [len(params[f'stage{i}']) for i in (1, 2, 3, 4)] == [3, 4, 14, 3]
  # Group 1: norm 2*512, dense 5*5*512*512 + 512, norm 2*512.
  assert count(params['output']) == 1_024 + 6_554_112 + 1_024 == 6_556_160
  # The published 37,287,624 less its unused logits, 512*8 + 8.
  assert count(params) == 37_287_624 - 4_104 == 37_283_520
  # Never trained: 14.07 M.
  assert (
    count([params[k] for k in ('input', 'stage1', 'stage2', 'stage3')]) - 3_542_784 == 14_069_184
  )


def test_resnet50_sizes():
  output, variables = shapes(ResNet50(), (2, 40, 40, 3), nothing_trainable)
  params = variables['params']
  assert output.shape == (2, 512)
  # torchvision's 25,557,032 less its classifier, 2048*1000 + 1000; and the projection
  # 2048*512 + 512 on top.
  assert count(params['output']) == 1_049_088
  assert count(params) - 1_049_088 == 25_557_032 - 2_049_000 == 23_508_032
  assert [len(params[f'stage{i}']) for i in (1, 2, 3, 4)] == [3, 4, 6, 3]


def test_vggish_sizes():
  output, variables = shapes(VGGish(), (2, 96, 64))
  params = variables['params']
  assert output.shape == (2, 128)
  # 9ab + b for each convolution.
  convs = {
    'conv1': 640,
    'conv2': 73_856,
    'conv3_1': 295_168,
    'conv3_2': 590_080,
    'conv4_1': 1_180_160,
    'conv4_2': 2_359_808,
  }
  assert {name: count(params[name]) for name in convs} == convs
  assert count(params['fc1_1']) == 6 * 4 * 512 * 4096 + 4096 == 50_335_744  # group 3
  assert count(params['fc1_2']) == 4096 * 4096 + 4096 == 16_781_312  # group 2
  assert count(params['fc2']) == 4096 * 128 + 128 == 524_416  # group 1
  assert count(params) == sum(convs.values()) + 50_335_744 + 16_781_312 + 524_416 == 72_141_184


@pytest.mark.parametrize(
  'size', [6, 7]
)  # PyTorch's padding and XLA's SAME differ at stride 2 on even sizes
@pytest.mark.parametrize('channels, width, stride', [(3, 4, 2), (4, 4, 2), (4, 4, 1)])
def test_unit_ir(channels, width, stride, size, rng):
  model, x = UnitIR(width, stride), rng.normal(size=(2, size, size, channels))
  variables = oracle.draw(model, x, nothing_trainable)
  w, s = variables['params'], variables['batch_stats']
  assert ('shortcut_conv' in w) == (channels != width)
  np.testing.assert_allclose(
    run(model, variables, x, nothing_trainable), oracle.unit_ir(x, w, s, stride), rtol=0, atol=1e-10
  )


@pytest.mark.parametrize('channels, stride', [(3, 1), (3, 2), (8, 1), (8, 2)])
def test_bottleneck(channels, stride, rng):
  model, x = Bottleneck(2, stride), rng.normal(size=(2, 6, 6, channels))
  variables = oracle.draw(model, x, nothing_trainable)
  w, s = variables['params'], variables['batch_stats']
  assert ('shortcut_conv' in w) == (channels != 8 or stride != 1)
  expected = oracle.bottleneck(x, w, s, stride)
  np.testing.assert_allclose(
    run(model, variables, x, nothing_trainable), expected, rtol=0, atol=1e-10
  )


@pytest.mark.parametrize('tower, reference', [(IR50, oracle.ir50), (ResNet50, oracle.resnet50)])
def test_face_tower(tower, reference, rng):
  # Of 40 pixels a side 5 are left for the dense layer of IR-50, and 2 for the mean of ResNet-50.
  model, x = tower(5, (3, 4, 4, 6), (2, 1, 2, 1)), rng.uniform(-1, 1, (3, 40, 40, 3))
  variables = oracle.draw(model, x, nothing_trainable)
  expected = reference(x, variables['params'], variables['batch_stats'])
  actual = run(model, variables, x, nothing_trainable)
  assert np.abs(actual[0] - actual[1]).max() > 1e-3
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-10)
  np.testing.assert_allclose(
    run(model, variables, x, nothing_trainable, dtype=np.float32), expected, rtol=0, atol=2e-5
  )
  if tower is IR50:
    np.testing.assert_allclose(np.linalg.norm(actual, axis=1), 1, rtol=0, atol=1e-10)


def test_vggish(rng):
  model, x = VGGish(8, (2, 3, 2, 3, 2, 3), 5), rng.normal(size=(3, 96, 64))
  variables = oracle.draw(model, x)
  actual = run(model, variables, x)
  np.testing.assert_allclose(actual, oracle.vggish(x, variables['params']), rtol=0, atol=1e-10)
  assert (actual < -0.1).any()  # no ReLU at the end


def test_trained_norm(rng):
  x, mask = rng.normal(2, 3, (4, 5, 3)), rng.random((4, 5, 1)) < 0.6
  variables = oracle.draw(Norm(), x, nothing_trainable)
  w, s = variables['params'], variables['batch_stats']
  train = lambda v, x: Norm().apply(v, x, lambda path: True, mask, mutable=['batch_stats'])
  y, state = oracle.compute(train, variables, x)
  real = x[mask[..., 0]]  # (N,C)
  np.testing.assert_allclose(
    y, oracle.norm(x, w, {'mean': real.mean(0), 'var': real.var(0)}), rtol=0, atol=1e-10
  )
  for key, value in {
    'mean': real.mean(0),
    'var': real.var(0, ddof=1),
  }.items():  # PyTorch's running variance is unbiased
    np.testing.assert_allclose(
      state['batch_stats'][key], 0.9 * s[key] + 0.1 * value, rtol=0, atol=1e-10
    )


def test_only_the_norms_that_are_trained_move(rng):
  model, x = IR50(5, (3, 4, 4, 6), (1, 1, 2, 1)), np.float32(rng.uniform(-1, 1, (3, 16, 16, 3)))
  variables = oracle.draw(model, x, nothing_trainable)
  before = jax.tree.map(np.float32, variables['batch_stats'])

  def predictor(is_trainable):  # of a dropout key: the features, and the statistics afterwards
    apply = jax.jit(
      lambda v, x, key: model.apply(
        v, x, is_trainable, mutable=['batch_stats'], rngs={'dropout': key}
      )
    )
    return lambda seed: oracle.compute(
      lambda v, x: apply(v, x, jax.random.key(seed)), variables, x, dtype=np.float32
    )

  run = predictor(nothing_trainable)
  (y, state), (other_y, _) = run(0), run(1)
  jax.tree.map(np.testing.assert_array_equal, state['batch_stats'], before)  # bit for bit
  np.testing.assert_array_equal(other_y, y)  # a frozen dropout lets everything through

  run = predictor(
    lambda path: path in ('stage3/unit1/norm1', 'stage3/unit1/norm2', 'output/dropout')
  )
  (y, state), (other_y, _) = run(0), run(1)
  moved = jax.tree.map(lambda a, b: (a != b).all(), state['batch_stats'], before)
  still = jax.tree.map(lambda a, b: (a == b).all(), state['batch_stats'], before)
  assert all(jax.tree.leaves(moved['stage3']['unit1']))
  del still['stage3']['unit1']
  assert all(jax.tree.leaves(still)) and len(jax.tree.leaves(still)) > 10
  assert np.abs(other_y - y).max() > 1e-3


def test_padded_images_stay_out_of_the_statistics(rng):
  model, x = IR50(5, (3, 4, 4, 6), (1, 1, 1, 1), dropout=0.0), rng.uniform(-1, 1, (6, 16, 16, 3))
  mask = np.array([True, True, False, True, False, True])
  variables = oracle.draw(model, x, nothing_trainable)

  def train(x, mask):
    apply = lambda v, x: model.apply(v, x, lambda path: True, mask, mutable=['batch_stats'])
    return oracle.compute(jax.jit(apply), variables, x)

  y, state = train(x, mask)
  for other_y, other in (
    train(np.where(mask[:, None, None, None], x, 100), mask),
    train(x[mask], mask[mask]),
  ):
    np.testing.assert_allclose(
      other_y if len(other_y) == 4 else other_y[mask], y[mask], rtol=0, atol=1e-9
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), other, state)
