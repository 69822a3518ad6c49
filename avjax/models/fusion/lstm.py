"""Reconstructs AIWELL-UOC (arXiv:2503.12260) from its abstract: an LSTM over visual features."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@FUSIONS.register('lstm', needs=('visual',), ranges={'width': at_least(1), 'layers': at_least(1)})
class LSTM(nn.Module):
  """Runs layers of LSTM over the visual features, (B,L,Dv) -> (B,L,width).

  If bidirectional, the result is (B,L,2*width). Audio is not used.
  """

  length: int  # Not used: an LSTM takes any number of frames.
  width: int = 256
  layers: int = 1
  bidirectional: bool = False

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del audio, is_trainable
    x, lengths = visual, mask.sum(axis=1)  # padding is at the end of a window
    # param_dtype is also the type of the first state.
    cell = functools.partial(nn.OptimizedLSTMCell, self.width, param_dtype=x.dtype)
    for i in range(self.layers):
      forward = nn.RNN(cell(name=f'forward{i}'))(x, seq_lengths=lengths)
      if self.bidirectional:
        backward = nn.RNN(cell(name=f'backward{i}'), reverse=True, keep_order=True)
        forward = jnp.concatenate([forward, backward(x, seq_lengths=lengths)], axis=-1)
      x = forward
    return zero_padding(x, mask)
