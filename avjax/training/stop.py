"""Stops a run between two batches when a signal asks for it, so that nothing is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import TypeVar

Batch = TypeVar('Batch')


class Stopped(Exception):
  """Raised between two batches once the process was asked to stop."""


class StopSignal:
  """Turns SIGTERM and the first Ctrl-C into `Stopped`, so that the state can be saved.

  A context manager. A second Ctrl-C interrupts as soon as the epoch before is saved. With `several`
  processes only SIGTERM stops them: JAX catches it in one of them, and all stop at the same batch.
  JAX compares the numbers that `check` gives it, so nothing else may ask it: see
  avjax.runs.checkpoint.Manager.
  """

  def __init__(self, several: bool = False):
    self.several, self.asked, self.batches, self.handlers = several, False, 0, {}

  def __enter__(self) -> StopSignal:
    if not self.several:
      self.handlers = {
        number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)
      }
    return self

  def __exit__(self, *exception):
    for number, handler in self.handlers.items():
      signal.signal(number, handler)

  def _ask(self, number, frame):
    del frame
    if self.asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.asked = True

  def check(self) -> None:
    """Raises Stopped if the signal has come.

    A collective: every process must call it the same number of times.
    """
    self.batches += 1
    if self.several:
      # Imported late, so that the handlers are set before JAX is loaded.
      from jax.experimental import multihost_utils

      self.asked = multihost_utils.reached_preemption_sync_point(self.batches)
    if self.asked:
      raise Stopped

  def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yields the batches; raises Stopped before the next one once the signal has come."""
    for batch in batches:
      self.check()
      yield batch
