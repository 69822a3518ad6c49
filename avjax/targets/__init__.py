"""Declares what is predicted: valence and arousal, each a column of the labels in the records."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Target:
  """Describes one predicted dimension.

  column: of the record field `va`.
  colour: of its curve in every picture; the two can be told apart without colour vision.
  lowest, highest: range of its labels, to which predictions are clipped.
  """

  name: str
  column: int
  colour: str
  lowest: float = -1.0
  highest: float = 1.0


TARGETS = {
  target.name: target
  for target in (Target('valence', 0, '#0072b2'), Target('arousal', 1, '#d55e00'))
}

# What `target=` in the argument of a config stands for; `joint` is one model with both outputs
# (eq. 22).
CHOICES = {'valence': ('valence',), 'arousal': ('arousal',), 'joint': ('valence', 'arousal')}


def columns(names):
  """Returns the columns of the labels (..., 2) that these targets take, in order."""
  return [TARGETS[name].column for name in names]


def bounds(names):
  """Returns (lowest, highest) of these targets, a list for each."""
  found = [TARGETS[name] for name in names]
  return [target.lowest for target in found], [target.highest for target in found]
