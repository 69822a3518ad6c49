"""Keeps the history of a run: a line per epoch in metrics.jsonl, and TensorBoard's event file."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator

from avjax import errors, files
from avjax.errors import InputError, one_line
from avjax.runs import folder as run_folder


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
      raise InputError(
        f'the event file in {self.path.parent} cannot be written ({one_line(error)})'
      ) from error

  def history(self) -> list[dict]:
    """Returns all lines so far, without a torn last one."""
    lines = []
    texts = self.path.read_bytes().split(b'\n') if self.path.exists() else [b'']
    # What comes after the last line end is empty, or torn.
    for number, text in enumerate(texts[:-1], 1):
      try:
        line = json.loads(text)
        lines.append({**line, 'epoch': int(line['epoch'])})
      except (ValueError, TypeError, KeyError) as error:
        raise InputError(
          f'{self.path}, line {number} is damaged; correct it, or delete it and all lines after it'
        ) from error
    return lines

  def write(self, step: int, values: dict[str, float | str]) -> None:
    """Adds a line. step: batches done so far; values: {'epoch': ..., name: number or string}."""
    if not self.primary:
      return
    with errors.writing(self.path), self.path.open('a', encoding='utf-8') as file:
      file.write(json.dumps({'step': step, **values}) + '\n')
    numbers = {name: value for name, value in values.items() if not isinstance(value, str)}
    with self.event_file():
      self.tensorboard.write_scalars(step, numbers)
      self.tensorboard.flush()
