"""Tests CCC as loss and as metric against float64 NumPy, SciPy and cases worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from avjax import targets
from avjax.targets import losses, metrics


def reference(prediction, label):
  """Eq. 21 in float64, from its definition."""
  prediction, label = np.float64(prediction), np.float64(label)
  covariance = ((prediction - prediction.mean()) * (label - label.mean())).mean()
  return 2 * covariance / (prediction.var() + label.var() + (prediction.mean() - label.mean()) ** 2)


def device_ccc(prediction, label, mask=None):
  mask = np.ones(len(prediction), bool) if mask is None else mask
  return float(
    losses.ccc(
      jnp.asarray(prediction, jnp.float32),
      jnp.asarray(label, jnp.float32),
      jnp.asarray(mask),
      axis=0,
    )
  )


@pytest.mark.parametrize('ccc', [metrics.ccc, device_ccc])
class TestTextbook:
  x = np.array([0.1, -0.3, 0.8, 0.2])

  def test_itself(self, ccc):
    assert ccc(self.x, self.x) == pytest.approx(1, abs=1e-6)

  def test_mirrored_about_its_mean(self, ccc):
    assert ccc(self.x, 2 * self.x.mean() - self.x) == pytest.approx(-1, abs=1e-6)

  def test_shift(self, ccc):
    # Var = 1/4 each, covariance 1/4, means one half apart: 2/4 / (1/4 + 1/4 + 1/4) = 2/3.
    assert ccc(np.array([0.0, 1.0]), np.array([0.5, 1.5])) == pytest.approx(2 / 3, abs=1e-6)

  def test_scale(self, ccc):
    # x = -1, 1 and y = x / 2: 2 * (1/2) / (1 + 1/4) = 4/5.
    assert ccc(np.array([-1.0, 1.0]), np.array([-0.5, 0.5])) == pytest.approx(0.8, abs=1e-6)

  def test_constant_prediction(self, ccc):
    assert ccc(np.full(4, 0.3), self.x) == pytest.approx(0, abs=1e-6)

  def test_both_the_same_constant(self, ccc):
    assert ccc(np.full(4, 0.3), np.full(4, 0.3)) == 0

  def test_random_against_definition(self, ccc):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, 500))
    assert ccc(0.3 * x + 0.7 * y, y) == pytest.approx(reference(0.3 * x + 0.7 * y, y), abs=2e-6)


def test_reports_against_scipy():
  rng = np.random.default_rng(1)
  y = rng.uniform(-1, 1, 400)
  x = 0.5 * y + 0.2 * rng.normal(size=400) + 0.1
  r = stats.pearsonr(x, y).statistic
  assert metrics.pcc(x, y) == pytest.approx(r, abs=1e-12)
  # Lin (1989): CCC is Pearson's r times the bias correction C_b.
  scale, location = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
  assert metrics.ccc(x, y) == pytest.approx(r * 2 / (scale + 1 / scale + location**2), abs=1e-12)
  assert metrics.rmse(x, y) == pytest.approx(np.linalg.norm(x - y) / 20, abs=1e-12)


def test_mask_is_as_if_the_frames_were_not_there():
  rng = np.random.default_rng(2)
  x, y = rng.uniform(-1, 1, (2, 60))
  mask = rng.random(60) < 0.5
  spoiled = np.where(
    mask, y, np.nan
  )  # what an unannotated label holds must not matter, not even NaN
  assert device_ccc(x, spoiled, mask) == pytest.approx(reference(x[mask], y[mask]), abs=2e-6)


@pytest.mark.parametrize('scope', ['sequence', 'batch'])
def test_loss_scopes(scope):
  rng = np.random.default_rng(3)
  x, y = rng.uniform(-1, 1, (2, 3, 40, 2))
  mask = rng.random((3, 40)) < 0.7
  mask[2] = False  # a padded row
  if scope == 'sequence':
    expected = np.mean(
      [sum(1 - reference(x[b, mask[b], t], y[b, mask[b], t]) for t in range(2)) for b in range(2)]
    )
  else:
    expected = sum(1 - reference(x[mask][:, t], y[mask][:, t]) for t in range(2))
  assert float(losses.ccc_loss(*map(jnp.asarray, (x, y, mask)), scope)) == pytest.approx(
    expected, abs=1e-5
  )


def test_mixed_variances():
  """The predecessors' convention counts n - 1 under the variances and n under the covariance.

  A perfect prediction of n frames therefore costs 1/n.
  """
  rng = np.random.default_rng(5)
  x, y = rng.uniform(-1, 1, (2, 10))
  mask = np.arange(12) < 10
  padded = [np.append(z, [9.0, -9.0]) for z in (x, y)]
  for a, b in ((padded[0], padded[0]), padded):
    found = float(losses.ccc(jnp.float32(a), jnp.float32(b), jnp.asarray(mask), 0, 'mixed'))
    u, v = a[:10], b[:10]
    expected = (
      2
      * ((u - u.mean()) * (v - v.mean())).mean()
      / (u.var(ddof=1) + v.var(ddof=1) + (u.mean() - v.mean()) ** 2)
    )
    assert found == pytest.approx(expected, abs=2e-6)
  assert float(
    losses.ccc_loss(
      jnp.asarray(x)[None, :, None],
      jnp.asarray(x)[None, :, None],
      jnp.ones((1, 10), bool),
      'sequence',
      'mixed',
    )
  ) == pytest.approx(0.1, abs=1e-5)


@pytest.mark.parametrize('size, wanted', [(1e-6, 1 / 1.01), (1e-2, 1 - 1e-6)])
def test_what_the_epsilon_costs(size, wanted):
  """A perfect prediction of a window whose variances add up to `size` (docs/deviations.md, 29)."""
  with jax.enable_x64(True):
    x = jnp.tile(jnp.array([-1.0, 1.0]), 50) * (size / 2) ** 0.5
    found = float(losses.ccc(x, x, jnp.ones(100, bool), 0))
  assert found == pytest.approx(wanted, abs=1e-9)


def test_the_total_is_the_sum_over_targets_by_their_losses(monkeypatch):
  """Arousal and dominance share a loss, which sees both at once, in order; valence has another."""
  declared = {
    'valence': dataclasses.replace(targets.TARGETS['valence'], outputs=3, loss='first'),
    'dominance': targets.Target('dominance', 2, '', ''),
  }
  monkeypatch.setattr(targets, 'TARGETS', {**targets.TARGETS, **declared})
  seen = {}

  def keep(name, value):
    return lambda *inputs, **settings: seen.update({name: (inputs, settings)}) or value

  both = {'first': keep('first', jnp.float32(2)), 'ccc': keep('ccc', jnp.float32(0.5))}
  monkeypatch.setattr(losses, 'LOSSES', both)
  rng, settings = np.random.default_rng(6), {'scope': 'batch'}
  outputs, labels = jnp.asarray(rng.normal(size=(2, 4, 5))), jnp.asarray(rng.normal(size=(2, 4, 3)))
  names, mask = ('arousal', 'valence', 'dominance'), jnp.ones((2, 4), bool)
  assert losses.total_loss(names, outputs, labels, mask, settings) == 2.5
  for name, wanted, columns in (('ccc', [0, 4], [0, 2]), ('first', [1, 2, 3], [1])):
    (output, label, given), found = seen[name]
    np.testing.assert_array_equal(output, outputs[..., wanted])
    np.testing.assert_array_equal(label, labels[..., columns])
    assert given is mask and found == settings


def test_unknown_scope():
  with pytest.raises(ValueError, match="'sequence' or 'batch'"):
    losses.ccc_loss(jnp.zeros((1, 2, 1)), jnp.zeros((1, 2, 1)), jnp.ones((1, 2), bool), 'frame')


@pytest.mark.parametrize(
  'prediction, label, frames',
  [(0.3, 0.3, 9), (0.0, 0.5, 9), (0.3, None, 9), (None, 0.3, 9), (0.1, 0.2, 0)],
)
def test_finite_loss_and_gradient(prediction, label, frames):
  ramp = jnp.linspace(-1, 1, 9)[None, :, None]
  x, y = (ramp if v is None else jnp.full((1, 9, 1), v) for v in (prediction, label))
  mask = jnp.arange(9)[None] < frames
  loss, gradient = jax.value_and_grad(losses.ccc_loss)(x, y, mask)
  assert np.isfinite(loss) and np.isfinite(gradient).all()


def test_gradient_against_finite_differences():
  rng = np.random.default_rng(4)
  x, y = rng.uniform(-1, 1, (2, 2, 12, 1))
  mask = np.arange(12)[None] < np.array([[12], [7]])
  gradient = jax.grad(losses.ccc_loss)(
    jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), jnp.asarray(mask)
  )

  def loss(x):
    return np.mean([1 - reference(x[b, mask[b], 0], y[b, mask[b], 0]) for b in range(2)])

  for b, n in [(0, 3), (1, 2), (1, 9)]:
    step = np.zeros_like(x)
    step[b, n] = 1e-6
    assert float(gradient[b, n, 0]) == pytest.approx(
      (loss(x + step) - loss(x - step)) / 2e-6, abs=2e-5
    )
