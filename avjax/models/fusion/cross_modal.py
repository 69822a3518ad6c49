"""Cross-modal transformer, a reconstruction of USTC-IAT-United (arXiv:2503.10523), whose sizes are not public: the face asks the voice."""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.fusion.transformer import EncoderLayer
from avjax.models.registry import FUSIONS


@FUSIONS.register('cross_modal')
class CrossModal(nn.Module):
  """[V; V<-A], (B,L,2*width): in each block the face is the query, the voice key and value; then two dense layers."""
  length: int  # not used: any number of frames attend to one another
  width: int = 256
  blocks: int = 2
  heads: int = 4
  hidden: int = 512
  dropout: float = 0.1

  @nn.compact
  def __call__(self, visual, audio, mask, is_trainable):
    visual, audio = nn.Dense(self.width, name='visual')(visual), nn.Dense(self.width, name='audio')(audio)
    x = visual
    for i in range(self.blocks):
      x = EncoderLayer(self.heads, self.hidden, self.dropout, name=f'block{i}')(x, mask, is_trainable, over=audio)
    return jnp.concatenate([visual, x], axis=-1) * mask[..., None]
