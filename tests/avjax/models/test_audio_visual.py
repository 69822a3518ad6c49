"""Tests that the whole model is wired like the oracle, and that padding changes nothing.

The paths of the trained parameters are checked too.
"""

import jax
import numpy as np
import oracle
import pytest

from avjax.models.audio_visual import AudioVisual
from avjax.models.heads import MLP, Linear
from avjax.models.layers import nothing_trainable

LENGTH, FRAMES = 8, (6, 3)
TEMPORAL = {'visual': (6, 5), 'audio': (4,), 'kernel': 3, 'dropout': 0.0, 'norm': True}


def build(fusion='grjca', tower='ir50'):
  """The model of a config in the smallest sizes, without dropout."""
  small = {'widths': (2, 3, 3, 4), 'units': (1, 1, 1, 1), 'features': 5} | (
    {'dropout': 0.0} if tower == 'ir50' else {}
  )
  return AudioVisual(
    length=LENGTH,
    outputs=2,
    settings={
      'visual': {'tower': tower, tower: small},
      'audio': {'tower': 'vggish', 'widths': (2, 2, 2, 2, 2, 3), 'hidden': 5, 'features': 4},
      'temporal': TEMPORAL,
      'fusion': {'name': fusion} | ({} if fusion == 'concatenation' else {'recursions': 2}),
      'head': {'name': 'mlp', 'hidden': 7},
    },
  )


def batch(seed=1):
  """Returns images (B,L,H,W,3), log_mel (B,L,96,64), mask (B,L); the padding is not zero."""
  rng = np.random.default_rng(seed)
  mask = np.arange(LENGTH) < np.array(FRAMES)[:, None]
  return rng.uniform(-1, 1, (2, LENGTH, 16, 16, 3)), rng.normal(size=(2, LENGTH, 96, 64)), mask


def predictor(model, variables, is_trainable=nothing_trainable):
  """Returns a function from a batch to the prediction (B,L,targets) and the mutated collections.

  The collections are `batch_stats` and `gates`.
  """
  apply = jax.jit(
    lambda v, *inputs: model.apply(v, *inputs, is_trainable, mutable=['batch_stats', 'gates'])
  )
  return lambda *inputs: oracle.compute(apply, variables, *inputs)


def same(a, b):
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-9), a, b)


@pytest.mark.parametrize('tower', ['ir50', 'resnet50'])
def test_against_oracle(tower):
  model, (images, log_mel, mask) = build(tower=tower), batch()
  variables = oracle.draw(model, images, log_mel, mask, nothing_trainable)
  w, s = variables['params'], variables['batch_stats']
  # Every part of the model is where the unfreezing groups of a config look for it.
  assert set(w) == {
    'visual',
    'audio',
    'visual_tcn',
    'visual_norm',
    'audio_tcn',
    'audio_norm',
    'fusion',
    'head',
  }
  actual, state = predictor(model, variables)(images, log_mel, mask)
  assert actual.shape == (2, LENGTH, 2) and actual[mask].std() > 0.05 and np.abs(actual).max() <= 1
  for b, n in enumerate(FRAMES):
    x_v = {'ir50': oracle.ir50, 'resnet50': oracle.resnet50}[tower](
      images[b, :n], w['visual'], s['visual']
    )
    x_v = oracle.norm(oracle.tcn(x_v, w['visual_tcn'], 2), w['visual_norm'], s['visual_norm'])
    x_a = oracle.vggish(log_mel[b, :n], w['audio'])
    x_a = oracle.norm(oracle.tcn(x_a, w['audio_tcn'], 1), w['audio_norm'], s['audio_norm'])
    fused, gates = oracle.grjca(w['fusion'], x_a.T, x_v.T, 2)
    expected = oracle.regressor(fused.T, w['head'], s['head'])
    np.testing.assert_allclose(actual[b, :n], expected, rtol=0, atol=1e-9)
    same({name: scores[b, :n] for name, scores in state['gates']['fusion'].items()}, gates)


