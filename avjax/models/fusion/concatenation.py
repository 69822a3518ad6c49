"""Early concatenation: the control that every fusion has to beat."""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import zero_padding
from avjax.models.registry import FUSIONS


@FUSIONS.register('concatenation')
class Concatenation(nn.Module):
  """Concatenates the features, [X_v; X_a]: (B,L,Dv), (B,L,Da) -> (B,L,Dv+Da)."""

  length: int

  def __call__(self, visual, audio, mask, is_trainable):
    del is_trainable
    return zero_padding(jnp.concatenate([visual, audio], axis=-1), mask)
