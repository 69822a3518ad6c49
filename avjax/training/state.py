"""Holds the state of a run between two batches, as a checkpoint keeps it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from avjax.runs.damage import Foreign
from avjax.system import steps
from avjax.training.unfreezing import Schedule


class Diverged(Exception):
  """Reports that a loss, gradient or score is not finite, so that the run cannot continue."""


def check_meta(meta: dict, stage_count: int) -> None:
  """Raises Foreign for a meta that `RunState.to_meta` cannot have returned for so many stages."""
  schedule, kinds = meta.get('schedule'), {'int': int, 'float': (int, float), 'str': str}
  fields = {field.name: kinds.get(str(field.type), bool) for field in dataclasses.fields(Schedule)}
  counts = [meta.get(name) for name in ('batches_done', 'skipped')]
  if isinstance(schedule, dict):
    valid = schedule.keys() == fields.keys() and all(
      isinstance(value, fields[name]) for name, value in schedule.items()
    )
    counts += [schedule.get('stage'), schedule.get('epoch')]
    if valid and all(type(x) is int and 0 <= x < 2**40 for x in counts):
      log = np.asarray(meta.get('log'), float).reshape(-1, 2)
      if schedule['stage'] < stage_count and len(log) == meta['batches_done']:
        return
  raise Foreign('its meta is not that of a state of this run')


@dataclasses.dataclass
class RunState:
  """Holds the state of a run.

  state: parameters, statistics and optimizer of the current stage, on the devices while the run is
    trained.
  schedule: the stage, the epoch, and the best score so far.
  batches_done: batches of the current epoch that are done.
  log: (loss, gradient norm) of each of these.
  skipped: number of updates in a row that were skipped at the end of the previous epoch, since loss
    or gradient was not finite.
  best, best_meta: variables of the best epoch on the host, and its {'epoch', 'ccc'} (or another
    metric, see `targets.criterion`); None before the first epoch has ended.
  """

  state: steps.State
  schedule: Schedule
  batches_done: int = 0
  log: list = dataclasses.field(default_factory=list)
  skipped: int = 0
  best: Any = None
  best_meta: dict | None = None

  def to_meta(self) -> dict:
    """Returns what a checkpoint keeps besides the arrays, as values that JSON can hold."""
    return {
      'schedule': dataclasses.asdict(self.schedule),
      'batches_done': self.batches_done,
      'log': np.array(self.log, float).tolist(),
      'skipped': self.skipped,
    }

  @classmethod
  def from_meta(cls, state: steps.State, meta: dict, settings: dict) -> RunState:
    """Returns the RunState that `to_meta` described.

    settings: arguments of Schedule that the config gives now.
    """
    return cls(
      state,
      Schedule(**meta['schedule'] | settings),
      meta['batches_done'],
      meta['log'],
      meta['skipped'],
    )

  def copy(self) -> RunState:
    """Returns the run as it is now, on the host; later steps change nothing of it."""
    return dataclasses.replace(
      self,
      state=jax.device_get(self.state),
      schedule=dataclasses.replace(self.schedule),
      log=[*self.log],
    )

  def begin_fork(self):
    """Begins another run from this state: its epoch has no batch yet, its schedule is not done."""
    self.batches_done, self.log, self.schedule.done = 0, [], False

  def step(self, batches_per_epoch: int) -> int:
    """Returns the number of batches done over all epochs, by which checkpoints are numbered."""
    return self.schedule.epoch * batches_per_epoch + self.batches_done

  def add_batch(self, metrics):
    """Counts a batch.

    metrics: what the training step returned; the device may not have computed it yet.
    """
    self.log.append((metrics['loss'], metrics['gradient_norm']))
    self.batches_done += 1

  def skipped_in_a_row(self, leave_out: int = 0) -> int:
    """Returns how many of the last updates were skipped, counting those of the previous epoch.

    leave_out: number of the newest entries of the log that are not looked at, so that the host does
      not wait for the device.
    """
    log = self.log[: max(len(self.log) - leave_out, 0)]
    count = 0
    for values in reversed(log):
      if np.isfinite(np.array(values, float)).all():
        return count
      count += 1
    return count + self.skipped

  def end_epoch(self):
    """Clears what belongs to the epoch that has ended, except the updates skipped at its end."""
    self.skipped = self.skipped_in_a_row()
    self.batches_done, self.log = 0, []
