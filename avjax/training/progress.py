"""Shows the progress of a run: a bar on a terminal, and lines on stderr and in a log file."""

from __future__ import annotations

import contextlib
import logging
import pathlib
import sys
import time

import numpy as np
from tqdm import tqdm

from avjax import errors, files
from avjax.system import sharding
from avjax.targets import TARGETS, criterion

logger = logging.getLogger('avjax')
logger.addFilter(errors.make_record_visible)


def start_logging(path: str | pathlib.Path, primary: bool = True) -> None:
  """Sends the log of avjax to stderr and, with times, to a file.

  A process that is not the primary sends only errors, and only to stderr.
  """
  logger.setLevel(logging.INFO if primary else logging.ERROR)
  logger.propagate = False
  for handler in list(logger.handlers):
    logger.removeHandler(handler)
    handler.close()
  logger.addHandler(TerminalHandler())
  if primary:
    to_file = LogFile(path)
    to_file.setFormatter(logging.Formatter('%(asctime)s %(message)s'))
    logger.addHandler(to_file)


class LogFile(logging.FileHandler):
  """Adds log lines to a file, which `files.open_to_append` opens."""

  def _open(self):
    return files.open_to_append(self.baseFilename, errors='backslashreplace')


class TerminalHandler(logging.Handler):
  """Prints log lines above a progress bar, not through it.

  A run goes on when the terminal has gone; its log file has every line.
  """

  def emit(self, record: logging.LogRecord) -> None:
    with contextlib.suppress(OSError):
      # In one piece, since other processes may write to the same place.
      tqdm.write(f'{record.getMessage()}\n', file=sys.stderr, end='')


class Progress:
  """Draws the progress bar of one epoch. A context manager.

  It draws nothing if stderr is not a terminal; the log has a line per epoch.
  """

  def __init__(
    self,
    description: str,
    batches: int,
    done: int,
    epoch_seconds: float,
    epochs_left: int,
    metric: str,
  ):
    """Starts the bar.

    Args:
      description: text before the bar.
      batches: number in the epoch.
      done: how many of them were done before the run was stopped.
      epoch_seconds: seconds that the previous epoch took, 0 if there was none.
      epochs_left: after this one, at most.
      metric: name of the score that chooses the best epoch, such as ccc.
    """
    self.epoch_seconds, self.epochs_left, self.metric = epoch_seconds, epochs_left, metric
    self.done, self.first, self.start = 0, done, time.perf_counter()
    shown = sys.stderr.isatty() and sharding.is_primary()
    self.bar = tqdm(
      total=batches,
      initial=done,
      desc=description,
      disable=not shown,
      leave=False,
      bar_format='{desc}  |{bar:20}| {n_fmt}/{total_fmt}{postfix}',
    )

  def update(self, examples: int, rate: float, best: float) -> None:
    """Counts one more batch, of `examples` windows.

    rate: learning rate of the batch; best: the best score so far, -inf if there is none yet.
    """
    self.done += examples
    self.bar.update()
    elapsed = time.perf_counter() - self.start
    batch_seconds = elapsed / max(self.bar.n - self.first, 1)
    epoch_seconds = self.epoch_seconds or batch_seconds * self.bar.total
    left = batch_seconds * (self.bar.total - self.bar.n) + epoch_seconds * self.epochs_left
    best_text = f'{best:.3f}' if best > -1 else '-'
    self.bar.set_postfix_str(
      f'{self.done / elapsed:.1f} examples/s  rate {rate:.1e}  '
      f'best {self.metric.upper()} {best_text}  '
      f'left at most {tqdm.format_interval(left)}'
    )

  def __enter__(self) -> Progress:
    return self

  def __exit__(self, *exception):
    self.bar.close()


def summarize_updates(log) -> dict[str, float]:
  """Returns the mean loss and gradient norm of the updates that were made, and the number skipped.

  log: (loss, gradient norm) of each update; one that is not finite was skipped.
  """
  values = np.array(log, float)
  finite = np.isfinite(values).all(axis=1)
  loss, norm = values[finite].mean(axis=0) if finite.any() else (np.nan, np.nan)
  return {
    'train_loss': float(loss),
    'gradient_norm': float(norm),
    'skipped_updates': int((~finite).sum()),
  }


def flat_scores(scores, targets) -> dict[str, float]:
  """Returns {'validation_ccc_valence': ..., ...}, every metric of every target."""
  return {
    f'validation_{metric}_{target}': scores[target][metric]
    for target in targets
    for metric in TARGETS[target].metrics
  }


def report_epoch(title: str, epoch_log: dict, targets, updates: int):
  """Writes the line of an epoch to the log, and a warning if updates were skipped."""
  first = {target: TARGETS[target].metrics[0] for target in targets}
  scores = '  '.join(
    f'{target} {metric.upper()} {epoch_log[f"validation_{metric}_{target}"]:.3f}'
    for target, metric in first.items()
  )
  best = epoch_log[f'best_{criterion(targets)}']
  logger.info(
    f'{title}  loss {epoch_log["train_loss"]:.3f}  rate {epoch_log["rate"]:.1e}  {scores}  '
    f'best {best:.3f}  {epoch_log["examples_per_second"]:.1f} examples/s  '
    f'{epoch_log["seconds"]:.0f} s  {epoch_log["event"]}'
  )
  if skipped := epoch_log['skipped_updates']:
    logger.warning(
      f'{skipped} of the {updates} updates were skipped: loss or gradient was not finite'
    )
