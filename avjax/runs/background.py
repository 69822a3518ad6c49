"""Saves an epoch while the next one is trained."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import jax


class Background:
  """Does one job at a time in a thread. A context manager, which waits for the last one.

  The errors of a job are raised by the next call of any method, and at the end of the context
  unless another error ends it. With several processes a job is done at once, since Orbax waits
  within a save for the other processes by their devices, and asks JAX whether a stop was asked for.
  Both must come in the same order in all processes, and would meet the training steps, and the
  count of batches after which all of them stop.
  """

  def __init__(self):
    self.pool = concurrent.futures.ThreadPoolExecutor(1, 'saving')
    self.job: concurrent.futures.Future | None = None

  def __enter__(self) -> Background:
    return self

  def __exit__(self, kind, *exception):
    self.pool.shutdown()
    if kind is None:
      self.wait()

  def begin(self, job: Callable[[], object]) -> None:
    """Begins a job once the one before is done."""
    self.wait()
    if jax.process_count() > 1:
      job()
    else:
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
