"""One modality without the other: the controls of every table, and the fusion of frame-wise systems."""

import flax.linen as nn

from avjax.models.layers import zero_padding
from avjax.models.registry import FUSIONS


@FUSIONS.register('visual', needs=('visual',))
class Visual(nn.Module):
  """Passes the visual features on, (B,L,Dv)."""

  length: int

  def __call__(self, visual, audio, mask, is_trainable):
    del audio, is_trainable
    return zero_padding(visual, mask)


@FUSIONS.register('audio', needs=('audio',))
class Audio(nn.Module):
  """Passes the audio features on, (B,L,Da)."""

  length: int

  def __call__(self, visual, audio, mask, is_trainable):
    del visual, is_trainable
    return zero_padding(audio, mask)
