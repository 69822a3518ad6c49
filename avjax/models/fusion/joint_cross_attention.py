"""Computes joint cross-attention: JCA, RJCA, DCA, GRJCA and HGRJCA (paper, eq. 1 to 20).

Frames are rows here, (B,L,D), where the paper writes them as columns, D x L. The mask (B,L) is True
on frames and False on padding. It is enough to zero the padded rows of X and J: since tanh(0) = 0,
they drop out of every sum over frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.fusion.author_attention import JointCoAttention
from avjax.models.layers import Trainable, sow_gate, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import DROPOUT, POSITIVE, OneOf, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class Attention(nn.Module):
  """Lets one modality attend to the joint features: x (B,L,Dm), joint (B,L,D) -> (B,L,Dm).

  w_c and w_h are L x L, since they mix frames: a window of L' < length frames uses their leading
  L' x L' block. They are drawn with standard deviation 1/L because eq. 3 and 5 sum over L frames:
  from Xavier's initialisation the features would grow tenfold with every recursion.
  """

  length: int

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L Dm'], joint: Float[Array, 'B L D']
  ) -> Float[Array, 'B L Dm']:
    frames, width, d = x.shape[1], x.shape[2], joint.shape[2]
    over_time = nn.initializers.normal(1 / self.length)
    w_j = self.param('w_j', nn.initializers.xavier_uniform(), (width, d))
    w_c = self.param('w_c', over_time, (self.length, self.length))[:frames, :frames]
    w_h = self.param('w_h', over_time, (self.length, self.length))[:frames, :frames]
    # fmt: off
    c = jnp.tanh(jnp.einsum('bld,de,bme->blm', x, w_j, joint) / jnp.sqrt(d))  # eq. 1, 2: (B,L,L)
    h = nn.relu(jnp.einsum('bld,lm,bmn->bnd', x, w_c, c))                     # eq. 3, 4: (B,L,Dm)
    return jnp.einsum('bnd,nl->bld', h, w_h) + x                              # eq. 5 to 8
    # fmt: on


class JointCrossAttention(nn.Module):
  """Computes one recursion: visual (B,L,Dv) and audio (B,L,Da) each attend to J = FC([X_a; X_v]).

  The shapes stay the same.
  """

  length: int

  @nn.compact
  def __call__(
    self, visual: Float[Array, 'B L Dv'], audio: Float[Array, 'B L Da'], mask: Bool[Array, 'B L']
  ) -> tuple[Float[Array, 'B L Dv'], Float[Array, 'B L Da']]:
    visual, audio = zero_padding(visual, mask), zero_padding(audio, mask)
    pair = jnp.concatenate([audio, visual], axis=-1)
    joint = zero_padding(nn.Dense(pair.shape[-1], name='joint')(pair), mask)
    visual = Attention(self.length, name='visual')(visual, joint)
    audio = Attention(self.length, name='audio')(audio, joint)
    return zero_padding(visual, mask), zero_padding(audio, mask)


@FUSIONS.register(
  'rjca',
  ranges={
    'recursions': at_least(1),
    'temperature': POSITIVE,
    'formulation': OneOf(('paper', 'author')),
    'dropout': DROPOUT,
  },
)
class RJCA(nn.Module):
  """Computes recursive joint cross-attention (section 3.2), -> (B,L,Dv+Da).

  It concatenates the features of the last recursion. JCA is a single recursion. The gated systems
  override only `choose`, which combines X^(0), ..., X^(M) of a modality.

  formulation: 'paper', or 'author' for the recursion of the authors' public code, which puts visual
    before audio.
  dropout, joint_fc: of the formulation 'author' only.
  temperature: T of eq. 11 and 16, of the gated systems only.
  """

  length: int
  recursions: int = 3
  temperature: float = 0.1
  formulation: str = 'paper'
  dropout: float = 0.6
  joint_fc: bool = False

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    visuals, audios = [zero_padding(visual, mask)], [zero_padding(audio, mask)]
    for t in range(1, self.recursions + 1):
      if self.formulation == 'author':
        layer = JointCoAttention(self.length, self.dropout, self.joint_fc, name=f'recursion_{t}')
        visual, audio = layer(visuals[-1], audios[-1], mask, is_trainable)
      else:
        layer = JointCrossAttention(self.length, name=f'recursion_{t}')
        visual, audio = layer(visuals[-1], audios[-1], mask)
      visuals.append(visual)
      audios.append(audio)
    pair = [self.choose('audio', audios), self.choose('visual', visuals)]
    pair = pair[::-1] if self.formulation == 'author' else pair
    return zero_padding(jnp.concatenate(pair, axis=-1), mask)

  def choose(self, modality: str, series: list[Float[Array, 'B L Dm']]) -> Float[Array, 'B L Dm']:
    """Combines the series X^(0), ..., X^(M) of a modality, each (B,L,Dm), into one (B,L,Dm)."""
    del modality
    return series[-1]

  def gate(
    self, name: str, x: Float[Array, 'B L Dm'], series: list[Float[Array, 'B L Dm']]
  ) -> Float[Array, 'B L Dm']:
    """Weighs K features (B,L,Dm) by a gate that reads x (B,L,Dm): ReLU of their weighted sum.

    Returns (B,L,Dm). The scores (B,L,K), which sum to 1 over K, are sown as gates/`name`.
    """
    # fmt: off
    scores = nn.Dense(len(series), name=f'gate_{name}')(x)   # eq. 9, 10, 14, 15: (B,L,K)
    scores = nn.softmax(scores / self.temperature, axis=-1)  # eq. 11, 16
    # fmt: on
    sow_gate(self, name, scores)
    return nn.relu(jnp.einsum('kbld,blk->bld', jnp.stack(series), scores))  # eq. 12, 13, 17 to 20


@FUSIONS.register('dca')
class DCA(RJCA):
  """Computes dynamic cross-attention (Praveen and Alam 2024).

  Its gates choose between the unattended and the last attended features.
  """

  def choose(self, modality, series):
    return self.gate(modality, series[-1], [series[0], series[-1]])


@FUSIONS.register('grjca')
class GRJCA(RJCA):
  """Computes gated recursive joint cross-attention (section 3.3).

  Its gates weigh the unattended features and those of every recursion.
  """

  def choose(self, modality, series):
    return self.gate(modality, series[-1], series)


@FUSIONS.register('hgrjca')
class HGRJCA(RJCA):
  """Computes hierarchical GRJCA (section 3.4).

  At every recursion gates weigh X^(t-1) and X^(t); a final gate weighs the gated features.
  """

  def choose(self, modality, series):
    gated = [
      self.gate(f'{modality}_{t}', series[t], series[t - 1 : t + 1]) for t in range(1, len(series))
    ]
    return self.gate(f'{modality}_final', gated[-1], gated)
