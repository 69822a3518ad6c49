"""Tests that each stage is compiled once, ahead of its time, and steps as the plain step does."""

import types

import jax
import numpy as np
import pytest
import tiny
from test_step import random_batch

from avjax.system import System, sharding, steps
from avjax.training import optimizer
from avjax.training.plan import make_stages
from avjax.training.stage_steps import StageSteps


@pytest.fixture(scope='module')
def plan():
  """What StageSteps takes of a Plan, for two stages of the tiny config."""
  config = tiny.get_config()
  system = System.from_config(config)
  stages = make_stages(config, steps.parameter_paths(system.shapes['params']))[:2]
  optimizers = [optimizer.make_optimizer(stage, config.optimizer) for stage in stages]
  return types.SimpleNamespace(
    config=config,
    system=system,
    stages=stages,
    optimizers=optimizers,
    initial_state=lambda stage, variables: steps.make_state(variables, optimizers[stage]),
  )


@pytest.fixture
def begun(monkeypatch):
  """The stages that the compiler has begun with, in order."""
  stages, begin = [], StageSteps.begin

  def noted(self, stage, *arguments):
    stages.append(stage)
    begin(self, stage, *arguments)

  monkeypatch.setattr(StageSteps, 'begin', noted)
  return stages


def arguments(plan, mesh):
  batch = sharding.shard(random_batch(plan.config), mesh)
  return batch, jax.random.key(1), sharding.replicate(np.float32(1e-2), mesh)


def train(plan, mesh, step):
  """Two steps of the first stage and two of the second, by step(stage, state, ...)."""
  state = sharding.replicate(plan.initial_state(0, plan.system.init(0)), mesh)
  metrics = []
  for stage in (0, 0, 1, 1):
    if len(metrics) == 2:
      variables = jax.device_get(state.variables)
      state = sharding.replicate(plan.initial_state(1, variables), mesh)
    state, found = step(stage, state, *arguments(plan, mesh))
    metrics.append(found)
  return jax.device_get((state, metrics))


def test_each_stage_is_compiled_once_and_steps_as_jit_does(plan, begun):
  mesh = sharding.make_mesh()
  with StageSteps(plan, mesh) as step:
    found = train(plan, mesh, step)
  assert begun == [0, 1]
  jitted = [
    plan.system.make_train_step(*pair) for pair in zip(plan.stages, plan.optimizers, strict=True)
  ]
  wanted = train(plan, mesh, lambda stage, *rest: jitted[stage](*rest))
  jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_the_next_stage_is_begun_behind_the_first_step(plan, begun, monkeypatch):
  """Its error is raised when its turn comes, and the current stage goes on."""
  mesh, make = sharding.make_mesh(), System.make_train_step

  def failing(self, is_trainable, transform):
    if is_trainable is plan.stages[1]:
      return types.SimpleNamespace(lower=lambda *rest: 1 / 0)
    return make(self, is_trainable, transform)

  monkeypatch.setattr(System, 'make_train_step', failing)
  state = sharding.replicate(plan.initial_state(0, plan.system.init(0)), mesh)
  with StageSteps(plan, mesh) as step:
    assert begun == []
    for _ in range(2):
      state, _ = step(0, state, *arguments(plan, mesh))
      assert begun == [0, 1]
    with pytest.raises(ZeroDivisionError):
      step(1, state, *arguments(plan, mesh))


def test_a_stage_that_could_not_be_compiled_ahead_is_compiled_at_its_turn(plan, monkeypatch):
  """Beside a stage that trains, a GPU may have too little memory."""
  mesh, make, refused = sharding.make_mesh(), System.make_train_step, []

  def failing(self, is_trainable, transform):
    if is_trainable is plan.stages[1] and not refused:
      refused.append(True)

      def lower(*rest):
        raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED')

      return types.SimpleNamespace(lower=lower)
    return make(self, is_trainable, transform)

  monkeypatch.setattr(System, 'make_train_step', failing)
  with StageSteps(plan, mesh) as step:
    state, _ = train(plan, mesh, step)
  assert refused and np.isfinite(jax.tree.leaves(state.params)[0]).all()


def test_a_batch_of_another_size_is_refused(plan):
  """Nothing is compiled for it in silence."""
  mesh = sharding.make_mesh()
  state = sharding.replicate(plan.initial_state(0, plan.system.init(0)), mesh)
  batch, *rest = arguments(plan, mesh)
  with StageSteps(plan, mesh) as step:
    state, _ = step(0, state, batch, *rest)
    with pytest.raises(TypeError):
      step(0, state, {name: x[:1] for name, x in batch.items()}, *rest)
