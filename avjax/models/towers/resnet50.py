"""Defines the visual tower ResNet-50: images (N,H,W,3) in [-1, 1] -> features (N,512).

The paper cites it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn

from avjax.models.layers import Norm, Trainable
from avjax.models.registry import VISUAL_TOWERS
from avjax.models.towers.residual import Units, conv
from avjax.ranges import length

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class Bottleneck(nn.Module):
  """Computes He et al.'s bottleneck unit: (N,H,W,C) -> (N,H/stride,W/stride,4*width).

  The stride is in the 3x3 convolution, as in torchvision.
  """

  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = conv(x, 4 * self.width, 1, self.stride, 'shortcut_conv')
      shortcut = Norm(name='shortcut_norm')(shortcut, is_trainable, mask)
    x = conv(x, self.width, 1, 1, 'conv1')
    x = nn.relu(Norm(name='norm1')(x, is_trainable, mask))
    x = conv(x, self.width, 3, self.stride, 'conv2')
    x = nn.relu(Norm(name='norm2')(x, is_trainable, mask))
    x = Norm(name='norm3')(conv(x, 4 * self.width, 1, 1, 'conv3'), is_trainable, mask)
    return nn.relu(x + shortcut)


@VISUAL_TOWERS.register('resnet50', ranges={'widths': length(4), 'units': length(4)})
class ResNet50(nn.Module):
  """Encodes faces by He et al.'s ResNet-50 (arXiv:1512.03385) and a projection.

  (N,H,W,3) -> (N,2048) -> (N,512). It has no classifier. 23.5 M parameters before the projection.
  mask (N,): False on padded frames, which the statistics of trained batch norms leave out.
  Parameters: input/..., stage1..4/unit*/..., output/...
  """

  features: int = 512
  widths: Sequence[int] = (64, 128, 256, 512)
  units: Sequence[int] = (3, 4, 6, 3)

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'N H W 3'],
    is_trainable: Trainable,
    mask: Bool[Array, ' N'] | None = None,
  ) -> Float[Array, 'N features']:
    mask = None if mask is None else mask[:, None, None, None]
    x = StemResNet(self.widths[0], name='input')(images, is_trainable, mask)
    for i, (width, count) in enumerate(zip(self.widths, self.units, strict=True)):
      stage = Units(Bottleneck, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')
      x = stage(x, is_trainable, mask)
    # XLA sums a mean of bfloat16 in float32.
    return nn.Dense(self.features, dtype=x.dtype, name='output')(x.mean(axis=(1, 2)))


class StemResNet(nn.Module):
  """Applies convolution, norm, ReLU, max-pool: (N,H,W,3) -> (N,H/4,W/4,width).

  The convolution is 7x7, the max-pool 3x3; both have stride 2.
  """

  width: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    x = nn.relu(Norm(name='norm')(conv(x, self.width, 7, 2, 'conv'), is_trainable, mask))
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
