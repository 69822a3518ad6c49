"""Computes leader-follower attention, in its first form and as LFAN, and CAN by the same authors.

The visual features lead: they stay as they are, and the result of attention between the modalities,
the follower, is appended. CAN is channel attention. Sources: the authors' public code, that is
model/model.py of sucv/ABAW2 (commit 71d40fb), and models/model.py and models/transformer.py of
sucv/ABAW3 (commit fbb305a), which is also the code of ABAW5.
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
  """Appends the follower to the visual features, -> (B,L,Dv + 2*width).

  In every frame the modalities are two tokens that attend to both.

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
    xavier = nn.initializers.xavier_uniform()
    qkv = []
    for name, x in (('visual', visual), ('audio', audio)):
      x = nn.Dense(3 * self.width, kernel_init=xavier, name=f'{name}_qkv')(x)
      qkv.append(x.reshape(*x.shape[:2], self.heads, 3 * self.width // self.heads))
    q, k, v = jnp.split(jnp.stack(qkv, axis=3), 3, axis=-1)  # (B,L,heads,2,width/heads)
    scores = nn.softmax(jnp.einsum('blhmd,blhnd->blhmn', q, k) / jnp.sqrt(q.shape[-1]), axis=-1)
    attended = jnp.einsum('blhmn,blhnd->blhmd', scores, v) + v
    follower = attended.reshape(*visual.shape[:2], 2 * self.width)  # heads first, then modalities
    follower = nn.Dense(2 * self.width, kernel_init=xavier, name='output')(follower)
    follower = Dropout(self.dropout, name='dropout')(follower, is_trainable)
    follower = nn.LayerNorm(epsilon=1e-5, name='norm')(follower)
    return zero_padding(jnp.concatenate([visual, follower], axis=-1), mask)


@FUSIONS.register('leader_follower', ranges={'width': at_least(1)})
class LeaderFollower(nn.Module):
  """Appends the follower in its first form (Zhang, Ding, Wei and Guan 2021), -> (B,L,Dv + 2*width).

  There is one head. For each key the softmax runs over the queries, as in their code, and not for
  each query over the keys as usual.

  from_key: whether query and value of audio are projected from its key, as in the code of 2021
    (ABAW2, `my_2d1ddy`), where the key has overwritten the features. False is the code of 2022
    (ABAW3, `LeaderFollowerAttentionNetwork`), where all three are projected from the features.
  """

  length: int  # Not used: no frame sees another one here.
  width: int = 32
  from_key: bool = False

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del is_trainable

    def tokens(kind, audio):  # (B,L,2,width)
      modalities = (('visual', visual), ('audio', audio))
      projected = [nn.Dense(self.width, name=f'{name}_{kind}')(x) for name, x in modalities]
      return jnp.stack(projected, axis=2)

    k = tokens('key', audio)
    source = k[:, :, 1] if self.from_key else audio
    q, v = tokens('query', source), tokens('value', source)
    scores = nn.softmax(jnp.einsum('blmd,blnd->blmn', k, q) / jnp.sqrt(self.width), axis=-1)
    axes = (-2, -1)
    norm = nn.LayerNorm(epsilon=1e-5, reduction_axes=axes, feature_axes=axes, name='norm')
    follower = norm(scores @ v + v)
    follower = follower.reshape(*visual.shape[:2], 2 * self.width)
    return zero_padding(jnp.concatenate([visual, follower], axis=-1), mask)


@FUSIONS.register('can', ranges={'width': at_least(1)})
class CAN(nn.Module):
  """Computes channel attention (Zhang, Zhao and Guan 2023), -> (B,L,2*width).

  It projects each modality to `width` and then weighs all features. The weights are a softmax over
  the features of both modalities.
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
    modalities = (('visual', visual), ('audio', audio))
    projected = [nn.Dense(self.width, name=name)(x) for name, x in modalities]
    x = jnp.concatenate(projected, axis=-1)
    return zero_padding(x * nn.softmax(nn.Dense(x.shape[-1], name='weights')(x), axis=-1), mask)