@pytest.mark.parametrize(
  'is_trainable', [nothing_trainable, lambda path: True], ids=['evaluation', 'training']
)
def test_padding_does_not_matter(is_trainable):
  model, (images, log_mel, mask) = build(), batch()  # test_fusion.py does this for every fusion
  variables = oracle.draw(model, images, log_mel, mask, nothing_trainable)
  run = predictor(model, variables, is_trainable)
  expected, state = run(images, log_mel, mask)
  if is_trainable is nothing_trainable:
    jax.tree.map(np.testing.assert_array_equal, state['batch_stats'], variables['batch_stats'])
  else:
    moved = jax.tree.map(
      lambda a, b: (a != b).all(), state['batch_stats'], variables['batch_stats']
    )
    assert all(jax.tree.leaves(moved))

  others = [
    np.where(mask.reshape(*mask.shape, *[1] * (x.ndim - 2)), x, 9 * y)
    for x, y in zip((images, log_mel), batch(seed=2)[:2], strict=True)
  ]
  spoiled, spoiled_state = run(*others, mask)
  same(spoiled[mask], expected[mask])
  same(spoiled_state['batch_stats'], state['batch_stats'])

  n = max(FRAMES)
  short, short_state = run(images[:, :n], log_mel[:, :n], mask[:, :n])
  same(short[mask[:, :n]], expected[mask])
  same(short_state['batch_stats'], state['batch_stats'])


def test_paths_are_from_the_root():
  model, inputs = build(), batch()
  variables = oracle.draw(model, *inputs, nothing_trainable)
  _, state = predictor(
    model, variables, lambda path: (path + '/').startswith(('visual/stage4/', 'audio_norm/'))
  )(*inputs)
  moved = {
    jax.tree_util.keystr(path, simple=True, separator='/')
    for (path, new), old in zip(
      jax.tree_util.tree_leaves_with_path(state['batch_stats']),
      jax.tree.leaves(variables['batch_stats']),
      strict=True,
    )
    if (new != old).any()
  }
  unit = [f'visual/stage4/unit0/{norm}' for norm in ('norm1', 'norm2', 'shortcut_norm')]
  assert moved == {f'{norm}/{key}' for norm in ('audio_norm', *unit) for key in ('mean', 'var')}


def test_causal_but_for_the_fusion():
  """With early concatenation, which is frame by frame, the model is causal."""
  model, (images, log_mel, mask) = build('concatenation'), batch()
  variables = oracle.draw(model, images, log_mel, mask, nothing_trainable)
  run, mask = predictor(model, variables), np.ones_like(mask)
  expected, _ = run(images, log_mel, mask)
  images[:, 5:], log_mel[:, 5:] = images[:, 5:][::-1], log_mel[:, 5:][::-1]
  actual, _ = run(images, log_mel, mask)
  same(actual[:, :5], expected[:, :5])
  assert (np.abs(actual[:, 5:] - expected[:, 5:]) > 1e-6).all()


def test_mlp():
  rng = np.random.default_rng(3)
  model, mask = MLP(2, 6), np.arange(5) < np.array([[5], [3]])
  x = rng.normal(size=(2, 5, 4))
  variables = oracle.draw(model, x, mask, nothing_trainable)
  w, s = variables['params'], variables['batch_stats']
  evaluate = lambda v, x: model.apply(v, x, mask, nothing_trainable)
  expected = oracle.regressor(x, w, s)
  np.testing.assert_allclose(oracle.compute(evaluate, variables, x), expected, rtol=0, atol=1e-12)
  spoiled = np.where(mask[..., None], x, 1e3)
  np.testing.assert_allclose(
    oracle.compute(evaluate, variables, spoiled)[mask], expected[mask], rtol=0, atol=1e-12
  )

  train = lambda v, x: model.apply(v, x, mask, lambda path: True, mutable=['batch_stats'])
  hidden = oracle.dense(x[mask], w['hidden'])
  expected = oracle.regressor(x, w, {'norm': {'mean': hidden.mean(0), 'var': hidden.var(0)}})
  for given in (x, spoiled):
    y, state = oracle.compute(train, variables, given)
    np.testing.assert_allclose(y[mask], expected[mask], rtol=0, atol=1e-10)
    same(state['batch_stats']['norm']['mean'], 0.9 * s['norm']['mean'] + 0.1 * hidden.mean(0))
    same(state['batch_stats']['norm']['var'], 0.9 * s['norm']['var'] + 0.1 * hidden.var(0, ddof=1))


def test_linear_head():
  rng = np.random.default_rng(3)
  x, mask = rng.normal(size=(2, 5, 4)), np.ones((2, 5), bool)
  variables = oracle.draw(Linear(2), x, mask, nothing_trainable)
  actual = oracle.compute(lambda v, x: Linear(2).apply(v, x, mask, nothing_trainable), variables, x)
  np.testing.assert_allclose(
    actual, np.tanh(oracle.dense(x, variables['params']['output'])), rtol=0, atol=1e-12
  )
