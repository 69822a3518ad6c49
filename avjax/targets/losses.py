"""The concordance correlation coefficient as a loss (paper, eq. 21 and 22)."""

import jax.numpy as jnp

SCOPES = ('sequence', 'batch')
VARIANCES = ('biased', 'mixed')
EPSILON = 1e-8  # keeps a constant prediction of a constant label finite: CCC 0, gradient 0


def ccc(prediction, label, mask, axis, variance='biased'):
  """Concordance over `axis`, counting only where mask is True.

  prediction, label, mask of one shape; returns that shape without `axis`. 0 where nothing counts. variance: 'biased' divides
  variances and covariance by the count n, so that CCC(x, x) = 1; 'mixed' is the predecessors' code, which divides the
  variances by n - 1 and the covariance by n, so that CCC(x, x) = 1 - 1/n.
  """
  weight = mask.astype(prediction.dtype)
  count = jnp.maximum(weight.sum(axis, keepdims=True), 1)
  prediction, label = prediction * weight, jnp.where(mask, label, 0)
  mean_p, mean_l = prediction.sum(axis, keepdims=True) / count, label.sum(axis, keepdims=True) / count
  centred_p, centred_l = (prediction - mean_p) * weight, (label - mean_l) * weight
  covariance = (centred_p * centred_l).sum(axis) / count.squeeze(axis)
  freedom = jnp.maximum(count - (variance == 'mixed'), 1).squeeze(axis)
  variances = (centred_p ** 2 + centred_l ** 2).sum(axis) / freedom
  bias = (mean_p - mean_l).squeeze(axis) ** 2
  return 2 * covariance / (variances + bias + EPSILON)  # eq. 21


def ccc_loss(prediction, label, mask, scope='sequence', variance='biased'):
  """L = sum over targets of (1 - CCC) (eq. 22). prediction, label (B,L,targets), mask (B,L) -> scalar in [0, 2 * targets].

  scope: 'sequence' takes CCC within each clip and the mean over clips that have a counted frame, as the predecessors do;
  'batch' takes one CCC over all frames of the batch, as most rivals do. variance: see `ccc`.
  """
  mask = jnp.broadcast_to(mask[..., None], prediction.shape)
  if scope == 'batch':
    return (1 - ccc(prediction, label, mask, (0, 1), variance)).sum()  # eq. 22
  if scope != 'sequence':
    raise ValueError(f"loss scope {scope!r}: use 'sequence' or 'batch'")
  counted = mask[..., 0].any(axis=1).astype(prediction.dtype)  # (B,)
  losses = (1 - ccc(prediction, label, mask, 1, variance)).sum(axis=-1)  # eq. 22: (B,)
  return (losses * counted).sum() / jnp.maximum(counted.sum(), 1)
