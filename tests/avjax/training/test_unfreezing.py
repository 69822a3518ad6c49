"""Tests the schedule as a state machine on lists of CCC values, and the groups."""

import dataclasses

import numpy as np
import pytest

from avjax import ranges
from avjax.errors import InputError
from avjax.training.unfreezing import RANGES, RELEASES, Schedule, TrainableMask, stages


def drive(schedule, values):
  """Observes values until the schedule is done; returns {epoch: event}, epochs from 0."""
  events = {}
  for epoch, value in enumerate(values):
    if schedule.done:
      break
    event = schedule.observe(value)
    if event:
      events[epoch] = event
  return events


AUTHOR = {'warmup': 'author', 'release': 'below_minimum'}


def test_a_new_schedule_has_the_settings_of_the_paper_and_has_seen_nothing():
  assert dataclasses.asdict(Schedule(3)) == {
    'stage_count': 3,
    'rate_max': 1e-5,
    'rate_min': 1e-8,
    'warmup': 'paper',
    'warmup_epochs': 5,
    'release': 'at_minimum',
    'patience': 5,
    'factor': 0.1,
    'max_epochs': 100,
    'max_stage_epochs': 100,
    'stop_patience': 50,
    'stage': 0,
    'epoch': 0,
    'stage_epoch': 0,
    'cuts': 0,
    'bad_epochs': 0,
    'idle_epochs': 0,
    'best': -np.inf,
    'best_epoch': -1,
    'done': False,
  }


def test_no_improvement_at_all():
  # A stage is 5 epochs of warm-up and 3 cuts, each on the 6th epoch in a row without improvement:
  # 5 + 3 * 6 = 23.
  schedule = Schedule(3)
  assert drive(schedule, [0.0] * 200) == {
    0: 'improved',
    22: 'released',
    45: 'released',
    68: 'stopped',
  }
  assert schedule.done and schedule.epoch == 69


def test_no_improvement_at_all_as_the_authors_code_runs():
  # The fourth cut, since 1e-5 * 0.1^3 is not below 1e-8: 5 + 4 * 6 = 29. Groups open at epochs 0,
  # 29 and 58; it stops at 87.
  schedule = Schedule(3, **AUTHOR)
  assert drive(schedule, [0.0] * 200) == {
    0: 'improved',
    28: 'released',
    57: 'released',
    86: 'stopped',
  }
  assert schedule.done and schedule.epoch == 87


def test_improvement_until_epoch_40_as_the_authors_code_runs():
  # Improves in epochs 0 to 40; then 24 bad epochs, 41 to 64, are four cuts; groups open at 65 and,
  # 29 later, at 94; 100 ends it.
  schedule = Schedule(3, **AUTHOR)
  events = drive(schedule, [min(epoch, 40) / 100 for epoch in range(200)])
  assert {e: v for e, v in events.items() if v != 'improved'} == {
    64: 'released',
    93: 'released',
    99: 'stopped',
  }
  assert schedule.best_epoch == 40 and schedule.epoch == 100


def test_the_authors_scheduler_to_the_epoch():
  """The authors' training loop has the same rates and releases to the epoch.

  Their loop is written again from its description, with its own variables, and runs over random CCC
  values.
  """
  rng = np.random.default_rng(0)
  for _ in range(20):
    values = np.maximum.accumulate(rng.random(120) * rng.random()) - rng.random(120) * 0.05
    schedule, batches = Schedule(3, **AUTHOR), 7
    best, lr, relative, bad, stage, start = -1e10, 0.0, 0, 0, 0, 0
    for epoch in range(100):
      if (
        epoch > 0 and lr < 1e-8 and epoch >= 5 and relative > 5
      ):  # a new scheduler, with the best kept
        stage += 1
        if stage == 3:
          break
        lr, relative, bad, start = 1e-5, 0, 0, epoch
      for batch in range(batches):
        if relative < 5:
          lr = batch * 1e-5 * (relative + 1) / (batches * 5 * 5)
        assert (
          schedule.rate(batch, batches) == pytest.approx(lr, rel=1e-6, abs=1e-20)
          and schedule.stage == stage
        )
      better, relative = values[epoch] > best, epoch - start + 1
      if relative == 5:
        lr = 1e-5
      best = max(best, values[epoch])
      bad = 0 if better else bad + (relative > 5)
      if bad > 5:
        lr, bad = lr * 0.1, 0
      schedule.observe(values[epoch])
    assert schedule.done and schedule.epoch == (epoch if stage == 3 else 100)


def test_improvement_until_epoch_40():
  # Improves in epochs 0 to 40; then 18 bad epochs, 41 to 58, are three cuts; groups open at 59 and,
  # 23 later, at 82; 100 ends it.
  schedule = Schedule(3)
  values = [min(epoch, 40) / 100 for epoch in range(200)]
  events = drive(schedule, values)
  assert {e: v for e, v in events.items() if v != 'improved'} == {
    58: 'released',
    81: 'released',
    99: 'stopped',
  }
  assert schedule.best == 0.4 and schedule.best_epoch == 40 and schedule.epoch == 100


def test_rate():
  schedule = Schedule(3)
  assert [schedule.rate(b, 4) for b in (0, 3)] == pytest.approx([0.25e-5, 1e-5])  # within an epoch
  rates = []
  for _ in range(24):
    rates.append(schedule.rate(3, 4))
    schedule.observe(0.0)
  # 5 epochs of warm-up, then PyTorch's counting, then the next group starts warm-up again.
  assert rates == pytest.approx([1e-5] * 11 + [1e-6] * 6 + [1e-7] * 6 + [1e-5])
  assert (
    schedule.stage == 1
    and schedule.rate(1, 4) == pytest.approx(1e-5 * 0.5, rel=1e-9)
    and schedule.stage_epoch == 1
  )


