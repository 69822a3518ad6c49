"""Tests that post-processing undoes known faults, and that nothing is fitted on what is scored."""

import numpy as np
import pytest

from avjax.evaluation import breakdown, postprocessing
from avjax.evaluation.postprocessing import Chain, Track
from avjax.targets.metrics import METRICS

RATE = 25


def make_track(rng, early=0.0, factor=1.0, added=0.0, noise=0.0, length=600):
  """Makes a smooth label, and a prediction that comes `early` seconds before it."""
  times = np.arange(length + 300) / RATE
  waves = [rng.normal() * np.sin(times * rng.uniform(0.2, 1.5) + rng.uniform(0, 6)) for _ in '1234']
  curve, ahead = 0.2 * np.sum(waves, axis=0), round(early * RATE)
  prediction = factor * curve[ahead : ahead + length] + added + rng.normal(size=length, scale=noise)
  return Track(np.arange(length) + 1, RATE, prediction, curve[:length], np.ones(length, bool))


def explicit(units, chain):
  """CCC over all frames after a chain, frame by frame."""
  pairs = [
    postprocessing.finish(postprocessing.filtered(track, chain.median), chain)
    for unit in units
    for track in unit
  ]
  return METRICS['ccc'](*postprocessing.join(pairs))


def test_it_undoes_what_was_done():
  rng = np.random.default_rng(0)
  units = [[make_track(rng, early=0.8, factor=0.5, added=0.3, noise=0.05)] for _ in range(6)]
  chain = postprocessing.fit_all(units)
  assert chain.shift == 0.8 and chain.median > 0
  assert chain.scale == pytest.approx(2, abs=0.15)
  # The line from prediction to label: (x - 0.3) * 2.
  intercept = chain.scale * (chain.offset - chain.about) + chain.about
  assert intercept == pytest.approx(-0.6, abs=0.06)
  before, after = explicit(units, Chain()), explicit(units, chain)
  assert before < 0.4 < 0.95 < after
  steps = [explicit(units, chain.first(k)) for k in range(5)]
  assert steps == sorted(steps) and (steps[0], steps[4]) == (before, after)


def test_what_is_right_is_left():
  rng = np.random.default_rng(1)
  units = [[make_track(rng)] for _ in range(3)]
  assert postprocessing.fit_all(units) == Chain(about=pytest.approx(0, abs=0.2))


def test_what_would_make_it_worse_is_left():
  """Centring and scaling would make the CCC of an inverted prediction more negative."""
  rng = np.random.default_rng(6)
  units = [[make_track(rng, factor=-0.5, added=0.3, length=200)] for _ in range(3)]
  chain = postprocessing.fit_all(units)
  assert (chain.offset, chain.scale) == (0, 1)
  assert explicit(units, chain) >= explicit(units, Chain())


def test_chains_are_those_of_an_explicit_search():
  """For each set of units, the search over frames that the moments stand for."""
  rng = np.random.default_rng(2)
  faults = [(1.5, 0.6, 0.1, 0.1), (0.5, 0.9, -0.2, 0.02), (0, 1.2, 0, 0.3), (3, 0.5, 0.2, 0.2)]
  units = [[make_track(rng, *fault), make_track(rng, *fault, length=200)] for fault in faults]
  weights = np.array([[1, 1, 1, 1], [0, 1, 1, 0], [1, 0, 0, 1]])
  chains = np.array(postprocessing.fit(units, weights)).T
  for row, found in zip(weights, chains, strict=True):
    chosen = [unit for unit, weight in zip(units, row, strict=True) if weight]
    chain, best = Chain(), explicit(chosen, Chain())
    candidates = [Chain(median=s) for s in postprocessing.MEDIAN_SECONDS]
    for trial in candidates:
      chain, best = max([(chain, best), (trial, explicit(chosen, trial))], key=lambda x: x[1])
    tracks = [postprocessing.filtered(track, chain.median) for unit in chosen for track in unit]
    x, y = postprocessing.join(postprocessing.delayed(track, 0) for track in tracks)
    trial = chain._replace(offset=y.mean() - x.mean())
    chain, best = max([(chain, best), (trial, explicit(chosen, trial))], key=lambda x: x[1])
    chain = chain._replace(about=x.mean() + chain.offset)
    trial = chain._replace(scale=y.std() / x.std())
    chain, best = max([(chain, best), (trial, explicit(chosen, trial))], key=lambda x: x[1])
    for trial in [chain._replace(shift=s) for s in postprocessing.SHIFT_SECONDS]:
      chain, best = max([(chain, best), (trial, explicit(chosen, trial))], key=lambda x: x[1])
    np.testing.assert_allclose(found, chain, atol=1e-9)


