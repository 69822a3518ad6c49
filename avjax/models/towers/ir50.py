"""Face towers: IR-50, which is what the authors' code calls ResNet-50, and the ResNet-50 that the paper cites.

Both map images (N,H,W,3) in [-1, 1] to features (N,features). `mask` (N,) leaves padded frames out of the statistics
of batch norms that are trained.
"""

from typing import Sequence

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Norm, PReLU
from avjax.models.towers.residual import Units, conv


class UnitIR(nn.Module):
  """One ArcFace IR unit: norm, conv, PReLU, strided conv, norm, plus the shortcut. (N,H,W,C) -> (N,H/stride,W/stride,width)."""
  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    if x.shape[-1] == self.width:
      shortcut = x[:, ::self.stride, ::self.stride]  # a max-pool of size 1
    else:
      shortcut = Norm(name='shortcut_norm')(conv(self.width, 1, self.stride, 'shortcut_conv')(x), is_trainable, mask)
    x = Norm(name='norm1')(x, is_trainable, mask)
    x = PReLU(name='prelu')(conv(self.width, 3, 1, 'conv1')(x))
    x = Norm(name='norm2')(conv(self.width, 3, self.stride, 'conv2')(x), is_trainable, mask)
    return x + shortcut


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
  def __call__(self, images, is_trainable, mask=None):
    mask = None if mask is None else mask[:, None, None, None]
    x = StemIR(self.widths[0], name='input')(images, is_trainable, mask)
    for i, (width, count) in enumerate(zip(self.widths, self.units)):
      x = Units(UnitIR, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')(x, is_trainable, mask)
    return OutputIR(self.features, self.dropout, name='output')(x, is_trainable, mask)


class StemIR(nn.Module):
  """conv, norm, PReLU: (N,H,W,3) -> (N,H,W,width)."""
  width: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    return PReLU(name='prelu')(Norm(name='norm')(conv(self.width, 3, name='conv')(x), is_trainable, mask))


class OutputIR(nn.Module):
  """norm, dropout, flatten, dense, norm, unit length: (N,H,W,C) -> (N,features)."""
  features: int
  dropout: float

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    x = Dropout(self.dropout, name='dropout')(Norm(name='norm1')(x, is_trainable, mask), is_trainable)
    x = nn.Dense(self.features, name='dense')(x.reshape(x.shape[0], -1))
    x = Norm(name='norm2')(x, is_trainable, None if mask is None else mask[:, :, 0, 0])
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
