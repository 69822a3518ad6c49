"""Computes the losses of targets: the concordance correlation (paper, eq. 21 and 22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from avjax import targets
from avjax.ranges import OneOf

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

RANGES = {'scope': OneOf(('sequence', 'batch')), 'variance': OneOf(('biased', 'mixed'))}
# Keeps the CCC of a constant prediction and a constant label finite: CCC and gradient are 0.
EPSILON = 1e-8


def ccc(
  prediction: Float[Array, ' *shape'],
  label: Float[Array, ' *shape'],
  mask: Bool[Array, ' *shape'],
  axis: int | tuple[int, ...],
  variance: str = 'biased',
) -> Float[Array, ' *rest']:
  """Computes the concordance correlation over `axis` (eq. 21), where the mask is True.

  Args:
    prediction, label, mask: arrays of one shape.
    axis: an axis, or several.
    variance: 'biased' divides variances and covariance by the count n, so that CCC(x, x) = 1.
      'mixed', as in the predecessors' code, divides the variances by n - 1 but the covariance by n,
      so that CCC(x, x) = 1 - 1/n.

  Returns an array of that shape without `axis`; 0 where the mask is False everywhere.
  """
  weight = mask.astype(prediction.dtype)
  count = jnp.maximum(weight.sum(axis, keepdims=True), 1)
  prediction, label = prediction * weight, jnp.where(mask, label, 0)
  mean_p = prediction.sum(axis, keepdims=True) / count
  mean_l = label.sum(axis, keepdims=True) / count
  centred_p, centred_l = (prediction - mean_p) * weight, (label - mean_l) * weight
  covariance = (centred_p * centred_l).sum(axis) / count.squeeze(axis)
  freedom = jnp.maximum(count - int(variance == 'mixed'), 1).squeeze(axis)
  variances = (centred_p**2 + centred_l**2).sum(axis) / freedom
  bias = (mean_p - mean_l).squeeze(axis) ** 2
  return 2 * covariance / (variances + bias + EPSILON)  # eq. 21


def ccc_loss(
  prediction: Float[Array, 'B L targets'],
  label: Float[Array, 'B L targets'],
  mask: Bool[Array, 'B L'],
  scope: str = 'sequence',
  variance: str = 'biased',
) -> Float[Array, '']:
  """Computes the loss, the sum over targets of 1 - CCC (eq. 22), a scalar in [0, 2 * targets].

  Args:
    prediction, label: (B,L,targets).
    mask: (B,L), True on the frames that count.
    scope: 'sequence' takes the CCC within each window and the mean over windows in which a frame
      counts, as the predecessors do; 'batch' takes one CCC over all frames of the batch, as most
      other systems do.
    variance: see `ccc`.
  """
  mask = jnp.broadcast_to(mask[..., None], prediction.shape)
  if scope == 'batch':
    return (1 - ccc(prediction, label, mask, (0, 1), variance)).sum()  # eq. 22
  if scope != 'sequence':
    raise ValueError(f"loss scope {scope!r}: use 'sequence' or 'batch'")
  counted = mask[..., 0].any(axis=1).astype(prediction.dtype)  # (B,)
  losses = (1 - ccc(prediction, label, mask, 1, variance)).sum(axis=-1)  # eq. 22: (B,)
  return (losses * counted).sum() / jnp.maximum(counted.sum(), 1)


# Each takes the outputs (B,L,outputs) of all targets that name it, their labels (B,L,targets), the
# mask (B,L) and the settings of config.loss, and returns a scalar.
LOSSES = {'ccc': ccc_loss}


def total_loss(
  names,
  outputs: Float[Array, 'B L outputs'],
  labels: Float[Array, 'B L targets'],
  mask: Bool[Array, 'B L'],
  settings,
) -> Float[Array, '']:
  """Computes the sum of the losses of the targets `names`, a scalar.

  settings: the arguments of a loss, `config.loss`.
  """
  parts = list(targets.split_outputs(names, outputs))
  losses = []
  for loss in dict.fromkeys(target.loss for target, _ in parts):
    members = [i for i, (target, _) in enumerate(parts) if target.loss == loss]
    own = jnp.concatenate([parts[i][1] for i in members], axis=-1)
    losses.append(LOSSES[loss](own, labels[..., members], mask, **settings))
  return sum(losses[1:], losses[0])
