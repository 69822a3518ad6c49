"""Tests metrics from moments and their intervals against metrics of explicitly drawn frames."""

import numpy as np
import pytest

from avjax.evaluation import statistics
from avjax.targets.metrics import METRICS


def make_units(rng, count, frames=60):
  """Makes (prediction, label) of units that differ in level, as clips do."""
  units = []
  for _ in range(count):
    length = frames + rng.integers(0, 9)
    label = rng.normal(scale=0.25) + np.cumsum(rng.normal(size=length, scale=0.04))
    noise = rng.normal(scale=0.15) + rng.normal(size=length, scale=0.1)
    units.append((0.5 * label + 0.05 + noise, label))
  return units


def repeat(units, times):
  """Returns (prediction, label) of all frames of units, each unit as many times as `times` says."""
  drawn = [unit for unit, n in zip(units, times, strict=True) for _ in range(int(n))]
  return [np.concatenate(parts) for parts in zip(*drawn, strict=True)]


@pytest.mark.parametrize('level', [0, 1e6])
def test_pooled_moments_have_the_metrics_of_the_frames(level):
  """Far from 0, too, where sums of squares would have lost the variance."""
  rng = np.random.default_rng(0)
  units = [(x + level, y + level) for x, y in make_units(rng, 7)]
  weights = rng.integers(0, 3, (5, 7))
  pooled = statistics.pool(statistics.moments(units), weights)
  for name, metric in METRICS.items():
    expected = [metric(*repeat(units, row)) for row in weights]
    found = statistics.OF_MOMENTS[name](pooled)
    np.testing.assert_allclose(found, expected, atol=1e-8 if level else 1e-10, err_msg=name)


def test_constants_have_no_correlation():
  rng = np.random.default_rng(0)
  units = [(np.full(n, 0.1), np.full(n, 0.1)) for n in rng.integers(1, 300, 9)]
  pooled = statistics.pool(statistics.moments(units), 1 + rng.integers(0, 4, (20, 9)))
  assert not statistics.ccc(pooled).any() and not statistics.pcc(pooled).any()
  assert not statistics.rmse(pooled).any()


def test_zero_is_a_sign_of_its_own():
  prediction, label = np.array([0.0, 0.1, -0.1, 0.2, -0.2]), np.array([0.0, 0.0, -1.0, 1.0, 1.0])
  assert METRICS['sagr'](prediction, label) == 3 / 5
  assert statistics.sagr(statistics.moments([(prediction, label)])).tolist() == [3 / 5]


@pytest.mark.parametrize('block', [1, 1 << 20])
def test_intervals_are_those_of_drawn_frames(monkeypatch, block):
  """The same draws, with frames that are really repeated; blocks of memory change nothing."""
  monkeypatch.setattr(statistics, 'RESAMPLES', 200)
  monkeypatch.setattr(statistics, 'BLOCK', block)
  units = make_units(np.random.default_rng(1), 12)
  draws = np.random.default_rng(statistics.SEED).multinomial(12, np.full(12, 1 / 12), 200)
  found = statistics.intervals(units, [*METRICS, 'accuracy'])
  assert found.keys() == METRICS.keys()
  for name, metric in METRICS.items():
    values = [metric(*repeat(units, row)) for row in draws]
    np.testing.assert_allclose(found[name], np.quantile(values, [0.025, 0.975]), atol=1e-8)
    assert found[name][0] < metric(*repeat(units, np.ones(12))) < found[name][1]


def test_too_few_units_have_no_interval():
  units = make_units(np.random.default_rng(2), statistics.LEAST_UNITS)
  assert statistics.intervals(units, ['ccc']).keys() == {'ccc'}
  assert statistics.intervals(units[1:], ['ccc']) == {}


def test_what_is_not_a_number_stays_so():
  units = make_units(np.random.default_rng(3), 12)
  units[0][0][5] = np.nan
  assert np.isnan(statistics.intervals(units, ['ccc', 'rmse'])['ccc']).all()


@pytest.mark.slow
@pytest.mark.parametrize('count, least', [(10, 0.72), (40, 0.84)])
def test_intervals_hold_the_truth(count, least):
  """In 95 % of sets if there were many units; percentiles of few are somewhat too narrow.

  The bounds are some three standard errors below what was found. Frames drawn one by one would
  hold it in less than half of the sets.
  """
  rng = np.random.default_rng(4)
  everyone = statistics.moments(make_units(rng, 20_000))
  everyone = statistics.pool(everyone, np.ones((1, 20_000)))
  held = dict.fromkeys(METRICS, 0)
  for _ in range(200):
    found = statistics.intervals(make_units(rng, count), list(METRICS))
    for name, (low, high) in found.items():
      held[name] += low <= statistics.OF_MOMENTS[name](everyone)[0] <= high
  assert all(least <= n / 200 <= 0.995 for n in held.values()), held
