"""Leader-follower attention in its first form and as LFAN, and CAN, the channel attention of the same authors.

The visual features lead: they stay as they are, and what attention between the modalities finds is appended.
Sources: models/model.py and models/transformer.py of the authors' public code (ABAW2, ABAW3, ABAW5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Trainable, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import DROPOUT, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register('lfan', ranges={'width': at_least(1), 'heads': at_least(1), 'dropout': DROPOUT})
class LFAN(nn.Module):
  """Appends the follower to the visual features, (B,L,Dv + 2*width): in every frame the modalities are two tokens that attend.

  width: of each modality's part of the follower, over all heads.
  """

  length: int  # Not used: no frame sees another one here.
  width: int = 32
  heads: int = 2
  dropout: float = 0.1

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    qkv = []
    for name, x in (('visual', visual), ('audio', audio)):
      x = nn.Dense(
        3 * self.width, kernel_init=nn.initializers.xavier_uniform(), name=f'{name}_qkv'
      )(x)
      qkv.append(x.reshape(*x.shape[:2], self.heads, 3 * self.width // self.heads))
    q, k, v = jnp.split(jnp.stack(qkv, axis=3), 3, axis=-1)  # (B,L,heads,2,width/heads)
    scores = nn.softmax(jnp.einsum('blhmd,blhnd->blhmn', q, k) / jnp.sqrt(q.shape[-1]), axis=-1)
    attended = jnp.einsum('blhmn,blhnd->blhmd', scores, v) + v
    follower = attended.reshape(*visual.shape[:2], 2 * self.width)  # heads first, then modalities
    follower = nn.Dense(
      2 * self.width, kernel_init=nn.initializers.xavier_uniform(), name='output'
    )(follower)
    follower = Dropout(self.dropout, name='dropout')(follower, is_trainable)
    follower = nn.LayerNorm(epsilon=1e-5, name='norm')(follower)
    return zero_padding(jnp.concatenate([visual, follower], axis=-1), mask)


@FUSIONS.register('leader_follower', ranges={'width': at_least(1)})
class LeaderFollower(nn.Module):
  """Appends the follower as in its first form (Zhang, Ding, Wei and Guan 2021), (B,L,Dv + 2*width), with one head.

  For each key the softmax runs over the queries, not for each query over the keys as usual: so it is in their code.
  """

  length: int  # Not used: no frame sees another one here.
  width: int = 32

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable

    def tokens(kind):  # (B,L,2,width)
      return jnp.stack(
        [
          nn.Dense(self.width, name=f'{name}_{kind}')(x)
          for name, x in (('visual', visual), ('audio', audio))
        ],
        axis=2,
      )

    q, k, v = tokens('query'), tokens('key'), tokens('value')
    scores = nn.softmax(jnp.einsum('blmd,blnd->blmn', k, q) / jnp.sqrt(self.width), axis=-1)
    follower = nn.LayerNorm(
      epsilon=1e-5, reduction_axes=(-2, -1), feature_axes=(-2, -1), name='norm'
    )(scores @ v + v)
    follower = follower.reshape(*visual.shape[:2], 2 * self.width)
    return zero_padding(jnp.concatenate([visual, follower], axis=-1), mask)


@FUSIONS.register('can', ranges={'width': at_least(1)})
class CAN(nn.Module):
  """Channel attention (Zhang, Zhao and Guan 2023): projects each modality to `width`, then weighs all features, (B,L,2*width).

  The weights are a softmax over the features of both modalities.
  """

  length: int  # Not used: no frame sees another one here.
  width: int = 128

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable
    x = jnp.concatenate(
      [nn.Dense(self.width, name=name)(x) for name, x in (('visual', visual), ('audio', audio))],
      axis=-1,
    )
    return zero_padding(x * nn.softmax(nn.Dense(x.shape[-1], name='weights')(x), axis=-1), mask)
