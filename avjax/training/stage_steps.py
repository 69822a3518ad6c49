"""Compiles the training step of each stage, that of the next one while the current one trains."""

from __future__ import annotations

import concurrent.futures
import logging

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from avjax.system import steps
from avjax.training.plan import Plan

logger = logging.getLogger('avjax')


class StageSteps:
  """Runs the training steps of a run: one compiled program for each stage. A context manager.

  The compiler works in a thread. It begins with the next stage after the first step of the current
  one, for the shapes of its batch, which all batches of a run have. Where the context ends earlier,
  Python waits at its own end for what has begun, which the cache of programs keeps.
  """

  def __init__(self, plan: Plan, mesh: Mesh):
    self.plan, self.mesh = plan, mesh
    self.pool = concurrent.futures.ThreadPoolExecutor(1, 'compiler')
    self.programs: dict[int, concurrent.futures.Future] = {}  # {stage: its step}

  def __enter__(self) -> StageSteps:
    return self

  def __exit__(self, *exception):
    self.pool.shutdown(wait=False, cancel_futures=True)

  def __call__(self, stage: int, state: steps.State, *arguments):
    """Runs a step of a stage, counted from 0: (state, batch, key, rate) -> (state, metrics).

    Everything must be on the devices.
    """
    if stage not in self.programs:
      self.begin(stage, state, arguments)
    if not self.programs[stage].done():
      logger.info('compiling stage %d of %d ...', stage + 1, len(self.plan.stages))
    step = self.wait(stage, state, arguments)
    with jax.transfer_guard_host_to_device('disallow'):
      state, metrics = step(state, *arguments)
    self.programs.pop(stage - 1, None)
    if stage + 1 not in self.programs and stage + 1 < len(self.plan.stages):
      self.begin(stage + 1, state, arguments)
    return state, metrics

  def wait(self, stage: int, state: steps.State, arguments):
    """Returns the compiled step of a stage."""
    try:
      return self.programs[stage].result()
    except jax.errors.JaxRuntimeError:
      # Beside a stage that trains there may have been too little memory to try programs in.
      self.begin(stage, state, arguments)
      return self.programs[stage].result()

  def begin(self, stage: int, state: steps.State, arguments):
    """Begins to compile a stage for arguments of these shapes, and for the variables of `state`."""
    shapes = jax.eval_shape(lambda x: self.plan.initial_state(stage, x), state.variables)
    whole = NamedSharding(self.mesh, PartitionSpec())
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), shapes)
    rest = jax.tree.map(as_shape, arguments)
    step = self.plan.system.make_train_step(self.plan.stages[stage], self.plan.optimizers[stage])
    self.programs[stage] = self.pool.submit(lambda: step.lower(state, *rest).compile())


def as_shape(x: jax.Array) -> jax.ShapeDtypeStruct:
  """Returns shape, type and place of an array; one that is committed to no place may go to any."""
  return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding if x.committed else None)
