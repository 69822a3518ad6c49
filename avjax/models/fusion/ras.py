"""Computes the fusions of team RAS at the 10th ABAW, of face and voice: RAAV and DCMMOE.

They are those of Ryumina et al. 2026 (arXiv:2603.13056). Source: the public code of the authors
(SMIL-SPCRAS/CVPRW-26, commit 8385d2a), that is multimodal_fusion_model.py of
src_audio_and_fusion/src/fusion/models/ for RAAV, and src_fusion_model/model.py for one expert of
DCMMOE; the mixture of experts is in the paper only. Their third modality, descriptions of behaviour
by a language model, is left out, and so are the predictions of single modalities that they append
to the features. docs/systems.md lists what else differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from avjax.models.fusion.transformer import multi_head, sinusoidal
from avjax.models.layers import Dropout, Trainable, is_trained, sow_gate, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import DROPOUT, Range, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


class PreNormLayer(nn.Module):
  """Computes attention and two dense layers, each behind its norm and with a residual, -> (B,L,D).

  It is PyTorch's TransformerEncoderLayer with `norm_first` and GELU, 4*D wide inside.
  """

  heads: int
  dropout: float

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L D']:
    attend = multi_head(self.heads, self.dropout, is_trained(self, is_trainable), 'attention')
    y = nn.LayerNorm(epsilon=1e-5, name='norm1')(x)
    y = attend(y, y, mask=mask[:, None, None, :])  # no frame attends to padding
    x = x + Dropout(self.dropout, name='dropout1')(y, is_trainable)
    y = nn.LayerNorm(epsilon=1e-5, name='norm2')(x)
    y = nn.gelu(nn.Dense(4 * x.shape[-1], name='dense1')(y), approximate=False)
    y = Dropout(self.dropout, name='dropout2')(y, is_trainable)
    y = nn.Dense(x.shape[-1], name='dense2')(y)
    return x + Dropout(self.dropout, name='dropout3')(y, is_trainable)


@FUSIONS.register(
  'raav',
  ranges={
    'width': at_least(1),
    'heads': at_least(1),
    'layers': at_least(1),
    'latents': at_least(1),
    'dropout': DROPOUT,
    'priors': Range(lambda pair: len(pair) == 2 and min(pair) > 0, 'two numbers above 0'),
  },
)
class RAAV(nn.Module):
  """Computes reliability-aware audio-visual fusion, -> (B,L,width).

  In every frame a gate weighs the modalities by their reliability. Then the frames attend to a few
  latent vectors, into which attention has gathered the audio of the whole window, and an encoder
  without positions follows. The weights of the gate, (B,L,2) of visual and audio, are sown as
  gates/modality.

  gate_audio: whether the gate weighs audio, too, in the place of their descriptions of behaviour.
    Without these it has only one modality in their code, whose weight is always 1.
  priors: of visual and audio; their logarithms are added to what the gate makes of the features.
  """

  length: int  # Not used: any number of frames attend to one another.
  width: int = 256
  heads: int = 4
  layers: int = 1
  latents: int = 4
  dropout: float = 0.1
  gate_audio: bool = True
  priors: Sequence[float] = (0.85, 0.15)

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    frames = zero_padding(nn.Dense(self.width, name='visual')(visual), mask)
    if self.gate_audio:
      voice = zero_padding(nn.Dense(self.width, name='audio')(audio), mask)
      frames = self.gate([frames, voice], is_trainable)
    context = zero_padding(nn.Dense(self.width, name='context')(audio), mask)
    x = self.with_context(frames, context, mask, is_trainable)
    for i in range(self.layers):
      layer = PreNormLayer(self.heads, self.dropout, name=f'layer{i}')
      x = layer(x, mask, is_trainable)
    return zero_padding(x, mask)

  def gate(
    self, modalities: list[Float[Array, 'B L width']], is_trainable: Trainable
  ) -> Float[Array, 'B L width']:
    """Weighs visual and audio features (B,L,width) in every frame; returns their sum."""
    logits = []
    for name, x, share in zip(('visual', 'audio'), modalities, self.priors, strict=True):
      y = nn.gelu(nn.Dense(self.width, name=f'gate_{name}_hidden')(x), approximate=False)
      y = Dropout(self.dropout, name=f'gate_{name}_dropout')(y, is_trainable)
      prior = np.log(share / sum(self.priors)).astype(y.dtype)
      logits.append(nn.Dense(1, name=f'gate_{name}')(y) + prior)
    scores = nn.softmax(jnp.concatenate(logits, axis=-1), axis=-1)  # alpha_m: (B,L,2)
    sow_gate(self, 'modality', scores)
    return jnp.einsum('kbld,blk->bld', jnp.stack(modalities), scores)  # z_vis = sum alpha_m h_m

  def with_context(
    self,
    frames: Float[Array, 'B L width'],
    audio: Float[Array, 'B L width'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L width']:
    """Adds to the frames what they find in the latent vectors of the window's audio."""
    trained = is_trained(self, is_trainable)
    latents = self.param('latents', nn.initializers.normal(0.02), (self.latents, self.width))
    latents = jnp.broadcast_to(latents[None], (len(audio), *latents.shape))
    gather = multi_head(self.heads, self.dropout, trained, 'gather')
    gathered = gather(latents, audio, mask=mask[:, None, None, :])
    latents = nn.LayerNorm(epsilon=1e-5, name='latents_norm')(latents + gathered)
    found = multi_head(self.heads, self.dropout, trained, 'find')(
      nn.LayerNorm(epsilon=1e-5, name='frames_norm')(frames), latents
    )
    # Z_0 = LN(Z_vis + CrossAttn(Z_vis, B_a, B_a)); in their code a norm stands before the queries.
    return nn.LayerNorm(epsilon=1e-5, name='context_norm')(frames + found)


