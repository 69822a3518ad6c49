"""Computes one recursion of attention as the authors' public code does.

joint_cross_attention.py has the paper's equations. Source: models/dense_coattn.py and
models/av_crossatten.py of RJCMA, Recurrent-Joint-Attention and Dynamic-CrossAttention, which follow
dense co-attention (Nguyen and Okatani 2018). docs/weights.md lists the names of their parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, TorchDense, Trainable, zero_padding

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class CoAttention(nn.Module):
  """Lets one modality attend to the joint features: x (B,L,Dm), joint (B,L,D) -> (B,L,Dm).

  Both inputs are zero on padding. The attention is over channels, Dm x D, where the paper's is over
  frames, L x L. The key mixes frames, so its weights are L x L: a window of L' < length frames uses
  their leading block.
  """

  length: int
  dropout: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L Dm'], joint: Float[Array, 'B L D'], is_trainable: Trainable
  ) -> Float[Array, 'B L Dm']:
    frames, width, d = x.shape[1], x.shape[2], joint.shape[2]
    # fmt: off
    key = TorchDense(self.length, name='key')(x.transpose(0, 2, 1), frames)               # (B,Dm,L)
    scores = jnp.tanh(jnp.einsum('bml,bld->bmd', key, joint) / jnp.sqrt(d))               # (B,Dm,D)
    scores = Dropout(self.dropout, name='dropout_scores')(scores, is_trainable)
    value = TorchDense(width, name='value')(x)                                            # (B,L,Dm)
    weighted = nn.relu(jnp.tanh(jnp.einsum('blm,bmd->bld', value, scores)))               # (B,L,D)
    attended = nn.relu(TorchDense(width, name='output')(weighted))                        # (B,L,Dm)
    # fmt: on
    return x + Dropout(self.dropout, name='dropout_output')(attended, is_trainable)


class JointCoAttention(nn.Module):
  """Computes one recursion: visual (B,L,Dv) and audio (B,L,Da) each attend to [X_v; X_a].

  The shapes stay the same. With `joint_fc` they attend to FC([X_v; X_a]), as in two of the
  repositories; RJCMA computes this and drops the result.
  """

  length: int
  dropout: float
  joint_fc: bool

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> tuple[Float[Array, 'B L Dv'], Float[Array, 'B L Da']]:
    visual, audio = zero_padding(visual, mask), zero_padding(audio, mask)
    joint = jnp.concatenate([visual, audio], axis=-1)
    if self.joint_fc:
      joint = zero_padding(TorchDense(joint.shape[-1], name='joint')(joint), mask)
    visual = CoAttention(self.length, self.dropout, name='visual')(visual, joint, is_trainable)
    audio = CoAttention(self.length, self.dropout, name='audio')(audio, joint, is_trainable)
    return zero_padding(visual, mask), zero_padding(audio, mask)
