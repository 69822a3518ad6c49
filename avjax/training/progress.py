"""What a person sees of a run while it goes on: a progress bar on a terminal, lines in a log, metrics for tools."""

import logging
import sys
import time

from tqdm import tqdm

from avjax.system import sharding

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
