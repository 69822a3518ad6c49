"""LSTM over the face's features: a reconstruction of AIWELL-UOC (arXiv:2503.12260), of which only the abstract says how it is built."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.registry import FUSIONS


@FUSIONS.register('lstm', needs=('visual',))
class LSTM(nn.Module):
  """Layers of LSTM over the face alone, (B,L,Dv) -> (B,L,width), or (B,L,2*width) in both directions."""
  length: int  # not used
  width: int = 256
  layers: int = 1
  bidirectional: bool = False

  @nn.compact
  def __call__(self, visual, audio, mask, is_trainable):
    del audio, is_trainable
    x, lengths = visual, mask.sum(axis=1)  # padding is at the end
    cell = functools.partial(nn.OptimizedLSTMCell, self.width, param_dtype=x.dtype)  # the type of its first state, too
    for i in range(self.layers):
      forward = nn.RNN(cell(name=f'forward{i}'))(x, seq_lengths=lengths)
      if self.bidirectional:
        backward = nn.RNN(cell(name=f'backward{i}'), reverse=True, keep_order=True)
        forward = jnp.concatenate([forward, backward(x, seq_lengths=lengths)], axis=-1)
      x = forward
    return x * mask[..., None]
