"""Makes what is timed: batches with random content, and training steps on them."""

import jax
import numpy as np

from avjax.system import steps
from avjax.training import optimizer
from avjax.training.plan import make_stages

RATE, ROWS_PER_FRAME = 1e-5, 100 / 30


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


def training_step(system, config, stage, clips):
  """Returns (the lowered training step of a stage, counted from 1; a function that runs it).

  That function takes the compiled step, runs it once on the state that it left the last time, and
  returns its metrics. Batch and state are on the device.
  """
  chosen = make_stages(config, steps.parameter_paths(system.shapes['params']))[stage - 1]
  transform = optimizer.make_optimizer(chosen, config.optimizer)
  state = [steps.make_state(system.init(0), transform)]  # donated, and replaced by each step
  batch = jax.device_put(system.select(random_batch(config, clips)))
  rest = batch, jax.random.key(0), jax.device_put(np.float32(RATE))

  def run(program):
    state[0], metrics = program(state[0], *rest)
    return metrics

  return system.make_train_step(chosen, transform).lower(state[0], *rest), run
