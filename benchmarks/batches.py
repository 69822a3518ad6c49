"""Makes batches with random content, for what is timed."""

import numpy as np

ROWS_PER_FRAME = 100 / 30


def random_batch(config, clips):
  """Returns a batch of records with random content, as `System.select` takes it."""
  rng, length, face = np.random.default_rng(0), config.data.length, config.data.face
  rows = int(length * ROWS_PER_FRAME) + 100
  starts = np.floor(np.arange(length) * ROWS_PER_FRAME).astype(np.int32)
  return {
    'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
    'log_mel': rng.normal(-3, 2, (clips, rows, 64)).astype(np.float16),
    'starts': np.tile(starts, (clips, 1)),
    'real': np.ones((clips, length), bool),
    'va': rng.uniform(-1, 1, (clips, length, 2)).astype(np.float32),
    'annotated': np.ones((clips, length), bool),
  }
