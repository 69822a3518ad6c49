"""Stopping a run at any moment without losing it."""

import signal


class Stopped(Exception):
  """The process was asked to stop."""


class StopSignal:
  """A context in which SIGTERM and the first Ctrl-C become a `Stopped` between two batches, so that the state can be saved.

  A second Ctrl-C interrupts at once.
  """

  def __enter__(self):
    self.asked = False
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

  def watch(self, batches):
    """The batches, until the signal comes: then Stopped."""
    for batch in batches:
      if self.asked:
        raise Stopped
      yield batch
