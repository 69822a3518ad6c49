"""Makes the pure training step, and holds the state that it changes. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from avjax.models.layers import everything_trainable
from avjax.system import compilation
from avjax.targets import losses


@flax.struct.dataclass
class State:
  """Holds what a training step changes.

  params and batch_stats are collections of Linen; opt_state is that of optax.
  """

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self):
    """The collections that the model is applied with."""
    return {'params': self.params, 'batch_stats': self.batch_stats}


def make_state(variables, optimizer: optax.GradientTransformation) -> State:
  """Returns the state at the start of a stage: these variables and a fresh optimizer."""
  return State(**variables, opt_state=optimizer.init(variables['params']))


def parameter_paths(params) -> list[str]:
  """Returns the names of all parameters: 'visual/stage4/unit0/conv1/kernel', ..."""
  return list(traverse_util.flatten_dict(params, sep='/'))


def parameter_count(params, counted: Callable[[str], bool] = everything_trainable) -> int:
  """Returns the number of parameters (single numbers) at the paths that are `counted`."""
  flat: dict[str, Any] = traverse_util.flatten_dict(params, sep='/')
  return sum(leaf.size for path, leaf in flat.items() if counted(path))


def apply_updates(params, updates, rate):
  """Returns params - rate * updates, leaf by leaf."""
  return jax.tree.map(lambda p, u: p - rate * u, params, updates)


def make_train_step(system, is_trainable, optimizer: optax.GradientTransformation):
  """Makes the jitted training step of one stage: step(state, batch, key, rate) -> (state, metrics).

  Only the trainable parameters are differentiated, so that a frozen trunk costs no backward pass.
  If the loss or the gradient is not finite, the state is returned unchanged.

  Args:
    system: a System.
    is_trainable: tells whether the stage trains the parameter or module at a path.
    optimizer: the optax transform of the stage.

  The batch of a step is what `System.select` returns. The metrics are {'loss', 'gradient_norm'},
  scalars.
  """
  in_training = is_trainable if system.frozen_mode == 'evaluation' else everything_trainable

  def step(state, batch, key, rate):
    crop_key, dropout_key = jax.random.split(key)
    inputs = system.inputs.prepare(batch, crop_key if system.augment else None)
    flat: dict[str, Any] = traverse_util.flatten_dict(state.params, sep='/')
    trained = {path: value for path, value in flat.items() if is_trainable(path)}
    frozen = {path: value for path, value in flat.items() if not is_trainable(path)}

    def loss_fn(trained):
      params = traverse_util.unflatten_dict({**frozen, **trained}, sep='/')
      outputs, updated = system.model.apply(
        {'params': params, 'batch_stats': state.batch_stats},
        *inputs,
        batch['real'],
        in_training,
        mutable=['batch_stats'],
        rngs={'dropout': dropout_key},
      )
      loss = losses.total_loss(
        system.targets, outputs, batch['labels'], batch['annotated'], system.loss
      )
      return loss, updated.get('batch_stats', {})

    (loss, batch_stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(trained)
    metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradients)}
    zeros = {path: jnp.zeros_like(value) for path, value in frozen.items()}
    gradients = traverse_util.unflatten_dict({**zeros, **gradients}, sep='/')
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    flat_updates = traverse_util.flatten_dict(updates, sep='/')
    moved = apply_updates(trained, {path: flat_updates[path] for path in trained}, rate)
    finite = jnp.isfinite(loss) & jnp.isfinite(metrics['gradient_norm'])
    moved, batch_stats, opt_state = jax.tree.map(
      lambda new, old: jnp.where(finite, new, old),
      (moved, batch_stats, opt_state),
      (trained, state.batch_stats, state.opt_state),
    )
    # Frozen parameters are passed on as they are: a donated buffer that nothing reads or writes.
    params = traverse_util.unflatten_dict({**frozen, **moved}, sep='/')
    return State(params, batch_stats, opt_state), metrics

  return compilation.jit(step, donate_argnums=0)
