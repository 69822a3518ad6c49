"""Reconstructs the cross-modal transformer of USTC-IAT-United (arXiv:2503.10523).

The sizes of their model are not public.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.fusion.transformer import EncoderLayer
from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import DROPOUT, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register(
  'cross_modal',
  ranges={'width': at_least(1), 'blocks': at_least(1), 'heads': at_least(1), 'dropout': DROPOUT},
)
class CrossModal(nn.Module):
  """Lets visual attend to audio: (B,L,Dv), (B,L,Da) -> [V; V attended], (B,L,2*width).

  In each block visual is the query, audio is key and value, and two dense layers follow.
  """

  length: int  # Not used: any number of frames attend to one another.
  width: int = 256
  blocks: int = 2
  heads: int = 4
  hidden: int = 512
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    visual = nn.Dense(self.width, name='visual')(visual)
    audio = nn.Dense(self.width, name='audio')(audio)
    x = visual
    for i in range(self.blocks):
      block = EncoderLayer(self.heads, self.hidden, self.dropout, name=f'block{i}')
      x = block(x, mask, is_trainable, over=audio)
    return zero_padding(jnp.concatenate([visual, x], axis=-1), mask)
