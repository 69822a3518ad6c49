"""Defines the layers that several models share, and how a module is told that it is frozen.

Every model is called with `is_trainable`, a function that tells whether the module at a path, such
as 'visual/stage4/unit0/norm1', is being trained. A frozen batch norm uses its running statistics
and a frozen dropout passes everything through, whatever the rest of the model does.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

Trainable = Callable[[str], bool]  # tells whether the module or parameter at a path is trained


def nothing_trainable(path):
  """Returns False: the `is_trainable` of evaluation, in which no module is trained."""
  del path
  return False


def everything_trainable(path):
  """Returns True: the `is_trainable` under which every module is in training mode.

  Their parameters need not be trained.
  """
  del path
  return True


def is_trained(module, is_trainable):
  """Tells whether this module is being trained, by its path from the root of the model."""
  return is_trainable('/'.join(module.path))


def per_channel(values, x):
  """Reshapes values (C,) to the number of axes of x (..., C), to broadcast over its channels."""
  return values.reshape((1,) * (x.ndim - 1) + values.shape)


def zero_padding(x, mask):
  """Returns features x (B,L,D) with zeros on padded frames; mask (B,L) is True on frames."""
  return x * mask[..., None].astype(x.dtype)


def join_neighbours(x, before, after, dilation):
  """Joins each frame of x (B,L,C) with those around it, -> (B,L,(before+1+after)*C).

  They are `dilation` frames apart, the earliest first, and zeros beyond the ends of x. A dense
  layer on them is a convolution over time in one product of matrices, for a GPU gets a dilated
  kernel filled up with zeros.
  """
  length, past, future = x.shape[1], before * dilation, after * dilation
  padded = jnp.pad(x, ((0, 0), (past, future), (0, 0)))
  joined = [padded[:, first : first + length] for first in range(0, past + future + 1, dilation)]
  return jnp.concatenate(joined, axis=-1)


def sow_gate(module, name, scores):
  """Hands out the scores (B,L,K) of a gate, which sum to 1 over K, as gates/`name`."""
  module.sow('gates', name, scores, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def at_least_float32(x):
  """Returns x, in float32 if its type has fewer digits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Norm(nn.Module):
  """Normalises x (..., C) over all axes but the last, as PyTorch's batch norm does.

  mask (..., 1): False where x is padding, which is left out of the statistics. These and the
  arithmetic are in the type of the parameters, the result is in that of x.
  Flax's own BatchNorm differs in one number: PyTorch divides the variance by n to normalise, but by
  n - 1 for the running average. Leaves: params scale, bias; batch_stats mean, var; all (C,).
  """

  momentum: float = 0.1
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    width = (x.shape[-1],)
    scale = self.param('scale', nn.initializers.ones, width)
    bias = self.param('bias', nn.initializers.zeros, width)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, width)
    running_var = self.variable('batch_stats', 'var', jnp.ones, width)
    mean, var = running_mean.value, running_var.value
    kept, x = x.dtype, x.astype(scale.dtype)
    if is_trained(self, is_trainable):
      axes = tuple(range(x.ndim - 1))
      where = None if mask is None else jnp.broadcast_to(mask, (*x.shape[:-1], 1)).astype(bool)
      n = math.prod(x.shape[:-1]) if where is None else where.sum(dtype=x.dtype)
      # Two passes are two all-reduces on several devices. The means of x and x^2 in one would spare
      # 32 of a step's 67, .3 ms of 210 if each takes 10 us (docs/scale.json, 12 clips a chip), and
      # lose digits: 1e-4 of the variance where the mean is 10 deviations, 1e-2 where it is 100.
      mean = x.mean(axes, where=where)
      var = jnp.square(x - per_channel(mean, x)).mean(axes, where=where)
      if not self.is_initializing():
        unbiased = var * (n / jnp.maximum(n - 1, 1))
        running_mean.value += self.momentum * (mean - running_mean.value)
        running_var.value += self.momentum * (unbiased - running_var.value)
    factor = jax.lax.rsqrt(var + self.epsilon) * scale
    y = (x - per_channel(mean, x)) * per_channel(factor, x) + per_channel(bias, x)
    return y.astype(kept)


class Dropout(nn.Dropout):
  """Drops activations where the module is trained, and passes them through elsewhere."""

  def __call__(self, x, is_trainable):
    return super().__call__(x, deterministic=not is_trained(self, is_trainable))


class PReLU(nn.Module):
  """Computes max(x, 0) + slope * min(x, 0) of x (..., C).

  Each channel has a slope, or all share one if `shared`. Slopes start at 0.25.
  """

  shared: bool = False

  @nn.compact
  def __call__(self, x):
    count = 1 if self.shared else x.shape[-1]
    slope = self.param('slope', nn.initializers.constant(0.25), (count,))
    return jnp.maximum(x, 0) + per_channel(slope.astype(x.dtype), x) * jnp.minimum(x, 0)


def leaky_relu(x):
  """Computes LeakyReLU with the slope 0.01, which every system of this family uses."""
  return nn.leaky_relu(x, 0.01)


class TorchDense(nn.Module):
  """Computes a dense layer, x (..., n) -> (..., width), that starts as PyTorch's Linear does.

  Weight and bias are drawn from U(-1/sqrt(n), 1/sqrt(n)). For a layer over time, `block` is the
  number of frames: x (..., block) is multiplied with the leading block x block part of a
  width x width weight.
  """

  width: int

  @nn.compact
  def __call__(self, x, block=None):
    inputs = x.shape[-1] if block is None else self.width

    def start(key, shape):
      return jax.random.uniform(key, shape, minval=-(inputs**-0.5), maxval=inputs**-0.5)

    kernel = self.param('kernel', start, (inputs, self.width))
    bias = self.param('bias', start, (self.width,))
    y = x @ kernel[:block, :block]
    return y + per_channel(bias[:block], y)
