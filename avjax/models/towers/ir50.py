"""Defines the visual tower IR-50: images (N,H,W,3) in [-1, 1] -> features (N,512).

The authors' code calls it ResNet-50.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Norm, PReLU, Trainable, at_least_float32
from avjax.models.registry import VISUAL_TOWERS
from avjax.models.towers.residual import Units, conv
from avjax.ranges import DROPOUT, length

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class UnitIR(nn.Module):
  """Computes an ArcFace IR unit: shortcut + (norm, conv, PReLU, strided conv, norm).

  (N,H,W,C) -> (N,H/stride,W/stride,width). mask: as in `IR50`, but (N,1,1,1).
  """

  width: int
  stride: int = 1

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    if x.shape[-1] == self.width:
      shortcut = x[:, :: self.stride, :: self.stride]  # PyTorch's max-pool of size 1
    else:
      shortcut = conv(x, self.width, 1, self.stride, 'shortcut_conv')
      shortcut = Norm(name='shortcut_norm')(shortcut, is_trainable, mask)
    x = Norm(name='norm1')(x, is_trainable, mask)
    x = PReLU(name='prelu')(conv(x, self.width, 3, 1, 'conv1'))
    x = Norm(name='norm2')(conv(x, self.width, 3, self.stride, 'conv2'), is_trainable, mask)
    return x + shortcut


@VISUAL_TOWERS.register(
  'ir50', ranges={'widths': length(4), 'units': length(4), 'dropout': DROPOUT}
)
class IR50(nn.Module):
  """Encodes faces by ArcFace IR-50: (N,40,40,3) -> (N,512) of unit length. 37.3 M parameters.

  mask (N,): False on padded frames, which the statistics of trained batch norms leave out.
  Parameters: input/..., stage1..4/unit*/..., output/...
  Source: models/arcface_model.py and models/backbone.py of the predecessors' public code (RJCMA,
  ABAW3).
  """

  features: int = 512
  widths: Sequence[int] = (64, 128, 256, 512)
  units: Sequence[int] = (3, 4, 14, 3)
  dropout: float = 0.4

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'N H W 3'],
    is_trainable: Trainable,
    mask: Bool[Array, ' N'] | None = None,
  ) -> Float[Array, 'N features']:
    mask = None if mask is None else mask[:, None, None, None]
    x = StemIR(self.widths[0], name='input')(images, is_trainable, mask)
    for i, (width, count) in enumerate(zip(self.widths, self.units, strict=True)):
      stage = Units(UnitIR, count, width, 1 if i == 0 else 2, name=f'stage{i + 1}')
      x = stage(x, is_trainable, mask)
    return OutputIR(self.features, self.dropout, name='output')(x, is_trainable, mask)


class StemIR(nn.Module):
  """Applies convolution, norm, PReLU: (N,H,W,3) -> (N,H,W,width)."""

  width: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    x = conv(x, self.width, 3, name='conv')
    return PReLU(name='prelu')(Norm(name='norm')(x, is_trainable, mask))


class OutputIR(nn.Module):
  """Applies norm, dropout, dense layer, norm, scaling to unit length: (N,H,W,C) -> (N,features)."""

  features: int
  dropout: float

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    x = Norm(name='norm1')(x, is_trainable, mask)
    x = Dropout(self.dropout, name='dropout')(x, is_trainable)
    x = nn.Dense(self.features, dtype=x.dtype, name='dense')(x.reshape(x.shape[0], -1))
    # The last norm and the unit length keep all digits.
    x = at_least_float32(x)
    x = Norm(name='norm2')(x, is_trainable, None if mask is None else mask[:, :, 0, 0])
    return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
