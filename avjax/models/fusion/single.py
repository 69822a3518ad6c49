"""One modality alone: the controls of every table, and what frame-wise systems use."""

import flax.linen as nn

from avjax.models.fusion.registry import fusion


@fusion('visual', needs=('visual',))
class Visual(nn.Module):
  """The face's features as they are, (B,L,Dv)."""
  length: int

  def __call__(self, visual, audio, mask, trains):
    del audio, trains
    return visual * mask[..., None]


@fusion('audio', needs=('audio',))
class Audio(nn.Module):
  """The voice's features as they are, (B,L,Da)."""
  length: int

  def __call__(self, visual, audio, mask, trains):
    del visual, trains
    return audio * mask[..., None]
