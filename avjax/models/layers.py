"""Layers that several models share, and the one convention about training and frozen modules.

Every model is called with `trains`, a function from a module's path ('visual/stage4/unit0/norm1') to whether that module
is being trained. A frozen batch norm uses its running statistics and a frozen dropout lets everything through, whatever
the rest of the model does. `evaluation` trains nothing.
"""

import flax.linen as nn
import jax.numpy as jnp


def evaluation(path):
  """The `trains` of evaluation: no module is trained."""
  del path
  return False


def is_trained(module, trains):
  """Whether `trains` names this module, by its path from the root of the model."""
  return trains('/'.join(module.path))


class Norm(nn.BatchNorm):
  """Batch norm over all axes but the last, with PyTorch's constants. x (..., C); mask (..., 1) leaves padding out."""
  momentum: float = 0.9   # PyTorch's 0.1
  epsilon: float = 1e-5

  def __call__(self, x, trains, mask=None):
    return super().__call__(x, use_running_average=not is_trained(self, trains), mask=mask)


class Dropout(nn.Dropout):
  """Dropout where the module is trained, the identity elsewhere."""

  def __call__(self, x, trains):
    return super().__call__(x, deterministic=not is_trained(self, trains))


class PReLU(nn.Module):
  """max(x, 0) + slope * min(x, 0) with one slope a channel, 0.25 at the start. x (..., C)."""

  @nn.compact
  def __call__(self, x):
    slope = self.param('slope', nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.maximum(x, 0) + slope * jnp.minimum(x, 0)


def leaky_relu(x):
  """LeakyReLU with the slope 0.01 that every system of this family uses."""
  return nn.leaky_relu(x, 0.01)
