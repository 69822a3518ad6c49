"""The schedule as a state machine, driven with lists of CCC values, and the groups."""

import pytest

from avjax.unfreezing import Schedule, Trains, stages


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


def test_no_improvement_at_all():
  # A stage is 5 epochs of warm-up and 3 cuts, each on the 6th epoch in a row without improvement: 5 + 3 * 6 = 23.
  schedule = Schedule(3)
  assert drive(schedule, [0.0] * 200) == {0: 'improved', 22: 'released', 45: 'released', 68: 'stopped'}
  assert schedule.done and schedule.epoch == 69


def test_improvement_until_epoch_40():
  # Improves in epochs 0 to 40; then 18 bad epochs, 41 to 58, are three cuts; groups open at 59 and, 23 later, at 82; 100 ends it.
  schedule = Schedule(3)
  values = [min(epoch, 40) / 100 for epoch in range(200)]
  events = drive(schedule, values)
  assert {e: v for e, v in events.items() if v != 'improved'} == {58: 'released', 81: 'released', 99: 'stopped'}
  assert schedule.best == 0.4 and schedule.best_epoch == 40 and schedule.epoch == 100


def test_rate():
  schedule = Schedule(3)
  assert [schedule.rate(f) for f in (0.25, 1.0)] == pytest.approx([0.25e-5, 1e-5])  # within an epoch
  rates = []
  for _ in range(24):
    rates.append(schedule.rate(1.0))
    schedule.observe(0.0)
  # 5 epochs of warm-up, then PyTorch's counting, then the next group starts warm-up again.
  assert rates == pytest.approx([1e-5] * 11 + [1e-6] * 6 + [1e-7] * 6 + [1e-5])
  assert schedule.stage == 1 and schedule.rate(0.5) == pytest.approx(1e-5 * 0.5, rel=1e-9) and schedule.stage_epoch == 1


def test_improvement_resets_the_count_but_not_the_rate():
  schedule = Schedule(1, warmup_epochs=0, patience=1, max_epochs=50)
  drive(schedule, [0.1, 0.0, 0.0])
  assert schedule.cuts == 1
  drive(schedule, [0.2, 0.0])
  assert schedule.cuts == 1 and schedule.bad_epochs == 1


def test_stop_patience_ends_a_stage():
  schedule = Schedule(2, warmup_epochs=1, patience=100, stop_patience=3)
  assert drive(schedule, [0.5] + [0.1] * 50) == {0: 'improved', 3: 'released', 7: 'stopped'}


def test_groups():
  paths = ['visual/stage3/unit1/conv/kernel', 'visual/stage3/unit11/conv/kernel', 'head/bias']
  first, second = stages([['head/'], ['visual/stage3/unit1[1-3]/']], ['visual/stage3/unit1/'], paths)
  assert [first(p) for p in paths] == [False, False, True]
  assert [second(p) for p in paths] == [False, True, True]
  assert first('head') and Trains(('head/',))('head')  # modules are named by the same patterns


@pytest.mark.parametrize('groups, frozen, message', [
    ([['head/'], ['nowhere/']], ['visual/'], "'nowhere/' matches no parameter"),
    ([['head/']], [], 'visual/conv is in 0 unfreezing groups'),
    ([['head/', 'vis']], ['visual/'], 'visual/conv is in 2 unfreezing groups'),
])
def test_groups_that_do_not_fit(groups, frozen, message):
  with pytest.raises(ValueError, match=message):
    stages(groups, frozen, ['visual/conv', 'head/bias'])
