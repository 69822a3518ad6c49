"""Stopping a run at any moment without losing it."""

import signal

import jax
from jax.experimental import multihost_utils


class Stopped(Exception):
  """The process was asked to stop."""


class StopSignal:
  """A context in which SIGTERM and the first Ctrl-C become a `Stopped` between two batches, so that the state can be saved.

  A second Ctrl-C interrupts at once. Of several processes, one SIGTERM stops all, at the same batch: JAX itself catches it
  and lets them agree.
  """

  def __enter__(self):
    self.asked, self.batches = False, 0
    numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else ()
    self.handlers = {number: signal.signal(number, self._ask) for number in numbers}
    return self

  def __exit__(self, *exception):
    for number, handler in self.handlers.items():
      signal.signal(number, handler)

  def _ask(self, number, frame):
    del frame
    if self.asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.asked = True

  def watch(self, batches):
    """The batches, until the signal comes: then Stopped."""
    for batch in batches:
      self.batches += 1
      if self.asked or multihost_utils.reached_preemption_sync_point(self.batches):  # False in a single process
        raise Stopped
      yield batch
