"""Computes JCA as first published (Praveen et al., CVPRW 2022).

Its equations differ from section 3.2 of the present paper. Source: models/cam.py of the authors'
public code (JointCrossAttentional-AV-Fusion). The joint features are as wide as both modalities
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class Attention2022(nn.Module):
  """Lets one modality attend to the joint features: x (B,L,Dm), joint (B,L,D) -> (B,L,Dm).

  length: L, an axis of the weights that mix frames: affine (L x L), w_x and w_h.
  maps: the other axis of w_x and w_h.
  """

  length: int
  maps: int

  @nn.compact
  def __call__(self, x, joint):
    frames, d = x.shape[1], joint.shape[2]
    init = nn.initializers.lecun_normal()
    affine = self.param('affine', init, (self.length, self.length))[:frames, :frames]
    w_c = self.param('w_c', init, (d, self.maps))
    w_x = self.param('w_x', init, (self.length, self.maps))[:frames]
    w_h = self.param('w_h', init, (self.maps, self.length))[:, :frames]
    # fmt: off
    c = jnp.tanh(jnp.einsum('bld,lm,bme->bde', x, affine, joint) / jnp.sqrt(d))   # (B,Dm,D)
    h = nn.relu(c @ w_c + jnp.einsum('bld,lk->bdk', x, w_x))                       # (B,Dm,maps)
    return jnp.einsum('bdk,kl->bld', h, w_h) + x                                   # (B,L,Dm)
    # fmt: on


@FUSIONS.register('jca_2022', ranges={'width': at_least(1)})
class JCA2022(nn.Module):
  """Projects each modality to `width` features, and lets it attend to both: -> (B,L,2*width)."""

  length: int
  width: int = 128
  maps: int = 32

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable
    audio, visual = (
      zero_padding(nn.Dense(self.width, name=name)(x), mask)
      for name, x in (('audio_in', audio), ('visual_in', visual))
    )
    joint = jnp.concatenate([audio, visual], axis=-1)
    attended = [
      Attention2022(self.length, self.maps, name=name)(x, joint)
      for name, x in (('audio', audio), ('visual', visual))
    ]
    return zero_padding(jnp.concatenate(attended, axis=-1), mask)
