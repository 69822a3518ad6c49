"""Makes the optax transform of one stage: Adam for what it trains, no update for the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optax
from flax import traverse_util

from avjax import ranges

RANGES = {
  'weight_decay': ranges.NOT_NEGATIVE,
  'clip': ranges.NOT_NEGATIVE,
  'epsilon': ranges.POSITIVE,
  'decay': ranges.OneOf(('coupled', 'decoupled')),
}


def adam(
  weight_decay: float,
  rate_factors: Sequence[tuple[str, float]] = (),
  decay: str = 'coupled',
  *,
  clip: float = 0.0,
  epsilon: float = 1e-8,
) -> optax.GradientTransformation:
  """Returns Adam with unit learning rate; the caller multiplies updates by -rate.

  Args:
    weight_decay: the factor of the parameter in its decay.
    rate_factors: pairs (pattern, factor); each scales the rate of the parameters whose path the
      pattern matches in full.
    decay: 'coupled' adds the decay to the gradient before the moments (PyTorch's Adam),
      'decoupled' adds it to the update (AdamW).
    clip: the largest norm of all gradients together; 0 does not clip.
    epsilon: is added to the root of the second moment; 1e-8 where a config does not have it.
  """

  def scale(updates, params=None):
    del params
    flat = traverse_util.flatten_dict(updates, sep='/')
    for path, update in flat.items():
      for pattern, factor in rate_factors:
        # optax hands frozen leaves to this transform as MaskedNode.
        if re.fullmatch(pattern, path) and not isinstance(update, optax.MaskedNode):
          flat[path] = update * factor
    return traverse_util.unflatten_dict(flat, sep='/')

  steps = [optax.add_decayed_weights(weight_decay), optax.scale_by_adam(eps=epsilon)]
  if decay == 'decoupled':
    steps.reverse()
  clipping = [optax.clip_by_global_norm(clip)] if clip else []
  return optax.chain(*clipping, *steps, optax.stateless(scale))


def make_optimizer(
  is_trainable: Callable[[str], bool], settings: Mapping[str, Any]
) -> optax.GradientTransformation:
  """Makes an optimizer that updates trainable parameters by `adam` and no others.

  The others get an update of exactly zero; optax.masked by itself would pass on their raw
  gradients.

  is_trainable: tells whether the parameter at a path is trained. settings: the arguments of `adam`,
  such as config.optimizer.
  """

  def labels(params):
    flat = traverse_util.flatten_dict(params, sep='/')
    labelled = {path: 'open' if is_trainable(path) else 'frozen' for path in flat}
    return traverse_util.unflatten_dict(labelled, sep='/')

  return optax.partition({'open': adam(**settings), 'frozen': optax.set_to_zero()}, labels)


def check_rate_factors(rate_factors: Iterable[tuple[str, float]], paths: Iterable[str]) -> None:
  """Raises ValueError for a pattern that matches no parameter path."""
  for pattern, _ in rate_factors:
    if not any(re.fullmatch(pattern, path) for path in paths):
      raise ValueError(f'rate factor pattern {pattern!r} matches no parameter of the model')
