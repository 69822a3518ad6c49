"""Concatenates the features of both modalities: the control that every fusion has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register('concatenation')
class Concatenation(nn.Module):
  """Concatenates the features, [X_v; X_a]: (B,L,Dv), (B,L,Da) -> (B,L,Dv+Da)."""

  length: int

  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable
    return zero_padding(jnp.concatenate([visual, audio], axis=-1), mask)
