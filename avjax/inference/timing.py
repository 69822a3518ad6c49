"""Measures how long each stage of the work on a video takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar('Item')


class Clock:
  """Measures the seconds and counts the frames of each stage.

  `with clock(stage, frames):` counts a piece of work, `clock.each` an iterator.
  """

  def __init__(self):
    self.seconds, self.frames = {}, {}

  @contextlib.contextmanager
  def __call__(self, stage: str, frames: int) -> Iterator[None]:
    """Adds the time of a context, and its frames, to a stage."""
    start = time.perf_counter()
    yield
    self.seconds[stage] = self.seconds.get(stage, 0) + time.perf_counter() - start
    self.frames[stage] = self.frames.get(stage, 0) + int(frames)

  def each(self, stage: str, items: Iterable[Item]) -> Iterator[Item]:
    """Yields the items of an iterator and adds the time for each, and one frame, to a stage."""
    iterator = iter(items)
    while True:
      with self(stage, 1):
        item = next(iterator, None)
      if item is None:
        self.frames[stage] -= 1
        return
      yield item

  def speed(self) -> dict[str, float]:
    """Returns {stage: frames per second}."""
    return {stage: self.frames[stage] / seconds for stage, seconds in self.seconds.items()}
