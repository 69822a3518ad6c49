"""Seconds and frames of each stage of the work."""

import contextlib
import time


class Clock:
  """Seconds and frames of each stage of the work."""

  def __init__(self):
    self.seconds, self.frames = {}, {}

  @contextlib.contextmanager
  def __call__(self, stage, frames):
    start = time.perf_counter()
    yield
    self.seconds[stage] = self.seconds.get(stage, 0) + time.perf_counter() - start
    self.frames[stage] = self.frames.get(stage, 0) + int(frames)

  def each(self, stage, items):
    """The items of an iterator, the time for each counted."""
    iterator = iter(items)
    while True:
      with self(stage, 1):
        item = next(iterator, None)
      if item is None:
        self.frames[stage] -= 1
        return
      yield item

  def speed(self):
    return {stage: self.frames[stage] / seconds for stage, seconds in self.seconds.items()}
