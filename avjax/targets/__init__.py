"""Declares what is predicted: valence and arousal, each a column of the labels in the records.

A Target tells training, evaluation and figures how many numbers the model predicts for it, what
these mean, where its labels are, and its loss and metrics.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Target:
  """Describes one predicted dimension.

  A target with more than one number per frame is a subclass: it sets `outputs`, and defines in
  `activate` and `decide` what these mean.

  field, column: the field of the records that holds the labels, and the column of it.
  colour, dark_colour: of its curve in every figure, on a light and on a dark background; the
    colours of all targets can be told apart without colour vision.
  line: '-' or '--', the line style of its curve.
  lowest, highest: range of its labels.
  outputs: how many numbers the model predicts for a frame.
  loss: its name in losses.LOSSES.
  metrics: their names in metrics.METRICS. The best epoch is the one in which the first of
    them, averaged over the targets of the run, is highest.
  """

  name: str
  column: int
  colour: str
  dark_colour: str
  line: str = '-'
  field: str = 'va'
  lowest: float = -1
  highest: float = 1
  outputs: int = 1
  loss: str = 'ccc'
  metrics: tuple[str, ...] = ('ccc', 'pcc', 'rmse', 'sagr', 'bias')

  def activate(self, x):
    """Turns outputs of the model (B,L,outputs) into what is averaged over windows and frames."""
    return x.clip(self.lowest, self.highest)

  def decide(self, x):
    """Turns these averages, (N,outputs), into predictions (N,) in the units of the labels."""
    return x[:, 0]


TARGETS = {
  target.name: target
  for target in (
    Target('valence', 0, '#0072b2', '#56b4e9'),
    Target('arousal', 1, '#d55e00', '#ff9248', line='--'),
  )
}

# The targets that `target=` in the argument of a config selects; `joint` is one model with both
# outputs (eq. 22).
CHOICES = {'valence': ('valence',), 'arousal': ('arousal',), 'joint': ('valence', 'arousal')}


def count_outputs(names):
  """Returns the number of outputs of a model that predicts these targets."""
  return sum(TARGETS[name].outputs for name in names)


def split_outputs(names, x):
  """Yields (target, its outputs) of the outputs of a model (..., outputs), in order."""
  first = 0
  for name in names:
    target = TARGETS[name]
    yield target, x[..., first : first + target.outputs]
    first += target.outputs


def value_range(names):
  """Returns (lowest, highest) of the labels of all these targets."""
  found = [TARGETS[name] for name in names]
  return min(target.lowest for target in found), max(target.highest for target in found)


def label_fields(names):
  """Returns the fields of the records that hold the labels of these targets, each once."""
  return list(dict.fromkeys(TARGETS[name].field for name in names))


def select_labels(names, record):
  """Returns the labels of these targets, (..., targets).

  record: {field: (..., columns)}, one record or a batch of NumPy arrays.
  """
  found = [TARGETS[name] for name in names]
  return np.stack([record[target.field][..., target.column] for target in found], axis=-1)


def metric_names(names):
  """Returns the names of the metrics of these targets, each once."""
  return list(dict.fromkeys(metric for name in names for metric in TARGETS[name].metrics))


def criterion(names):
  """Names what chooses the best epoch: the first metric if all targets share it, else 'score'."""
  first = {TARGETS[name].metrics[0] for name in names}
  return first.pop() if len(first) == 1 else 'score'
