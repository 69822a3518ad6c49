"""What a person sees of a run while it goes on: a progress bar on a terminal, lines in a log, metrics for tools."""

import contextlib
import json

from avjax import errors
from avjax.errors import InputError, one_line


class History:
  """TensorBoard's event files and metrics.jsonl, a line an epoch, in one folder.

  Lines from `epoch` on, or a torn last one, which a run that was killed has left, go: it writes them again. Only the primary
  process writes. Raises InputError for a file that is damaged otherwise, or that cannot be written.
  """

  def __init__(self, workdir, epoch, primary=True):
    self.path, self.primary = workdir / 'metrics.jsonl', primary
    if not primary:
      return
    kept = [line for line in self.history() if line['epoch'] < epoch]
    with errors.writing(self.path):
      partial = self.path.with_name(self.path.name + '.partial')
      partial.write_text(''.join(json.dumps(line) + '\n' for line in kept))
      partial.replace(self.path)
    import tensorflow as tf
    from clu import (
      metric_writers,  # with TensorFlow: a run that is refused, or reads nothing, does without
    )
    self.tensorflow_error = tf.errors.OpError
    with self.event_file():
      self.tensorboard = metric_writers.SummaryWriter(str(workdir))

  @contextlib.contextmanager
  def event_file(self):
    """A context in which what TensorFlow makes of a full disk becomes an InputError."""
    try:
      yield
    except self.tensorflow_error as error:
      raise InputError(f'the event file in {self.path.parent} cannot be written ({one_line(error)})') from error

  def history(self):
    """All lines so far, as dicts, but for a torn last one."""
    lines = []
    texts = self.path.read_bytes().split(b'\n') if self.path.exists() else [b'']
    for number, text in enumerate(texts[:-1], 1):  # after the last line end stands nothing, or what is torn
      try:
        line = json.loads(text)
        lines.append({**line, 'epoch': int(line['epoch'])})
      except (ValueError, TypeError, KeyError) as error:
        raise InputError(f'{self.path}, line {number} is damaged; mend it, or take all lines from there on out') from error
    return lines

  def write(self, step, values):
    """values: {'epoch': ..., name: number or string}."""
    if not self.primary:
      return
    with errors.writing(self.path), self.path.open('a') as file:
      file.write(json.dumps({'step': step, **values}) + '\n')
    with self.event_file():
      self.tensorboard.write_scalars(step, {name: value for name, value in values.items() if not isinstance(value, str)})
      self.tensorboard.flush()
