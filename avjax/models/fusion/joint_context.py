"""Reads both modalities together over time: a fusion of ours, which is in none of the papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable, join_neighbours, sow_gate, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register(
  'joint_context',
  ranges={'width': at_least(1), 'reach': at_least(1), 'dilation': at_least(1)},
)
class JointContext(nn.Module):
  """Adds to [X_a; X_v] what a convolution over time sees in both, -> (B,L,Da+Dv+width).

  It sees features that disagree next to each other, with what comes before and after them. With S
  the frames that it sees, earliest first and zeros beyond the ends of a clip, and r the ReLU, the
  output is [X_a; X_v; r(W S + b)]. The weights are the same in every frame, so a window may have
  any length and begin anywhere.

  width: of what the convolution adds.
  reach: how many frames it sees before a frame, and as many after it, `dilation` frames apart.
  gated: whether X_a and X_v are weighed in every frame before all of this, each by twice its share:
    equal shares change nothing. The shares, (B,L,2) of visual and audio, are a softmax over a dense
    layer on r(W' S + b'), a convolution of the same size, and are sown as gates/modality.
  """

  length: int  # Not used: the weights are the same in every frame.
  width: int = 128
  reach: int = 4
  dilation: int = 1
  gated: bool = False

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable
    visual, audio = zero_padding(visual, mask), zero_padding(audio, mask)
    pair = jnp.concatenate([audio, visual], axis=-1)
    if self.gated:
      shares = nn.softmax(nn.Dense(2, name='gate')(self.convolve('gate_hidden', pair)), axis=-1)
      sow_gate(self, 'modality', shares)
      pair = jnp.concatenate([2 * shares[..., 1:] * audio, 2 * shares[..., :1] * visual], axis=-1)
    return zero_padding(jnp.concatenate([pair, self.convolve('context', pair)], axis=-1), mask)

  def convolve(self, name: str, pair: Float[Array, 'B L D']) -> Float[Array, 'B L width']:
    """Returns r(W S + b)."""
    seen = join_neighbours(pair, self.reach, self.reach, self.dilation)
    return nn.relu(nn.Dense(self.width, name=name)(seen))
