"""LFAN, leader-follower attention (Zhang, Zhao and Guan 2023): the face leads, attention between modalities follows.

Source: class LFAN of models/model.py and models/transformer.py in the authors' public code (ABAW3, ABAW5).
"""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.fusion.registry import fusion
from avjax.models.layers import Dropout


@fusion('lfan')
class LFAN(nn.Module):
  """[X_v; follower], (B,L,Dv + 2*width): in every frame, modalities are tokens that attend to one another.

  width: of each modality's part of the follower, over all heads.
  """
  length: int  # not used: frames do not meet here
  width: int = 32
  heads: int = 2
  dropout: float = 0.1

  @nn.compact
  def __call__(self, visual, audio, mask, trains):
    qkv = []
    for name, x in (('visual', visual), ('audio', audio)):
      x = nn.Dense(3 * self.width, kernel_init=nn.initializers.xavier_uniform(), name=f'{name}_qkv')(x)
      qkv.append(x.reshape(*x.shape[:2], self.heads, 3 * self.width // self.heads))
    q, k, v = jnp.split(jnp.stack(qkv, axis=3), 3, axis=-1)       # (B,L,heads,2,width/heads)
    scores = nn.softmax(jnp.einsum('blhmd,blhnd->blhmn', q, k) / jnp.sqrt(q.shape[-1]), axis=-1)
    attended = jnp.einsum('blhmn,blhnd->blhmd', scores, v) + v
    follower = attended.reshape(*visual.shape[:2], 2 * self.width)  # heads first, then modalities
    follower = nn.Dense(2 * self.width, kernel_init=nn.initializers.xavier_uniform(), name='output')(follower)
    follower = Dropout(self.dropout, name='dropout')(follower, trains)
    follower = nn.LayerNorm(epsilon=1e-5, name='norm')(follower)
    return jnp.concatenate([visual, follower], axis=-1) * mask[..., None]
