"""The systems of the paper's tables that are not its own, against float64 oracles; who sees the future; padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import oracle
import oracle_systems as systems
from avjax.models.fusion import FUSIONS
from avjax.models.fusion.mamba import selective_scan, start_step
from avjax.models.layers import evaluation
from test_fusion import clips, fuse

# name: (arguments, oracle(weights, visual, audio), whether a frame sees frames after it)
SYSTEMS = {
    'transformer: Zhou': ({'stem': (8,), 'layers': 2, 'heads': 2, 'hidden': 10}, lambda w, v, a: systems.transformer(w, v, a, 2, 2), True),
    'transformer: Meng': ({'stem': (12, 8), 'layers': 1, 'heads': 4, 'hidden': 8}, lambda w, v, a: systems.transformer(w, v, a, 1, 4), True),
    'transformer: Zhang Ziyang': (
        {'each': 4, 'stem': (), 'positions': 'sinusoidal', 'layers': 1, 'heads': 2, 'hidden': 16, 'dropout_in': 0.5},
        lambda w, v, a: systems.transformer(w, v, a, 1, 2, positions=True), True),
    'transformer: Zhang Wei': ({'stem': (10, 6), 'slope': 0.1, 'layers': 1, 'heads': 2, 'hidden': 6},
                               lambda w, v, a: systems.transformer(w, v, a, 1, 2, slope=0.1), True),
    'transformer: CtyunAI': ({'inputs': ('visual',), 'stem': (8,), 'layers': 1, 'heads': 2, 'hidden': 8},
                             lambda w, v, a: systems.transformer(w, v, a, 1, 2, inputs=('visual',)), True),
    'cross_modal': ({'width': 8, 'blocks': 2, 'heads': 2, 'hidden': 10}, lambda w, v, a: systems.cross_modal(w, v, a, 2, 2), True),
    'mamba': ({'layers': 2, 'states': 3, 'rank': 2}, lambda w, v, a: systems.mamba(w, v, a, 2, 3, 2), False),
    'lstm': ({'width': 5, 'layers': 2}, lambda w, v, a: systems.lstm(w, v, a, 2, False), False),
    'lstm: both ways': ({'width': 5, 'bidirectional': True}, lambda w, v, a: systems.lstm(w, v, a, 1, True), True),
    'leader_follower': ({'width': 6}, systems.leader_follower, False),
    'can': ({'width': 5}, systems.can, False),
    'jca_2022': ({'width': 5, 'maps': 3}, systems.jca_2022, True),
    'visual': ({}, lambda w, v, a: v, False),
    'audio': ({}, lambda w, v, a: a, False),
}


def build(name, length):
  model = FUSIONS[name.split(':')[0]](length, **SYSTEMS[name][0])
  return model, oracle.draw(model, *clips(length, [length]), evaluation).get('params', {})


@pytest.mark.parametrize('length, frames', [(5, (5, 3)), (40, (40, 23))])
@pytest.mark.parametrize('name', SYSTEMS)
def test_against_its_oracle(name, length, frames):
  model, params = build(name, length)
  batch = visual, audio, mask = clips(length, frames)
  fused, _ = fuse(model, params, batch)
  for b, n in enumerate(frames):
    expected = SYSTEMS[name][1](params, visual[b, :n], audio[b, :n])
    np.testing.assert_allclose(fused[b, :n], expected, rtol=0, atol=1e-10)
    assert not fused[b, n:].any()


@pytest.mark.parametrize('name', SYSTEMS)
def test_padding_does_not_matter(name):
  model, params = build(name, 6)
  visual, audio, mask = clips(6, [6, 4])
  fused, _ = fuse(model, params, (visual, audio, mask))
  other = [np.where(mask[..., None], x, 1e3 * y) for x, y in zip((visual, audio), clips(6, [6, 4], seed=2))]
  np.testing.assert_allclose(fuse(model, params, (*other, mask))[0], fused, rtol=0, atol=1e-12)
  short, _ = fuse(model, params, (visual[1:, :4], audio[1:, :4], mask[1:, :4]))
  np.testing.assert_allclose(short, fused[1:, :4], rtol=0, atol=1e-12)


@pytest.mark.parametrize('name', SYSTEMS)
def test_who_sees_the_future(name):
  """A later frame changes an earlier one where the system is said to look ahead, and never where it is said to be causal."""
  model, params = build(name, 8)
  visual, audio, mask = clips(8, [8])
  later = [x + (np.arange(8) >= 5)[None, :, None] for x in (visual, audio)]
  before = fuse(model, params, (visual, audio, mask))[0][:, :5]
  after = fuse(model, params, (*later, mask))[0][:, :5]
  moved = np.abs(after - before).max()
  assert moved > 1e-6 if SYSTEMS[name][2] else moved == 0


def test_without_positions_the_encoder_does_not_know_the_order():
  model, params = build('transformer: Zhou', 6)
  visual, audio, mask = clips(6, [6])
  order = np.array([3, 0, 5, 1, 4, 2])
  fused = fuse(model, params, (visual, audio, mask))[0]
  np.testing.assert_allclose(fuse(model, params, (visual[:, order], audio[:, order], mask))[0], fused[:, order], rtol=0, atol=1e-12)
  model, params = build('transformer: Zhang Ziyang', 6)
  fused = fuse(model, params, (visual, audio, mask))[0]
  assert np.abs(fuse(model, params, (visual[:, order], audio[:, order], mask))[0] - fused[:, order]).max() > 1e-3


def test_the_scan_is_the_recurrence_over_a_whole_window():
  rng = np.random.default_rng(0)
  decay, drive = np.float32(rng.uniform(0.2, 1, (2, 300, 16, 8))), np.float32(rng.normal(size=(2, 300, 16, 8)))
  read = np.float32(rng.normal(size=(2, 300, 8)))
  h, rows = np.zeros((2, 16, 8)), []
  for t in range(300):
    h = decay[:, t] * h + drive[:, t]
    rows.append(np.einsum('bdn,bn->bd', h, read[:, t]))
  expected = np.stack(rows, axis=1)
  assert np.abs(np.asarray(jax.jit(selective_scan)(decay, drive, read)) - expected).max() < 1e-5 * np.abs(expected).max()


def test_mamba_s_standard_initialisation():
  params = FUSIONS['mamba'](5).init(jax.random.key(0), *map(jnp.float32, clips(5, [5])[:2]), jnp.ones((1, 5), bool), evaluation)['params']
  np.testing.assert_allclose(np.exp(params['layer0']['a_log']), np.tile(np.arange(1, 9), (6, 1)), rtol=1e-6)
  steps = np.log1p(np.exp(np.asarray(start_step(jax.random.key(1), (10_000,)))))
  assert steps.min() >= 0.99e-3 and steps.max() <= 0.101
  assert np.quantile(np.log10(steps), [0.25, 0.5, 0.75]) == pytest.approx([-2.5, -2, -1.5], abs=0.05)
