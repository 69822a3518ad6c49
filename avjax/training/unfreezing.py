"""Decides when each group of parameters is trained, and at what rate: plain Python, no arrays.

Section 4.3.2 of the paper: group 1 opens at epoch 0 under a warm-up that is repeated in each of the
first epochs; then the rate is cut tenfold whenever the validation score, CCC, has not improved for
`patience` epochs; once it has reached the minimum, the next group opens and everything starts over,
until the last group is done. docs/schedule.png draws it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from avjax import ranges

# Readings of "linearly warmed up to 1e-5 within an epoch, repetitive until epoch 5": the share of
# the full rate for batch b of B, in epoch e of the E epochs of warm-up; all count from 0.
WARMUPS = {
  # A ramp to the full rate in every epoch.
  'paper': lambda b, B, e, E: (b + 1) / B,
  # The authors' code divides by E twice: ramps to .04, .08, ... .20, then the full rate at once.
  'author': lambda b, B, e, E: b / B * (e + 1) / E**2,
  # One ramp over all E epochs.
  'linear5': lambda b, B, e, E: (e + (b + 1) / B) / E,
}
# When the next group opens. 1e-5 * 0.1^3 comes out as 1.0000000000000004e-08, so the predecessors'
# `rate < 1e-8` takes a fourth cut.
RELEASES = {
  'at_minimum': lambda rate, minimum: rate <= minimum * (1 + 1e-9),
  'below_minimum': lambda rate, minimum: rate < minimum * (1 - 1e-9),
}

RANGES = {
  'max_epochs': ranges.at_least(1),
  'max_stage_epochs': ranges.at_least(1),
  'warmup_epochs': ranges.NOT_NEGATIVE,
  'patience': ranges.NOT_NEGATIVE,
  'stop_patience': ranges.at_least(1),
  'warmup': ranges.OneOf(tuple(WARMUPS)),
  'release': ranges.OneOf(tuple(RELEASES)),
  'factor': ranges.Range(lambda factor: 0 < factor < 1, 'between 0 and 1'),
}


@dataclasses.dataclass(frozen=True)
class TrainableMask:
  """Tells whether the parameter or module at a path is trained.

  It is if one of the patterns, those of the open groups, matches the start of 'path/'.
  """

  patterns: tuple[str, ...]

  def __call__(self, path: str) -> bool:
    return any(re.match(pattern, path + '/') for pattern in self.patterns)


def stages(
  groups: Sequence[Sequence[str]], frozen: Sequence[str], paths: Sequence[str]
) -> list[TrainableMask]:
  """Returns the TrainableMask of each stage: stage k trains groups 0 to k.

  Args:
    groups: the patterns of each group, in the order in which the groups open.
    frozen: the patterns of the parameters that are never trained.
    paths: all parameters of the model.

  Raises ValueError if a pattern matches nothing, or if a path is not matched by exactly one group.
  """
  sets = [*groups, frozen]
  for pattern in (pattern for group in sets for pattern in group):
    if not any(TrainableMask((pattern,))(path) for path in paths):
      raise ValueError(f'unfreezing pattern {pattern!r} matches no parameter of the model')
  for path in paths:
    owners = [i for i, group in enumerate(sets) if TrainableMask(tuple(group))(path)]
    if len(owners) != 1:
      raise ValueError(
        f'parameter {path} is in {len(owners)} unfreezing groups; it must be in one, or in `frozen`'
      )
  groups = [group for group in groups if group]  # without towers only the first has any
  return [
    TrainableMask(tuple(pattern for group in groups[: k + 1] for pattern in group))
    for k in range(len(groups))
  ]


@dataclasses.dataclass
class Schedule:
  """Drives training: it takes one validation score per epoch and returns the rate of each batch.

  Epochs are counted as PyTorch does: with patience 5 the rate is cut after the 6th epoch in a row
  without improvement.

  What the config gives:
    stage_count: number of stages.
    rate_max, rate_min: the full learning rate, and the one at which the next group opens.
    warmup, warmup_epochs: a key of WARMUPS, and how many epochs of each stage it lasts.
    release: a key of RELEASES.
    patience: epochs without improvement before the rate is cut.
    factor: a cut multiplies the rate by it.
    max_epochs, max_stage_epochs: the most epochs of the run and of one stage.
    stop_patience: so many epochs without a new best, after the warm-up, end the stage.

  Where the run stands:
    stage: counted from 0.
    epoch, stage_epoch: epochs finished, over all stages and in this one.
    cuts: number of cuts of the rate in this stage.
    bad_epochs: epochs since the last improvement or cut, after the warm-up.
    idle_epochs: epochs since the last improvement, after the warm-up.
    best, best_epoch: the highest score, and its epoch counted from 0.
    done: whether training has ended.
  """

  stage_count: int
  rate_max: float = 1e-5
  rate_min: float = 1e-8
  warmup: str = 'paper'
  warmup_epochs: int = 5
  release: str = 'at_minimum'
  patience: int = 5
  factor: float = 0.1
  max_epochs: int = 100
  max_stage_epochs: int = 100
  stop_patience: int = 50

  stage: int = 0
  epoch: int = 0
  stage_epoch: int = 0
  cuts: int = 0
  bad_epochs: int = 0
  idle_epochs: int = 0
  best: float = -float('inf')
  best_epoch: int = -1
  done: bool = False

  def rate(self, batch: int, batches: int) -> float:
    """Returns the learning rate of a batch, counted from 0, of the `batches` of this epoch."""
    if self.stage_epoch < self.warmup_epochs:
      share = WARMUPS[self.warmup](batch, batches, self.stage_epoch, self.warmup_epochs)
      return self.rate_max * share
    return self.rate_max * self.factor**self.cuts

  def observe(self, score: float) -> str:
    """Takes the validation score, such as CCC, of the epoch that has just ended.

    Returns 'improved' for a new best; else 'released' if the next group opens, 'stopped' at the end
    of training, or ''.
    """
    event = ''
    warming = self.stage_epoch < self.warmup_epochs
    self.epoch += 1
    self.stage_epoch += 1
    if score > self.best:
      self.best, self.best_epoch = score, self.epoch - 1
      self.bad_epochs = self.idle_epochs = 0
      event = 'improved'
    elif not warming:
      self.bad_epochs += 1
      self.idle_epochs += 1
      if self.bad_epochs > self.patience:
        self.cuts, self.bad_epochs = self.cuts + 1, 0
    if self.epoch >= self.max_epochs:
      self.done = True
    elif (
      self.exhausted()
      or self.stage_epoch >= self.max_stage_epochs
      or self.idle_epochs >= self.stop_patience
    ):
      if self.stage + 1 == self.stage_count:
        self.done = True
      else:
        self.stage += 1
        self.stage_epoch = self.cuts = self.bad_epochs = self.idle_epochs = 0
        return event or 'released'
    return event or ('stopped' if self.done else '')

  def exhausted(self) -> bool:
    """Tells whether the rate has been cut as far as it goes in one stage."""
    return RELEASES[self.release](self.rate_max * self.factor**self.cuts, self.rate_min)