class ExpertLayer(nn.Module):
  """Lets x (B,L,D) attend to `over` (B,L,D), both with positions; two dense layers follow.

  As in their code, dropout stands on the residuals, and the dense layers are D wide inside.
  """

  heads: int
  dropout: float

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'B L D'],
    over: Float[Array, 'B L D'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    positions = sinusoidal(*x.shape[1:]).astype(x.dtype)[None]
    drop = Dropout(self.dropout, name='dropout_positions')
    x, key, value = (drop(y + positions, is_trainable) for y in (x, over, over))
    attend = multi_head(self.heads, self.dropout, is_trained(self, is_trainable), 'attention')
    attended = attend(x, key, value, mask=mask[:, None, None, :])  # no frame attends to padding
    x = Dropout(self.dropout, name='dropout1')(x, is_trainable)
    x = nn.LayerNorm(epsilon=1e-5, name='norm1')(attended + x)
    y = nn.gelu(nn.Dense(x.shape[-1], name='dense1')(x), approximate=False)
    y = Dropout(self.dropout, name='dropout2')(y, is_trainable)
    y = nn.Dense(x.shape[-1], name='dense2')(y)
    x = Dropout(self.dropout, name='dropout3')(x, is_trainable)
    return nn.LayerNorm(epsilon=1e-5, name='norm2')(y + x)


@FUSIONS.register(
  'dcmmoe',
  ranges={'width': at_least(1), 'layers': at_least(1), 'heads': at_least(1), 'dropout': DROPOUT},
)
class DCMMOE(nn.Module):
  """Computes the directed cross-modal mixture of experts, -> (B,L,width).

  There is an expert for each ordered pair of modalities: in one of them visual attends to audio, in
  the other audio to visual. In every frame a gate, which reads the mean of both modalities, weighs
  the experts. Its weights, (B,L,2) of these two, are sown as gates/expert.

  audio_expert: whether there is the expert in which audio attends, and with it the gate. Their
    public code has only one expert, in which the face attends, and no gate.
  """

  length: int  # Not used: any number of frames attend to one another.
  width: int = 256
  layers: int = 5
  heads: int = 8
  dropout: float = 0.1
  audio_expert: bool = True

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'],
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    visual = self.project('visual', visual, mask, is_trainable)
    audio = self.project('audio', audio, mask, is_trainable)
    fused = self.expert('visual', visual, audio, mask, is_trainable)
    if self.audio_expert:
      other = self.expert('audio', audio, visual, mask, is_trainable)
      logits = nn.Dense(2, name='gate')((visual + audio) / 2)  # g = W_g mean(h) + b_g: (B,L,2)
      scores = nn.softmax(logits, axis=-1)
      sow_gate(self, 'expert', scores)
      fused = jnp.einsum('kbld,blk->bld', jnp.stack([fused, other]), scores)  # z = sum g_qk Z_qk
    return zero_padding(fused, mask)

  def project(self, name, x, mask, is_trainable):
    """Brings a modality (B,L,Dm) to the common width, (B,L,width)."""
    x = nn.LayerNorm(epsilon=1e-5, name=f'{name}_norm')(nn.Dense(self.width, name=name)(x))
    return zero_padding(Dropout(self.dropout, name=f'{name}_dropout')(x, is_trainable), mask)

  def expert(self, name, x, over, mask, is_trainable):
    """Lets x (B,L,width) attend to `over` (B,L,width) in every layer, each with a residual."""
    for i in range(self.layers):
      layer = ExpertLayer(self.heads, self.dropout, name=f'{name}_layer{i}')
      x = x + layer(x, over, mask, is_trainable)
    return x
