"""What a person sees of a run while it goes on: a progress bar on a terminal, lines in a log, metrics for tools."""

import contextlib
import json
import logging
import sys
import time

from tqdm import tqdm

from avjax import sharding
from avjax.weights import brief
from data_prep import errors
from data_prep.errors import InputError

logger = logging.getLogger('avjax')


def start_logging(path, primary=True):
  """Sends the log of avjax to stderr and, with times, to a file; of a process that is not the primary, its errors alone."""
  logger.setLevel(logging.INFO if primary else logging.ERROR)
  logger.propagate = False
  for handler in list(logger.handlers):
    logger.removeHandler(handler)
    handler.close()
  logger.addHandler(TerminalHandler())
  if primary:
    to_file = logging.FileHandler(path)
    to_file.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    logger.addHandler(to_file)


class TerminalHandler(logging.Handler):
  """Prints above a progress bar, not through it."""

  def emit(self, record):
    tqdm.write(record.getMessage(), file=sys.stderr)


class Metrics:
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
    from clu import metric_writers  # with TensorFlow: a run that is refused, or reads nothing, does without
    self.tensorflow_error = tf.errors.OpError
    with self.event_file():
      self.tensorboard = metric_writers.SummaryWriter(str(workdir))

  @contextlib.contextmanager
  def event_file(self):
    """A context in which what TensorFlow makes of a full disk becomes an InputError."""
    try:
      yield
    except self.tensorflow_error as error:
      raise InputError(f'the event file in {self.path.parent} cannot be written ({brief(error)})') from error

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


class Progress:
  """One bar an epoch on a terminal; nothing where stderr is no terminal, since the log has a line an epoch."""

  def __init__(self, description, batches, done, epoch_seconds, epochs_left):
    """epoch_seconds: what the epoch before took, 0 if there was none; epochs_left: after this one, at most."""
    self.epoch_seconds, self.epochs_left = epoch_seconds, epochs_left
    self.done, self.first, self.start = 0, done, time.perf_counter()
    self.bar = tqdm(total=batches, initial=done, desc=description, disable=not (sys.stderr.isatty() and sharding.is_primary()), leave=False,
                    bar_format='{desc}  |{bar:20}| {n_fmt}/{total_fmt}{postfix}')

  def update(self, examples, rate, best):
    """One more batch, of so many examples (windows)."""
    self.done += examples
    self.bar.update()
    elapsed = time.perf_counter() - self.start
    batch_seconds = elapsed / max(self.bar.n - self.first, 1)
    epoch_seconds = self.epoch_seconds or batch_seconds * self.bar.total
    left = batch_seconds * (self.bar.total - self.bar.n) + epoch_seconds * self.epochs_left
    best = f'{best:.3f}' if best > -1 else '-'
    self.bar.set_postfix_str(f'{self.done / elapsed:.1f} examples/s  rate {rate:.1e}  best CCC {best}  '
                             f'left at most {tqdm.format_interval(left)}')

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.bar.close()
