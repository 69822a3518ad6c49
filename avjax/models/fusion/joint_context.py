"""Reads face and voice together over time: a fusion of ours, in none of the papers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable, sow_gate, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register(
  'joint_context',
  ranges={'width': at_least(1), 'reach': at_least(1), 'dilation': at_least(1)},
)
class JointContext(nn.Module):
  """Adds to [X_a; X_v] what a convolution over time sees in both: -> (B,L,Da+Dv+width).

  Its weights are the same at every frame, so a window may have any length and begin anywhere.

  reach: frames of the convolution before a frame, and as many after it, `dilation` apart.
  gated: whether X_a and X_v are weighed in every frame by shares that are computed from what the
    convolution sees. The shares (B,L,2) of visual and audio are sown as gates/modality; X is
    multiplied by twice its share, so that equal shares change nothing.
  """

  length: int  # Not used, see above.
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
    length, past = pair.shape[1], self.reach * self.dilation
    padded = jnp.pad(pair, ((0, 0), (past, past), (0, 0)))
    # One product of matrices, as in tcn.py.
    seen = [padded[:, first : first + length] for first in range(0, 2 * past + 1, self.dilation)]
    context = nn.relu(nn.Dense(self.width, name='context')(jnp.concatenate(seen, axis=-1)))
    if self.gated:
      shares = nn.softmax(nn.Dense(2, name='gate')(context), axis=-1)
      sow_gate(self, 'modality', shares)
      pair = jnp.concatenate([2 * shares[..., 1:] * audio, 2 * shares[..., :1] * visual], axis=-1)
    return zero_padding(jnp.concatenate([pair, context], axis=-1), mask)
