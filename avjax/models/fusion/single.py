"""One modality alone: the controls of every table, and what frame-wise systems use."""

import flax.linen as nn

from avjax.models.registry import FUSIONS


@FUSIONS.register('visual', needs=('visual',))
class Visual(nn.Module):
  """The face's features as they are, (B,L,Dv)."""
  length: int

  def __call__(self, visual, audio, mask, is_trainable):
    del audio, is_trainable
    return visual * mask[..., None]


@FUSIONS.register('audio', needs=('audio',))
class Audio(nn.Module):
  """The voice's features as they are, (B,L,Da)."""
  length: int

  def __call__(self, visual, audio, mask, is_trainable):
    del visual, is_trainable
    return audio * mask[..., None]
