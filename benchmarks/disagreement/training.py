"""Trains the replicas of one system at once: the same network on other data, with other rates.

A replica has its own training and validation clips, initial weights, order of clips and rates. All
replicas of a system are one program (jax.vmap), whose loop over the updates is compiled, too.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from avjax.models.layers import everything_trainable, nothing_trainable
from avjax.system import System, compilation
from avjax.targets import losses
from benchmarks.disagreement.systems import OVER_TIME
from data_prep.mini.latents import generator

BATCH = 16  # clips of an update
UPDATES = 300
LOOKS = 10  # times that the validation clips are predicted; the weights of the best one are kept
WARMUP = 30  # updates


def schedule(update):
  """Returns the share of the rate at an update: a linear warm-up, then half a cosine."""
  return jnp.minimum(1.0, (update + 1) / WARMUP) * 0.5 * (1 + jnp.cos(jnp.pi * update / UPDATES))


def draw_orders(seed: int, count: int) -> np.ndarray:
  """Returns which of `count` clips each update sees, (UPDATES, BATCH): epoch after epoch."""
  rng, each = generator(seed, 'order'), count // BATCH
  epochs = [rng.permutation(count)[: each * BATCH] for _ in range(-(-UPDATES // each))]
  return np.concatenate(epochs)[: UPDATES * BATCH].reshape(UPDATES, BATCH).astype(np.int32)


def make_initializer(system: System, spread: float):
  """Returns init(seed, features of a clip) -> the variables of one replica.

  The L x L weights are multiplied by `spread`.
  """

  @jax.jit
  def init(seed, features):
    mask = jnp.ones(features[0].shape[:2], bool)
    drawn = system.model.init(
      jax.random.key(seed), *features, mask, nothing_trainable, method='decode'
    )
    params = jax.tree_util.tree_map_with_path(
      lambda path, x: spread * x if re.fullmatch(OVER_TIME, named(path)) else x, drawn['params']
    )
    return {'params': params, 'batch_stats': drawn.get('batch_stats', {})}

  return init


def named(path) -> str:
  """Returns a path of JAX as names with slashes."""
  return jax.tree_util.keystr(path, simple=True, separator='/')


def make_trainer(system: System, slow: str):
  """Returns train(variables, training, validation, orders, seeds, rates, factors), jitted.

  Every argument has a first axis R over the replicas. training and validation are pairs of features
  (R,N,L,Dv), (R,N,L,Da) and labels (R,N,L,2). It returns the variables of the best look, and the
  mean CCC over all validation frames at each look, (R,LOOKS). A factor is that of the rate of the
  weights whose names match `slow`.
  """
  adam = optax.chain(optax.clip_by_global_norm(1.0), optax.scale_by_adam())

  def loss_fn(params, stats, features, labels, key):
    mask = jnp.ones(labels.shape[:2], bool)
    outputs, new = system.model.apply(
      {'params': params, 'batch_stats': stats},
      *features,
      mask,
      everything_trainable,
      mutable=['batch_stats'],
      rngs={'dropout': key},
      method='decode',
    )
    loss = losses.total_loss(system.targets, outputs, labels, mask, system.loss)
    return loss, new.get('batch_stats', {})

  def train(variables, training, validation, orders, seed, rate, factor):
    features, labels = training
    drops = jax.random.key(seed)

    def update(state, now):
      n, chosen = now
      params, stats, moments = state
      batch = jax.tree.map(lambda x: x[chosen], features)
      key = jax.random.fold_in(drops, n)
      gradients, stats = jax.grad(loss_fn, has_aux=True)(params, stats, batch, labels[chosen], key)
      steps, moments = adam.update(gradients, moments, params)
      flat = {
        path: -rate * schedule(n) * (factor if re.fullmatch(slow, path) else 1) * x
        for path, x in traverse_util.flatten_dict(steps, sep='/').items()
      }
      params = optax.apply_updates(params, traverse_util.unflatten_dict(flat, sep='/'))
      return (params, stats, moments), None

    def look(carried, now):
      state, best, best_score = carried
      state, _ = jax.lax.scan(update, state, now)
      found = {'params': state[0], 'batch_stats': state[1]}
      score = mean_ccc(predict(system, found, *validation[0])['prediction'], validation[1])
      better = score > best_score
      best = jax.tree.map(lambda new, old: jnp.where(better, new, old), found, best)
      return (state, best, jnp.where(better, score, best_score)), score

    params = variables['params']
    state = params, variables['batch_stats'], adam.init(params)
    numbers = jnp.arange(UPDATES).reshape(LOOKS, -1), orders.reshape(LOOKS, -1, BATCH)
    (_, best, _), scores = jax.lax.scan(look, (state, variables, -jnp.inf), numbers)
    return best, scores

  return compilation.jit(jax.vmap(train))


def predict(system: System, variables, visual, audio):
  """Returns what `System.decode` does, for windows without padding."""
  return system.decode(variables, visual, audio, jnp.ones(visual.shape[:2], bool))


def mean_ccc(prediction, labels):
  """Returns the mean over targets of the CCC over all frames of (N,L,2), a scalar."""
  return losses.ccc(prediction, labels, jnp.ones_like(labels, bool), (0, 1)).mean()
