"""Passes on one modality without the other.

This is the fusion of the controls of every table, and of systems that predict frame by frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn

from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register('visual', needs=('visual',))
class Visual(nn.Module):
  """Passes the visual features on, (B,L,Dv)."""

  length: int

  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del audio, is_trainable
    return zero_padding(visual, mask)


@FUSIONS.register('audio', needs=('audio',))
class Audio(nn.Module):
  """Passes the audio features on, (B,L,Da)."""

  length: int

  def __call__(
    self,
    visual: Float[Array, 'B L Dv'] | None,
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del visual, is_trainable
    return zero_padding(audio, mask)
