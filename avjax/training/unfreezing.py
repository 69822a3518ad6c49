"""Which groups train when, and at what rate: plain Python, no arrays.

Section 4.3.2 of the paper: group 1 opens at epoch 0 under a warm-up that is repeated in each of the first epochs; then
the rate is cut tenfold whenever validation CCC has not improved for `patience` epochs; once it has reached the minimum,
the next group opens and everything starts over, until the last group is done. docs/schedule.png draws it.
"""

import dataclasses
import re

from avjax import ranges

# Readings of "linearly warmed up to 1e-5 within an epoch, repetitive until epoch 5": the share of the full rate for batch b of
# B, in epoch e of the E epochs of warm-up; all count from 0.
WARMUPS = {
    'paper': lambda b, B, e, E: (b + 1) / B,              # a ramp to the full rate in every epoch
    'author': lambda b, B, e, E: b / B * (e + 1) / E ** 2,  # their code divides by E twice: ramps to .04, .08, ... .20, then a jump
    'linear5': lambda b, B, e, E: (e + (b + 1) / B) / E,  # one ramp over all E epochs
}
# When the next group opens. 1e-5 * 0.1^3 comes out as 1.0000000000000004e-08, so the predecessors' `rate < 1e-8` takes a fourth cut.
RELEASES = {
    'at_minimum': lambda rate, minimum: rate <= minimum * (1 + 1e-9),
    'below_minimum': lambda rate, minimum: rate < minimum * (1 - 1e-9),
}


RANGES = {
    'max_epochs': ranges.at_least(1),
    'warmup': ranges.OneOf(tuple(WARMUPS)),
    'release': ranges.OneOf(tuple(RELEASES)),
    'factor': ranges.Range(lambda factor: 0 < factor < 1, 'between 0 and 1'),
}


@dataclasses.dataclass(frozen=True)
class TrainableMask:
  """Whether the parameter or module at a path is trained: a prefix pattern of an open group matches 'path/'."""
  patterns: tuple[str, ...]

  def __call__(self, path):
    return any(re.match(pattern, path + '/') for pattern in self.patterns)


def stages(groups, frozen, paths):
  """Returns the `Trains` of each stage: stage k trains groups 0 to k.

  groups is a sequence of sequences of patterns, frozen one sequence, paths all parameters of the model. Raises
  ValueError if a pattern matches nothing, or a path is matched by no group or by more than one.
  """
  sets = [*groups, frozen]
  for pattern in (pattern for group in sets for pattern in group):
    if not any(TrainableMask((pattern,))(path) for path in paths):
      raise ValueError(f'unfreezing pattern {pattern!r} matches no parameter of the model')
  for path in paths:
    owners = [i for i, group in enumerate(sets) if TrainableMask(tuple(group))(path)]
    if len(owners) != 1:
      raise ValueError(f'parameter {path} is in {len(owners)} unfreezing groups; it must be in one, or in `frozen`')
  groups = [group for group in groups if group]  # without towers only the first has anything in it
  return [TrainableMask(tuple(pattern for group in groups[:k + 1] for pattern in group)) for k in range(len(groups))]


@dataclasses.dataclass
class Schedule:
  """The state machine that drives training. `observe` one validation CCC per epoch, ask `rate` per batch.

  Counting is PyTorch's: with patience 5 the rate is cut after the 6th epoch in a row that brings no improvement.
  """
  stage_count: int
  rate_max: float = 1e-5
  rate_min: float = 1e-8
  warmup: str = 'paper'        # a key of WARMUPS
  warmup_epochs: int = 5
  release: str = 'at_minimum'  # a key of RELEASES
  patience: int = 5
  factor: float = 0.1
  max_epochs: int = 100
  max_stage_epochs: int = 100
  stop_patience: int = 50   # epochs of one stage, after its warm-up, without a new best

  stage: int = 0
  epoch: int = 0            # epochs finished, over all stages
  stage_epoch: int = 0      # epochs finished in this stage
  cuts: int = 0             # of the rate, in this stage
  bad_epochs: int = 0       # since the last improvement or cut, after the warm-up
  idle_epochs: int = 0      # since the last improvement, after the warm-up
  best: float = -float('inf')
  best_epoch: int = -1
  done: bool = False

  def rate(self, batch, batches):
    """The learning rate of a batch, counted from 0, of the `batches` of the current epoch."""
    if self.stage_epoch < self.warmup_epochs:
      return self.rate_max * WARMUPS[self.warmup](batch, batches, self.stage_epoch, self.warmup_epochs)
    return self.rate_max * self.factor ** self.cuts

  def observe(self, ccc):
    """Takes the validation CCC of the epoch that has just ended; returns 'improved', 'released', 'stopped' or ''."""
    event = ''
    warming = self.stage_epoch < self.warmup_epochs
    self.epoch += 1
    self.stage_epoch += 1
    if ccc > self.best:
      self.best, self.best_epoch = ccc, self.epoch - 1
      self.bad_epochs = self.idle_epochs = 0
      event = 'improved'
    elif not warming:
      self.bad_epochs += 1
      self.idle_epochs += 1
      if self.bad_epochs > self.patience:
        self.cuts, self.bad_epochs = self.cuts + 1, 0
    if self.epoch >= self.max_epochs:
      self.done = True
    elif self.exhausted() or self.stage_epoch >= self.max_stage_epochs or self.idle_epochs >= self.stop_patience:
      if self.stage + 1 == self.stage_count:
        self.done = True
      else:
        self.stage += 1
        self.stage_epoch = self.cuts = self.bad_epochs = self.idle_epochs = 0
        return event or 'released'
    return event or ('stopped' if self.done else '')

  def exhausted(self):
    """Whether the rate has been cut as far as it goes in one stage."""
    return RELEASES[self.release](self.rate_max * self.factor ** self.cuts, self.rate_min)
