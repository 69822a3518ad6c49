"""Defines the audio tower: VGGish (Hershey et al. 2017) without last ReLU, PCA and quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from avjax.models.layers import Trainable, is_trained, nothing_trainable, per_channel
from avjax.models.registry import AUDIO_TOWERS
from avjax.ranges import length

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


def max_pool(x):
  """Applies a 2x2 max-pool of stride 2: (N,H,W,C) -> (N,H/2,W/2,C).

  It is the maximum of four slices, whose gradient XLA runs several times faster than that of a
  pooling window or of a reshape. Equal numbers share a gradient; after a ReLU these are zeros,
  which pass none on.
  """
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


class FirstConv(nn.Module):
  """Convolves one channel with 3x3 kernels, padded with zeros: (N,H,W) -> (N,H,W,width).

  Where it is frozen, it is a sum of nine shifted products, which XLA computes together with the
  ReLU and the pool behind it; on a CPU, XLA's convolution of a single channel takes six times as
  long. Where it is trained, it is that convolution, whose gradient is the faster one. Names and
  starting values of the parameters are those of nn.Conv.
  """

  width: int

  @nn.compact
  def __call__(self, x, is_trainable):
    kernel = self.param('kernel', nn.initializers.lecun_normal(), (3, 3, 1, self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    x = x[..., None]  # (N,H,W,1)
    if is_trained(self, is_trainable):
      layout = ('NHWC', 'HWIO', 'NHWC')
      y = jax.lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', dimension_numbers=layout)
      return y + per_channel(bias, y)
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = (
      padded[:, i : i + height, j : j + width] * per_channel(kernel[i, j, 0], x)
      for i in range(3)
      for j in range(3)
    )
    return sum(shifted, per_channel(bias, x))


@AUDIO_TOWERS.register('vggish', ranges={'widths': length(6)})
class VGGish(nn.Module):
  """Encodes log-mel windows: (N,96,64) -> (N,128). 72.1 M parameters.

  Names and the order in which features are flattened (height, width, channel) are those of the
  published TensorFlow graph, so that published weights need no reordering.
  """

  # Its arguments stand next to `tower` in config.model.audio, not in a section of their own.
  inline = True

  features: int = 128
  widths: Sequence[int] = (64, 128, 256, 256, 512, 512)
  hidden: int = 4096

  @nn.compact
  def __call__(
    self,
    log_mel: Float[Array, 'N 96 64'],
    is_trainable: Trainable = nothing_trainable,
    mask: Bool[Array, ' N'] | None = None,
  ) -> Float[Array, 'N features']:
    del mask  # every window is encoded by itself
    x = max_pool(nn.relu(FirstConv(self.widths[0], name='conv1')(log_mel, is_trainable)))
    names = ('conv2', 'conv3_1', 'conv3_2', 'conv4_1', 'conv4_2')
    for name, width in zip(names, self.widths[1:], strict=True):
      x = nn.relu(nn.Conv(width, (3, 3), dtype=x.dtype, name=name)(x))
      if not name.endswith('_1'):  # the second convolution of a pair is pooled
        x = max_pool(x)
    x = x.reshape(x.shape[0], -1)  # (N,6*4*512)
    x = nn.relu(nn.Dense(self.hidden, dtype=x.dtype, name='fc1_1')(x))
    x = nn.relu(nn.Dense(self.hidden, dtype=x.dtype, name='fc1_2')(x))
    return nn.Dense(self.features, dtype=x.dtype, name='fc2')(x)
