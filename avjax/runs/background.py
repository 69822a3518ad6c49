"""Saves an epoch while the next one is trained."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Callable

from avjax.errors import one_line

logger = logging.getLogger('avjax')


class Background:
  """Does one job at a time in a thread. A context manager, which waits for the last one.

  The errors of a job are raised by the next call of any method, and at the end of the context
  unless another error ends it, in which case they are logged.
  """

  def __init__(self):
    self.pool = concurrent.futures.ThreadPoolExecutor(1, 'saving')
    self.job: concurrent.futures.Future | None = None

  def __enter__(self) -> Background:
    return self

  def __exit__(self, kind, *exception):
    self.pool.shutdown()
    try:
      self.wait()
    except Exception as error:
      if kind is None:
        raise
      logger.error('what was still to be saved is not: %s', one_line(error))

  def begin(self, job: Callable[[], object]) -> None:
    """Begins a job once the one before is done."""
    self.wait()
    self.job = self.pool.submit(job)

  def check(self) -> None:
    """Raises the error with which the job has ended, if it has; waits for nothing."""
    if self.job and self.job.done():
      self.wait()

  def wait(self) -> None:
    """Waits until the job is done."""
    job, self.job = self.job, None
    if job:
      job.result()
