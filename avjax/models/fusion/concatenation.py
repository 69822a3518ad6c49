"""Early concatenation: the control that every fusion has to beat."""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.fusion.registry import fusion


@fusion('concatenation')
class Concatenation(nn.Module):
  """[X_v; X_a] and nothing else: (B,L,Dv), (B,L,Da) -> (B,L,Dv+Da)."""
  length: int

  def __call__(self, visual, audio, mask, trains):
    del trains
    return jnp.concatenate([visual, audio], axis=-1) * mask[..., None]