@pytest.mark.parametrize(
  'warmup, firsts, lasts',
  [
    ('paper', [0.25] * 5, [1.0] * 5),
    ('author', [0.0] * 5, [0.04 * 0.75, 0.08 * 0.75, 0.12 * 0.75, 0.16 * 0.75, 0.20 * 0.75]),
    ('linear5', [0.05, 0.25, 0.45, 0.65, 0.85], [0.2, 0.4, 0.6, 0.8, 1.0]),
  ],
)
def test_warmups(warmup, firsts, lasts):
  """The warm-up sets the rates of the first five epochs; then the full rate applies.

  The first and the last of four batches in each epoch are compared, as shares of the full rate.
  """
  schedule, found = Schedule(1, warmup=warmup), []
  for epoch in range(6):
    found.append((schedule.rate(0, 4), schedule.rate(3, 4)))
    schedule.observe(epoch)
  expected = [*zip(firsts, lasts, strict=True), (1.0, 1.0)]
  assert np.array(found) == pytest.approx(1e-5 * np.array(expected), rel=1e-9, abs=1e-15)
  # With ever more batches the author's peaks are .04, .08, .12, .16, .20.
  if warmup == 'author':
    schedule = Schedule(1, warmup=warmup)
    assert schedule.rate(9999, 10_000) == pytest.approx(0.04e-5, rel=1e-3)


def test_improvement_resets_the_count_but_not_the_rate():
  schedule = Schedule(1, warmup_epochs=0, patience=1, max_epochs=50)
  drive(schedule, [0.1, 0.0, 0.0])
  assert schedule.cuts == 1
  drive(schedule, [0.2, 0.0])
  assert schedule.cuts == 1 and schedule.bad_epochs == 1


def test_a_stage_has_a_most_of_epochs():
  schedule, seen = Schedule(2, max_stage_epochs=3), []
  for score in range(6):  # each is an improvement, so that nothing else ends the stage
    assert not schedule.done and schedule.observe(score) == 'improved'
    seen.append((schedule.stage, schedule.stage_epoch))
  assert schedule.done and seen == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (1, 3)]


def test_when_a_rate_is_at_or_below_the_minimum():
  """A rate that is the minimum except for rounding is at it, not below it."""
  rates = [1.5e-8, 1e-5 * 0.1**3, 1e-8, 0.7e-8]
  assert [RELEASES['at_minimum'](rate, 1e-8) for rate in rates] == [False, True, True, True]
  assert [RELEASES['below_minimum'](rate, 1e-8) for rate in rates] == [False, False, False, True]


def test_an_improvement_starts_the_count_of_stop_patience_again():
  # Idle in epochs 1 and 2, better in 3, then idle in 4, 5 and 6, which are three in a row.
  schedule = Schedule(1, warmup_epochs=0, patience=100, stop_patience=3)
  assert drive(schedule, [0.1, 0.0, 0.0, 0.2] + [0.0] * 50) == {
    0: 'improved',
    3: 'improved',
    6: 'stopped',
  }


def test_stop_patience_ends_a_stage():
  schedule = Schedule(2, warmup_epochs=1, patience=100, stop_patience=3)
  assert drive(schedule, [0.5] + [0.1] * 50) == {0: 'improved', 3: 'released', 7: 'stopped'}


@pytest.mark.parametrize(
  'name, lowest, below',
  [
    ('max_epochs', 1, 0),
    ('max_stage_epochs', 1, 0),
    ('warmup_epochs', 0, -1),
    ('patience', 0, -1),
    ('stop_patience', 1, 0),
    ('factor', 1e-9, 0),
  ],
)
def test_the_ranges_of_settings(name, lowest, below):
  ranges.check('schedule', {name: lowest}, RANGES)
  with pytest.raises(InputError, match=f'config.schedule.{name} is out of range'):
    ranges.check('schedule', {name: below}, RANGES)


def test_the_factor_is_below_1():
  with pytest.raises(InputError, match='config.schedule.factor is out of range'):
    ranges.check('schedule', {'factor': 1.0}, RANGES)


def test_groups():
  paths = ['visual/stage3/unit1/conv/kernel', 'visual/stage3/unit11/conv/kernel', 'head/bias']
  first, second = stages(
    [['head/'], ['visual/stage3/unit1[1-3]/']], ['visual/stage3/unit1/'], paths
  )
  assert [first(p) for p in paths] == [False, False, True]
  assert [second(p) for p in paths] == [False, True, True]
  assert first('head') and TrainableMask(('head/',))(
    'head'
  )  # modules are named by the same patterns


@pytest.mark.parametrize(
  'groups, frozen, message',
  [
    ([['head/'], ['nowhere/']], ['visual/'], "'nowhere/' matches no parameter"),
    ([['head/']], [], 'visual/conv is in 0 unfreezing groups'),
    ([['head/', 'vis']], ['visual/'], 'visual/conv is in 2 unfreezing groups'),
  ],
)
def test_groups_that_do_not_fit(groups, frozen, message):
  with pytest.raises(ValueError, match=message):
    stages(groups, frozen, ['visual/conv', 'head/bias'])
