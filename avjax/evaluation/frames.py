"""Predicts for the windows of records, and runs the towers once for each frame of a clip.

Windows overlap, and the towers, which see a frame at a time, are nearly all of the work. So frames
that the record before does not have are packed into blocks of a fixed size, whichever records they
come from, and the features of a window are put together before it is decoded.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from avjax.system import System, sharding

# Most frames of a block on one device: enough to fill a GPU, and few to be lost in the last block.
BLOCK_FRAMES = 512


@dataclasses.dataclass
class Window:
  """Holds a record whose features are not complete yet.

  kept: the fields that are not for the towers.
  numbers: (L,) the place of each frame in the order in which frames are encoded; -1 on padding.
  """

  kept: dict[str, Any]
  numbers: np.ndarray


class WindowPredictor:
  """Predicts for records, whose frames are encoded in blocks and decoded in batches of windows.

  Both have one size, so that each is compiled once. The host keeps the features of the record that
  was read last, and of the windows that wait for a block. The record after it takes its features
  from there if it is of the same clip: in any order of records the predictions are the same, and in
  the order of windows no frame is encoded twice.

  system: the System that predicts.
  variables: of the model, on the devices of the mesh.
  mesh: devices of this process, over which the frames of a block and the windows of a batch are
    split.
  batch_size: windows that are decoded together, rounded up to a multiple of the devices; a block
    has at most as many frames.
  """

  def __init__(self, system: System, variables, mesh, batch_size: int):
    self.system, self.variables, self.mesh = system, variables, mesh
    self.batch_size = sharding.padded_size(batch_size, mesh)
    frames = self.batch_size // mesh.size * system.inputs.length
    self.block_shape = mesh.size, min(frames, BLOCK_FRAMES)
    self.waiting: collections.deque[Window] = collections.deque()
    self.last_clip, self.last_numbers = None, {}  # {frame id: number} of the record read last
    self.count = 0  # frames that have a number
    self.encoded = 0  # frames whose features have been there
    # Those that are still needed: their numbers (n,), ascending, and features, each (n,D) or None.
    self.numbers, self.features = np.zeros(0, np.int64), None

  def predict(self, records: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields (record, output) for each record, in their order.

    records: dicts with clip, frames and the fields that the model reads, each of one record.

    The record is without the fields of the towers. The output is that of `System.decode`:
    {'prediction': (L,outputs), 'gates': {name: (L,K)}}.
    """
    for windows, output in fetch_late(self.decode(self.complete(records))):
      for i, window in enumerate(windows):
        yield window.kept, jax.tree.map(lambda x, i=i: x[i], output)

  def decode(self, windows):
    """Yields (the windows of a batch, what is being computed for them).

    windows: pairs of a Window and its features, (L,D) each.
    """
    windows = iter(windows)
    while batch := list(itertools.islice(windows, self.batch_size)):
      chosen, features = zip(*batch, strict=True)

      def stack(*rows):
        stacked = np.zeros((self.batch_size, *rows[0].shape), rows[0].dtype)
        stacked[: len(rows)] = rows
        return stacked

      visual, audio = jax.tree.map(stack, *features)
      mask = stack(*(window.numbers >= 0 for window in chosen))
      arguments = sharding.shard((visual, audio, mask), self.mesh)
      yield chosen, self.system.decode_step(self.variables, *arguments)

  def complete(self, records):
    """Yields (Window, its visual and audio features (L,D)) once all its frames are encoded."""
    for count, features in fetch_late(self.encode(records)):
      self.keep(count, features)
      yield from self.pop_complete()
      self.forget()
    yield from self.pop_complete()  # those that share all their frames with others

  def encode(self, records):
    """Yields (frames of a block, their features, which are being computed)."""
    for count, block in self.blocks(records):
      device_block = sharding.shard(block, self.mesh)
      yield count, self.system.encode_step(self.variables, device_block)

  def blocks(self, records):
    """Yields (frames, a block of them) of all frames that the record before does not have.

    Each block is new, since a device may still read the one before.
    """
    inputs, size = self.system.inputs, self.block_shape[0] * self.block_shape[1]
    block, filled = inputs.blank_block(*self.block_shape), 0
    for record in records:
      new = self.enter(record)
      while len(new):
        placed, new = np.split(new, [size - filled])
        inputs.copy_frames(record, placed, block, filled)
        filled += len(placed)
        if filled == size:
          yield filled, block
          block, filled = inputs.blank_block(*self.block_shape), 0
    if filled or not self.count:  # how wide features are is known from a block only
      yield filled, block

  def enter(self, record) -> np.ndarray:
    """Lets the window of a record wait, and returns its frames that have to be encoded, (n,)."""
    frame_mask = np.asarray(record['real'], bool)
    ids = record['frames'][frame_mask].tolist()
    known = self.last_numbers if record['clip'] == self.last_clip else {}
    numbers = np.full(len(frame_mask), -1)
    numbers[frame_mask] = [known.get(frame, -1) for frame in ids]
    new = np.flatnonzero(frame_mask & (numbers < 0))
    numbers[new] = self.count + np.arange(len(new))
    self.count += len(new)
    self.last_clip = record['clip']
    self.last_numbers = dict(zip(ids, numbers[frame_mask].tolist(), strict=True))
    towers = set(self.system.inputs.fields) - {'real'}
    self.waiting.append(Window({k: x for k, x in record.items() if k not in towers}, numbers))
    return new

  def keep(self, count, features):
    """Takes the features of a block, each (rows,n,D), of which the first `count` are of frames."""
    self.numbers = np.append(self.numbers, self.encoded + np.arange(count))
    self.encoded += count
    new = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:count], features)
    if self.features is not None:
      new = jax.tree.map(lambda *parts: np.concatenate(parts), self.features, new)
    self.features = new

  def pop_complete(self):
    """Yields the windows whose frames are all encoded, with their features."""
    while self.waiting and self.waiting[0].numbers.max() < self.encoded:
      window = self.waiting.popleft()
      frame_mask = window.numbers >= 0
      rows = np.searchsorted(self.numbers, window.numbers[frame_mask])

      def take(x, rows=rows, frame_mask=frame_mask):
        taken = np.zeros((len(frame_mask), x.shape[-1]), x.dtype)
        taken[frame_mask] = x[rows]
        return taken

      yield window, jax.tree.map(take, self.features)

  def forget(self):
    """Drops the features that neither a window that waits nor the next record can need."""
    needed = [*self.last_numbers.values(), *(window.numbers for window in self.waiting)]
    needed = np.isin(self.numbers, np.hstack([-1, *needed]))
    self.numbers = self.numbers[needed]
    self.features = jax.tree.map(lambda x: x[needed], self.features)


def fetch_late(dispatched):
  """Yields (what, arrays on the host) for pairs of what is computed, and the arrays being computed.

  Each is fetched only after the next one has been dispatched, so that devices do not wait for the
  host.
  """
  for (what, arrays), _ in itertools.pairwise(itertools.chain(dispatched, [None])):
    yield what, jax.device_get(arrays)
