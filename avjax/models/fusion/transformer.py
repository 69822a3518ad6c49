"""Runs transformer encoders over the concatenated features of both modalities.

These are Meng 2022, Zhou 2023, Zhang Ziyang 2023, Zhang Wei 2023 and CtyunAI 2025. They differ in
what stands before the encoder and in its sizes, which their configs give. Sources: the public code
of each (upczww/abaw5 and abaw6, situAI/ABAW2022, FuxiVirtualHuman/ABAW5, ABAW2023-HFUT/ABAW5); for
CtyunAI that of abaw6 of 2024 (VA/model and VA/config, commit 6edc481), whose system it continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from avjax.models.layers import Dropout, Trainable, is_trained, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import DROPOUT, OneOf, Range, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


def multi_head(heads, dropout, drops, name):
  """Returns attention of several heads, which starts as PyTorch's does.

  Args:
    heads: the number of heads.
    dropout: the share of the weights of attention that are dropped.
    drops: whether they are.
    name: of the module.
  """
  return nn.MultiHeadDotProductAttention(
    heads,
    dropout_rate=dropout,
    broadcast_dropout=False,
    deterministic=not drops,
    kernel_init=nn.initializers.xavier_uniform(),
    name=name,
  )


class EncoderLayer(nn.Module):
  """Computes attention and two dense layers as PyTorch's TransformerEncoderLayer, -> (B,L,D).

  Attention and dense layers each have a residual and then a norm. The frames of x (B,L,D) attend to
  one another, or to the frames of another modality, `over` (B,L,D2).
  """

  heads: int
  hidden: int
  dropout: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B L D'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
    over: Float[Array, 'B L D2'] | None = None,
  ) -> Float[Array, 'B L D']:
    over = x if over is None else over
    attend = multi_head(self.heads, self.dropout, is_trained(self, is_trainable), 'attention')
    attended = attend(x, over, mask=mask[:, None, None, :])  # no frame attends to padding
    attended = Dropout(self.dropout, name='dropout1')(attended, is_trainable)
    x = nn.LayerNorm(epsilon=1e-5, name='norm1')(x + attended)
    y = nn.relu(nn.Dense(self.hidden, name='dense1')(x))
    y = Dropout(self.dropout, name='dropout2')(y, is_trainable)
    y = nn.Dense(x.shape[-1], name='dense2')(y)
    y = Dropout(self.dropout, name='dropout3')(y, is_trainable)
    return nn.LayerNorm(epsilon=1e-5, name='norm2')(x + y)


def sinusoidal(length, width):
  """Returns the positions of Vaswani et al. 2017, (L,D): sines in even columns, cosines in odd."""
  angles = np.arange(length)[:, None] / 10000 ** (np.arange(0, width, 2) / width)
  positions = np.zeros((length, width))
  positions[:, 0::2], positions[:, 1::2] = np.sin(angles), np.cos(angles[:, : width // 2])
  return positions


@FUSIONS.register(
  'transformer',
  ranges={
    'inputs': Range(
      lambda names: len(names) > 0 and set(names) <= {'visual', 'audio'}, 'visual, audio or both'
    ),
    'positions': OneOf(('none', 'sinusoidal')),
    'layers': at_least(1),
    'heads': at_least(1),
    'dropout': DROPOUT,
    'dropout_in': DROPOUT,
  },
)
class Transformer(nn.Module):
  """Runs dense layers and a transformer encoder: (B,L,Dv), (B,L,Da) -> (B,L,stem[-1]).

  Without positions, as in most of these systems, the encoder does not know the order of the frames;
  the temporal part before it does.

  inputs: the modalities that are concatenated, in this order.
  each: width of a dense layer on each modality before that, 0 for none.
  stem: widths of the dense layers after it.
  slope: of the LeakyReLU between the layers of the stem, None for no activation.
  dropout_in: dropout before the encoder.
  """

  length: int
  inputs: Sequence[str] = ('visual', 'audio')
  each: int = 0
  stem: Sequence[int] = (512,)
  slope: float | None = None
  dropout_in: float = 0.0
  positions: str = 'none'
  layers: int = 4
  heads: int = 4
  hidden: int = 512
  dropout: float = 0.3

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'] | None,
    audio: Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    features = {'visual': visual, 'audio': audio}
    parts = [
      nn.Dense(self.each, name=f'each_{name}')(features[name]) if self.each else features[name]
      for name in self.inputs
    ]
    x = jnp.concatenate(parts, axis=-1)
    for i, width in enumerate(self.stem):
      if i and self.slope is not None:
        x = nn.leaky_relu(x, self.slope)
      x = nn.Dense(width, name=f'stem{i}')(x)
    x = Dropout(self.dropout_in, name='dropout_in')(x, is_trainable)
    if self.positions == 'sinusoidal':
      x = x + sinusoidal(*x.shape[1:]).astype(x.dtype)[None]
    for i in range(self.layers):
      layer = EncoderLayer(self.heads, self.hidden, self.dropout, name=f'layer{i}')
      x = layer(x, mask, is_trainable)
    return zero_padding(x, mask)
