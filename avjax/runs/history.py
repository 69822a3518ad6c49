"""Keeps the history of a run: a line per epoch in metrics.jsonl, and TensorBoard's event file."""

from __future__ import annotations

import contextlib
import json
import pathlib
import re
from collections.abc import Iterator

from avjax import errors, files
from avjax.errors import InputError, one_line
from avjax.runs import folder as run_folder
from avjax.runs import settings

EVENTS = ('', 'improved', 'released', 'stopped')  # of an epoch: what Schedule.observe returns
MOST_LINES = settings.LARGEST['max_epochs']
COUNTS = ('step', 'epoch', 'stage')


class History:
  """Writes metrics.jsonl and TensorBoard's event file in one folder; only the primary process does.

  A run that was killed may have left lines of `epoch` or later, or a torn last one: they are
  removed, since the run writes them again. Raises InputError for a file that is damaged in any
  other way, or that cannot be written.
  """

  def __init__(self, workdir: pathlib.Path, epoch: int, primary: bool = True):
    self.path, self.primary = workdir / run_folder.METRICS, primary
    if not primary:
      return
    kept = [line for line in self.history() if line['epoch'] < epoch]
    with errors.writing(self.path):
      files.write_text(self.path, ''.join(json.dumps(line) + '\n' for line in kept))
    # Imported late, so that a rejected run never loads TensorFlow.
    import tensorflow as tf
    from clu import metric_writers

    self.tensorflow_error = tf.errors.OpError
    with self.event_file():
      self.tensorboard = metric_writers.SummaryWriter(str(workdir))

  @contextlib.contextmanager
  def event_file(self) -> Iterator[None]:
    """Turns the error that TensorFlow makes of a full disk into an InputError."""
    try:
      yield
    except self.tensorflow_error as error:
      folder = errors.on_disk(self.path.parent)
      raise InputError(
        f'the event file in {folder} cannot be written ({one_line(error)})'
      ) from error

  def history(self) -> list[dict]:
    """Returns all lines so far, without a torn last one."""
    lines = []
    try:
      texts = files.read_bytes(self.path, files.MOST_JSON).split(b'\n')
    except FileNotFoundError:
      return []
    if len(texts) - 1 > MOST_LINES:
      raise InputError(f'{self.path} has more than {MOST_LINES:,} lines, the most epochs of a run')
    # What comes after the last line end is empty, or torn.
    for number, text in enumerate(texts[:-1], 1):
      try:
        lines.append(read_line(text))
      except (LookupError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
          f'{self.path}, line {number} is damaged; correct it, or delete it and all lines after it'
        ) from error
    return lines

  def write(self, step: int, values: dict[str, float | str]) -> None:
    """Adds a line. step: batches done so far; values: {'epoch': ..., name: number or string}."""
    if not self.primary:
      return
    with errors.writing(self.path), files.open_to_append(self.path) as file:
      file.write(json.dumps({'step': step, **values}) + '\n')
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    with self.event_file():
      self.tensorboard.write_scalars(step, numbers)
      self.tensorboard.flush()


def read_line(text: bytes) -> dict:
  """Returns a line of metrics.jsonl as a dict.

  Raises ValueError, or another error of parsing, unless it has the counts of an epoch from 0,
  numbers under names, and one of EVENTS: its values are drawn and shown in the report.
  """
  line = json.loads(text)
  for name, value in line.items():
    if name == 'event':
      valid = value in EVENTS
    elif name in COUNTS:
      valid = type(value) is int and 0 <= value < 2**53
    else:
      valid = (type(value) in (int, float) and abs(value) < 1e300) or value != value
    if not valid or not re.fullmatch(r'\w{1,64}', name):
      raise ValueError(name)
  if missing := {*COUNTS, 'rate', 'train_loss', 'event'} - line.keys():
    raise KeyError(*missing)
  return line
