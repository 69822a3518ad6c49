"""Stopping a run at any moment without losing it."""

import signal


class Stopped(Exception):
  """The process was asked to stop."""


class StopSignal:
  """A context in which SIGTERM and the first Ctrl-C become a `Stopped` between two batches, so that the state can be saved.

  A second Ctrl-C interrupts at once. With `several` processes, one SIGTERM stops all, at the same batch: JAX itself catches it
  and lets them agree.
  """

  def __init__(self, several=False):
    self.several, self.asked, self.batches, self.handlers = several, False, 0, {}

  def __enter__(self):
    if not self.several:
      self.handlers = {number: signal.signal(number, self._ask) for number in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *exception):
    for number, handler in self.handlers.items():
      signal.signal(number, handler)

  def _ask(self, number, frame):
    del frame
    if self.asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.asked = True

  def check(self):
    """Raises Stopped if the signal has come. To be called as often by all processes."""
    self.batches += 1
    if self.several:
      from jax.experimental import (
        multihost_utils,  # here: the handlers are set before JAX is there
      )
      self.asked = multihost_utils.reached_preemption_sync_point(self.batches)
    if self.asked:
      raise Stopped

  def watch(self, batches):
    """The batches, until the signal comes: then Stopped."""
    for batch in batches:
      self.check()
      yield batch
