"""Computes cross-attention as first published (Praveen, Granger and Cardinal, FG 2021).

It is the first fusion of the authors' line (arXiv:2111.05222): audio and visual frames are
correlated with each other, and there are no joint features yet. Source: models/cam.py and train.py
of their public code (praveena2j/Cross-Attentional-AV-Fusion, commit 85bf502). It returns the
re-weighted features; the paper adds them to the features and applies tanh, which is commented out
in the code of its successor (praveena2j/JointCrossAttentional-AV-Fusion, commit 84c95b2,
models/cam.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp

from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import POSITIVE

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register('ca_2021', ranges={'temperature': POSITIVE})
class CA2021(nn.Module):
  """Re-weighs each modality by its correlation with the other: -> (B,L,Da+Dv), audio first.

  As in their code, the features of each frame are scaled to unit length first.

  temperature: T of the softmax; their code has none, which is 1.
  residual: whether the result is tanh(X + re-weighted X), as in the paper, and not the re-weighted
    X by itself, as in their code.
  """

  length: int  # Not used: any number of frames are correlated.
  temperature: float = 1.0
  residual: bool = True

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable
    visual, audio = (zero_padding(unit_length(x), mask) for x in (visual, audio))
    xavier = nn.initializers.xavier_normal()
    w = self.param('correlation', xavier, (audio.shape[-1], visual.shape[-1]))
    scores = jnp.einsum('bld,de,bme->blm', audio, w, visual) / self.temperature  # (B,La,Lv)
    attended = [
      self.attend(audio, scores, mask),
      self.attend(visual, scores.transpose(0, 2, 1), mask),
    ]
    return zero_padding(jnp.concatenate(attended, axis=-1), mask)

  def attend(self, x, scores, mask):
    """Replaces each frame by a weighted mean of all frames of x (B,L,Dm), -> (B,L,Dm).

    The weights of frame m are the softmax of scores[:, :, m] (B,L,L) over the frames of x.
    """
    lowest = jnp.finfo(scores.dtype).min  # not -inf, which gives NaN in a row without frames
    weights = nn.softmax(jnp.where(mask[:, :, None], scores, lowest), axis=1)
    y = jnp.einsum('blm,bld->bmd', weights, x)
    return jnp.tanh(x + y) if self.residual else y


def unit_length(x):
  """Scales x (..., D) to unit length over D; zeros stay zeros, with a finite gradient."""
  return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(axis=-1, keepdims=True), 1e-24))
