"""Computes a temporal convolution network (Bai et al. 2018) as the predecessors use it.

Its convolutions are causal and have weight normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import (
  Dropout,
  PReLU,
  Trainable,
  join_neighbours,
  leaky_relu,
  per_channel,
)
from avjax.ranges import DROPOUT, OneOf, at_least, at_least_each

if TYPE_CHECKING:
  from jaxtyping import Array, Float

# Xavier uniform with gain sqrt 2.
xavier_sqrt2 = nn.initializers.variance_scaling(2.0, 'fan_avg', 'uniform')


class CausalConv(nn.Module):
  """Convolves over time with weight normalisation, (B,L,C) -> (B,L,width).

  Frame t sees itself and earlier frames; the earliest lies (kernel - 1) * dilation frames back.
  """

  width: int
  kernel: int
  dilation: int

  @nn.compact
  def __call__(self, x: Float[Array, 'B L C']) -> Float[Array, 'B L width']:
    direction = self.param('direction', xavier_sqrt2, (self.kernel, x.shape[-1], self.width))
    norm = jnp.sqrt(jnp.sum(direction**2, axis=(0, 1)))
    scale = self.param('scale', lambda key: norm)  # the weight starts as the direction itself
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    weight = direction * per_channel(scale, direction) / per_channel(norm, direction)
    seen = join_neighbours(x, self.kernel - 1, 0, self.dilation)
    y = seen @ weight.reshape(-1, self.width)
    return y + per_channel(bias, y)


class TCN(nn.Module):
  """Runs levels of two causal convolutions with a residual: (B,L,C) -> (B,L,widths[-1]).

  The dilation is 2^level. Four levels of kernel 5 see 1 + 2 * 4 * (1 + 2 + 4 + 8) = 121 frames. The
  padding at the end of a window never reaches a frame, since convolutions only look back.

  activation: 'leaky_relu', or 'prelu' with one slope for all channels.
  kernels: if given, each convolution is the mean of branches with these kernel sizes (multi-scale).
  """

  ranges: ClassVar = {
    'kernel': at_least(1),
    'kernels': at_least_each(1),
    'dropout': DROPOUT,
    'activation': OneOf(('leaky_relu', 'prelu')),
  }

  widths: Sequence[int]
  kernel: int = 5
  dropout: float = 0.1
  activation: str = 'leaky_relu'
  kernels: Sequence[int] = ()

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L C'], is_trainable: Trainable
  ) -> Float[Array, 'B L width']:
    for i, width in enumerate(self.widths):
      residual = x
      if x.shape[-1] != width:
        residual = nn.Dense(width, kernel_init=xavier_sqrt2, name=f'level{i}_residual')(x)
      for j in range(2):
        x = self.activate(self.convolve(x, width, 2**i, f'level{i}_conv{j}'), f'level{i}_prelu{j}')
        x = Dropout(self.dropout, name=f'level{i}_dropout{j}')(x, is_trainable)
      x = self.activate(x + residual, f'level{i}_prelu2')
    return x

  def convolve(self, x, width, dilation, name):
    if not self.kernels:
      return CausalConv(width, self.kernel, dilation, name=name)(x)
    branches = [
      CausalConv(width, kernel, dilation, name=f'{name}_kernel{kernel}')(x)
      for kernel in self.kernels
    ]
    return sum(branches) / len(self.kernels)

  def activate(self, x, name):
    return PReLU(shared=True, name=name)(x) if self.activation == 'prelu' else leaky_relu(x)
