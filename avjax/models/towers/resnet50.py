"""Visual tower ResNet-50, which the paper cites: images (N,H,W,3) in [-1, 1] -> features (N,512)."""

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
  """He et al.'s bottleneck unit, with the stride in the 3x3 convolution as torchvision has it.

  (N,H,W,C) -> (N,H/stride,W/stride,4*width).
  """

  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = Norm(name='shortcut_norm')(
        conv(4 * self.width, 1, self.stride, 'shortcut_conv')(x), is_trainable, mask
      )
    x = nn.relu(Norm(name='norm1')(conv(self.width, 1, 1, 'conv1')(x), is_trainable, mask))
    x = nn.relu(
      Norm(name='norm2')(conv(self.width, 3, self.stride, 'conv2')(x), is_trainable, mask)
    )
    x = Norm(name='norm3')(conv(4 * self.width, 1, 1, 'conv3')(x), is_trainable, mask)
    return nn.relu(x + shortcut)


@VISUAL_TOWERS.register('resnet50', ranges={'widths': length(4), 'units': length(4)})
class ResNet50(nn.Module):
  """Encodes faces by He et al.'s ResNet-50 (arXiv:1512.03385) without its classifier, and a projection.

  (N,H,W,3) -> (N,2048) -> (N,512). 23.5 M parameters before the projection. mask (N,): False on padded frames, which
  the statistics of trained batch norms leave out. Parameters: input/..., stage1..4/unit*/..., output/...
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
      x = Units(Bottleneck, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')(
        x, is_trainable, mask
      )
    return nn.Dense(self.features, name='output')(x.mean(axis=(1, 2)))


class StemResNet(nn.Module):
  """7x7 convolution of stride 2, norm, ReLU, 3x3 max-pool of stride 2: (N,H,W,3) -> (N,H/4,W/4,width)."""

  width: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    x = nn.relu(Norm(name='norm')(conv(self.width, 7, 2, 'conv')(x), is_trainable, mask))
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
