"""Face towers: IR-50, which is what the authors' code calls ResNet-50, and the ResNet-50 that the paper cites.

Both map images (N,H,W,3) in [-1, 1] to features (N,features). `mask` (N,) leaves padded frames out of the statistics
of batch norms that are trained.
"""

from typing import Sequence

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Norm, PReLU

he_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(width, kernel, stride=1, name=None):
  """A bias-free convolution with PyTorch's symmetric padding (XLA's SAME pads a strided one unevenly)."""
  pad = kernel // 2
  return nn.Conv(width, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)), use_bias=False,
                 kernel_init=he_init, name=name)


class UnitIR(nn.Module):
  """One ArcFace IR unit: norm, conv, PReLU, strided conv, norm, plus the shortcut. (N,H,W,C) -> (N,H/stride,W/stride,width)."""
  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, trains, mask=None):
    if x.shape[-1] == self.width:
      shortcut = x[:, ::self.stride, ::self.stride]  # a max-pool of size 1
    else:
      shortcut = Norm(name='shortcut_norm')(conv(self.width, 1, self.stride, 'shortcut_conv')(x), trains, mask)
    x = Norm(name='norm1')(x, trains, mask)
    x = PReLU(name='prelu')(conv(self.width, 3, 1, 'conv1')(x))
    x = Norm(name='norm2')(conv(self.width, 3, self.stride, 'conv2')(x), trains, mask)
    return x + shortcut


class Units(nn.Module):
  """A stage: `count` units named unit0, unit1, ..., of which the first has the stride."""
  unit: type[nn.Module]
  count: int
  width: int
  stride: int

  @nn.compact
  def __call__(self, x, trains, mask=None):
    for i in range(self.count):
      x = self.unit(self.width, self.stride if i == 0 else 1, name=f'unit{i}')(x, trains, mask)
    return x


class IR50(nn.Module):
  """ArcFace IR-50 for 40x40 crops: (N,40,40,3) -> (N,512) of unit length.

  Source: models/arcface_model.py and models/backbone.py of the predecessors' public code (RJCMA, ABAW3). 37.3 M parameters.
  Parameters: input/..., stage1..4/unit*/..., output/....
  """
  features: int = 512
  widths: Sequence[int] = (64, 128, 256, 512)
  units: Sequence[int] = (3, 4, 14, 3)
  dropout: float = 0.4

  @nn.compact
  def __call__(self, images, trains, mask=None):
    mask = None if mask is None else mask[:, None, None, None]
    x = StemIR(self.widths[0], name='input')(images, trains, mask)
    for i, (width, count) in enumerate(zip(self.widths, self.units)):
      x = Units(UnitIR, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')(x, trains, mask)
    return OutputIR(self.features, self.dropout, name='output')(x, trains, mask)


class StemIR(nn.Module):
  """conv, norm, PReLU: (N,H,W,3) -> (N,H,W,width)."""
  width: int

  @nn.compact
  def __call__(self, x, trains, mask=None):
    return PReLU(name='prelu')(Norm(name='norm')(conv(self.width, 3, name='conv')(x), trains, mask))


class OutputIR(nn.Module):
  """norm, dropout, flatten, dense, norm, unit length: (N,H,W,C) -> (N,features)."""
  features: int
  dropout: float

  @nn.compact
  def __call__(self, x, trains, mask=None):
    x = Dropout(self.dropout, name='dropout')(Norm(name='norm1')(x, trains, mask), trains)
    x = nn.Dense(self.features, name='dense')(x.reshape(x.shape[0], -1))
    x = Norm(name='norm2')(x, trains, None if mask is None else mask[:, :, 0, 0])
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


class Bottleneck(nn.Module):
  """He et al.'s bottleneck, with the stride in the 3x3 convolution as torchvision has it; widens to 4 * width."""
  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, trains, mask=None):
    shortcut = x
    if x.shape[-1] != 4 * self.width or self.stride != 1:
      shortcut = Norm(name='shortcut_norm')(conv(4 * self.width, 1, self.stride, 'shortcut_conv')(x), trains, mask)
    x = nn.relu(Norm(name='norm1')(conv(self.width, 1, 1, 'conv1')(x), trains, mask))
    x = nn.relu(Norm(name='norm2')(conv(self.width, 3, self.stride, 'conv2')(x), trains, mask))
    x = Norm(name='norm3')(conv(4 * self.width, 1, 1, 'conv3')(x), trains, mask)
    return nn.relu(x + shortcut)


class ResNet50(nn.Module):
  """He et al.'s ResNet-50 (arXiv:1512.03385) without its classifier, projected: (N,H,W,3) -> (N,2048) -> (N,512).

  23.5 M parameters before the projection. Parameters: input/..., stage1..4/unit*/..., output/...
  """
  features: int = 512
  widths: Sequence[int] = (64, 128, 256, 512)
  units: Sequence[int] = (3, 4, 6, 3)

  @nn.compact
  def __call__(self, images, trains, mask=None):
    mask = None if mask is None else mask[:, None, None, None]
    x = StemResNet(self.widths[0], name='input')(images, trains, mask)
    for i, (width, count) in enumerate(zip(self.widths, self.units)):
      x = Units(Bottleneck, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')(x, trains, mask)
    return nn.Dense(self.features, name='output')(x.mean(axis=(1, 2)))


class StemResNet(nn.Module):
  """7x7 conv of stride 2, norm, ReLU, 3x3 max-pool of stride 2: (N,H,W,3) -> (N,H/4,W/4,width)."""
  width: int

  @nn.compact
  def __call__(self, x, trains, mask=None):
    x = nn.relu(Norm(name='norm')(conv(self.width, 7, 2, 'conv')(x), trains, mask))
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