def test_the_median_filter_stops_at_gaps():
  rng = np.random.default_rng(3)
  x = rng.normal(size=40)
  frames = np.arange(40) + 1 + 100 * (np.arange(40) >= 25)
  track = Track(frames, 10, x, x, np.ones(40, bool))
  expected = []
  for part in (x[:25], x[25:]):
    padded = np.pad(part, 2, mode='edge')
    expected += [np.median(padded[i : i + 5]) for i in range(len(part))]
  np.testing.assert_array_equal(postprocessing.filtered(track, 0.4).prediction, expected)


def test_a_shift_delays_and_holds_the_first_value():
  track = Track(np.arange(1, 7), 2, np.arange(6.0), np.arange(6.0), np.arange(6) != 3)
  found, label = postprocessing.delayed(track, 1)
  assert found.tolist() == [0, 0, 0, 2, 3] and label.tolist() == [0, 1, 2, 4, 5]


def test_times_that_stand_still_change_nothing():
  track = Track(np.arange(1, 7), 0, np.arange(6.0), np.arange(6.0), np.ones(6, bool))
  assert postprocessing.filtered(track, 20).prediction.tolist() == track.prediction.tolist()
  assert postprocessing.delayed(track, 5)[0].tolist() == track.prediction.tolist()


@pytest.mark.parametrize('folds', [100, 3])
def test_no_unit_has_a_part_in_its_own_parameters(monkeypatch, folds):
  """Whatever the labels of a unit are, its own chain stays, while those of others change."""
  monkeypatch.setattr(postprocessing, 'FOLDS', folds)
  rng = np.random.default_rng(4)
  units = [[make_track(rng, early=1, factor=0.7, added=0.1)] for _ in range(7)]
  before = postprocessing.fit_on_others(units)
  for k in (0, 5):
    other = list(units)
    other[k] = [units[k][0]._replace(label=-units[k][0].label[::-1] + 0.5)]
    after = postprocessing.fit_on_others(other)
    changed = [i for i in range(7) if not np.allclose(after[i], before[i], atol=1e-9)]
    assert changed == [i for i in range(7) if i % folds != k % folds] and k not in changed
  pooled = postprocessing.fit_all(units)
  assert breakdown.post_process(units, None, 'clip')['parameters'] == pooled._asdict()


def test_scores_are_those_of_the_chains():
  rng = np.random.default_rng(5)
  units = [[make_track(rng, early=1, factor=0.7, added=0.1, noise=0.1)] for _ in range(12)]
  found = breakdown.post_process(units, None, 'clip')
  pairs = [
    postprocessing.finish(postprocessing.filtered(unit[0], chain.median), chain)
    for unit, chain in zip(units, postprocessing.fit_on_others(units), strict=True)
  ]
  assert list(found['ccc']) == list(postprocessing.STEPS)
  assert found['ccc']['shift'] == METRICS['ccc'](*postprocessing.join(pairs))
  assert found['interval'][0] < found['ccc']['shift'] < found['interval'][1]
  assert found['fitted'] == 'without the clip that is scored'
  given = breakdown.post_process(units, Chain(offset=0.25), 'clip')
  shifted = [[track._replace(prediction=track.prediction + 0.25) for track in u] for u in units]
  assert given['ccc']['shift'] == pytest.approx(explicit(shifted, Chain()), abs=1e-12)
  assert given['fitted'] == 'on the validation partition'
