"""Tests the TCN: its values, its receptive field, and weight normalisation."""

import jax
import numpy as np
import oracle
import pytest

from avjax.models.layers import nothing_trainable
from avjax.models.tcn import TCN, CausalConv

CHANNELS = 3


def inputs(length, clips=2):
  return np.random.default_rng(1).normal(size=(clips, length, CHANNELS))


def run(model, variables, x, dtype=np.float64):
  return oracle.compute(
    jax.jit(lambda v, x: model.apply(v, x, nothing_trainable)), variables, x, dtype=dtype
  )


@pytest.mark.parametrize('widths, kernel', [((4,), 5), ((CHANNELS,), 5), ((4, 4, 2), 3)])
def test_against_oracle(widths, kernel):
  model, x = TCN(widths, kernel), inputs(20)
  variables = oracle.draw(model, x, nothing_trainable)
  # A level has a residual convolution, with bias and without weight norm, only where the width
  # changes.
  changes = [
    i for i, pair in enumerate(zip((CHANNELS, *widths), widths, strict=False)) if pair[0] != pair[1]
  ]
  assert [i for i in range(len(widths)) if f'level{i}_residual' in variables['params']] == changes
  expected = [oracle.tcn(clip, variables['params'], len(widths)) for clip in x]
  np.testing.assert_allclose(run(model, variables, x), expected, rtol=0, atol=1e-12)
  np.testing.assert_allclose(run(model, variables, x, np.float32), expected, rtol=0, atol=1e-5)


def test_causal_with_a_receptive_field_of_121():
  # Each level has two convolutions of kernel 5 and dilation 2^i: 1 + 2 * 4 * (1 + 2 + 4 + 8) = 121.
  model, x = TCN((4, 4, 4, 4)), inputs(150, clips=1)
  variables = oracle.draw(model, x, nothing_trainable)
  touched = x.copy()
  touched[:, 7] += 1
  changed = (run(model, variables, touched) != run(model, variables, x)).any(axis=(0, 2))
  # Frame 7 matters to itself and to the 120 frames after it, to 127 but not to 128 = 7 + 121, and
  # to none before.
  assert np.flatnonzero(changed).tolist() == list(range(7, 128))


def test_every_frame_between_can_be_needed_by_the_last():
  model, x = TCN((4, 4, 4, 4)), inputs(140, clips=1)
  variables = oracle.draw(model, x, nothing_trainable, seed=2)
  last = lambda v, x: model.apply(v, x, nothing_trainable)[0, -1].sum()
  gradient = oracle.compute(jax.jit(jax.grad(last, argnums=1)), variables, x)
  assert np.flatnonzero(np.abs(gradient).max(axis=(0, 2))).tolist() == list(range(139 - 120, 140))


def test_padding_does_not_matter():
  model, x = TCN((4, 4)), inputs(20)
  variables = oracle.draw(model, x, nothing_trainable)
  expected = run(model, variables, x)
  spoiled = x.copy()
  spoiled[:, 13:] = 1e6
  np.testing.assert_array_equal(run(model, variables, spoiled)[:, :13], expected[:, :13])
  np.testing.assert_allclose(run(model, variables, x[:, :13]), expected[:, :13], rtol=0, atol=1e-12)


def test_weight_norm():
  model, x = CausalConv(4, 5, 2), inputs(20)
  params = oracle.draw(model, x)['params']
  conv = lambda params, x: oracle.compute(lambda p, x: model.apply({'params': p}, x), params, x)
  expected = conv(params, x)
  lengths = np.array([0.1, 1, 2, 30])  # one for each output channel
  same = conv(params | {'direction': lengths * params['direction']}, x)
  np.testing.assert_allclose(same, expected, rtol=0, atol=1e-12)
  scaled = conv(params | {'scale': lengths * params['scale']}, x)
  np.testing.assert_allclose(
    scaled - params['bias'], lengths * (expected - params['bias']), rtol=1e-12, atol=1e-12
  )


def test_the_weight_starts_as_the_direction():
  model, x = CausalConv(4, 5, 1), inputs(20)
  params = jax.tree.map(np.float64, model.init(jax.random.key(0), x.astype(np.float32)))['params']
  weight = params['direction']
  np.testing.assert_allclose(params['scale'], np.sqrt((weight**2).sum((0, 1))), rtol=1e-6)
  assert not params['bias'].any()
  # Xavier uniform with gain sqrt 2: limit sqrt(2) * sqrt(6 / (5 * 3 + 5 * 4)).
  assert 0.9 < np.abs(weight).max() / np.sqrt(2 * 6 / 35) <= 1


def test_dropout_only_where_trained():
  model, x = TCN((CHANNELS,), dropout=0.5), inputs(20)
  variables = oracle.draw(model, x, nothing_trainable)
  key = {'dropout': jax.random.key(3)}
  frozen = run(model, variables, x)
  trained = lambda is_trainable: oracle.compute(
    lambda v, x: model.apply(v, x, is_trainable, rngs=key), variables, x
  )
  np.testing.assert_allclose(
    trained(lambda path: 'dropout' not in path), frozen, rtol=0, atol=1e-12
  )
  # With the last dropout open, a value of the branch is lost, in half of all places, or doubled.
  w, residual = variables['params'], oracle.leaky_relu(x)
  branch = np.array(
    [
      oracle.leaky_relu(
        oracle.causal_conv(
          oracle.leaky_relu(oracle.causal_conv(clip, w['level0_conv0'], 1)), w['level0_conv1'], 1
        )
      )
      for clip in x
    ]
  )
  opened = trained(lambda path: path == 'level0_dropout1')
  lost = np.isclose(opened, residual, rtol=0, atol=1e-12)
  assert 0.35 < lost.mean() < 0.65
  np.testing.assert_allclose(
    opened[~lost], oracle.leaky_relu(x + 2 * branch)[~lost], rtol=0, atol=1e-12
  )
