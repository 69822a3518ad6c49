"""Defines the audio tower: VGGish (Hershey et al. 2017) without last ReLU, PCA and quantisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Trainable
from avjax.models.registry import AUDIO_TOWERS
from avjax.ranges import length

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


def max_pool(x):
  """Applies a 2x2 max-pool of stride 2: (N,H,W,C) -> (N,H/2,W/2,C).

  It is the maximum of four slices, whose gradient XLA runs several times faster than that of a
  pooling window or of a reshape. Equal numbers share a gradient; after a ReLU these are zeros,
  which pass none on.
  """
  rows = jnp.maximum(x[:, ::2], x[:, 1::2])
  return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


@AUDIO_TOWERS.register('vggish', ranges={'widths': length(6)})
class VGGish(nn.Module):
  """Encodes log-mel windows: (N,96,64) -> (N,128). 72.1 M parameters.

  Names and the order in which features are flattened (height, width, channel) are those of the
  published TensorFlow graph, so that published weights need no reordering.
  """

  # Its arguments stand next to `tower` in config.model.audio, not in a section of their own.
  inline = True

  features: int = 128
  widths: Sequence[int] = (64, 128, 256, 256, 512, 512)
  hidden: int = 4096

  @nn.compact
  def __call__(
    self,
    log_mel: Float[Array, 'N 96 64'],
    is_trainable: Trainable | None = None,
    mask: Bool[Array, ' N'] | None = None,
  ) -> Float[Array, 'N features']:
    # No layer behaves differently in training, and every window is encoded by itself.
    del is_trainable, mask
    x = log_mel[..., None]  # (N,96,64,1)
    names = ('conv1', 'conv2', 'conv3_1', 'conv3_2', 'conv4_1', 'conv4_2')
    for name, width in zip(names, self.widths, strict=True):
      x = nn.relu(nn.Conv(width, (3, 3), name=name)(x))
      if not name.endswith('_1'):  # the second convolution of a pair is pooled
        x = max_pool(x)
    x = x.reshape(x.shape[0], -1)  # (N,6*4*512)
    x = nn.relu(nn.Dense(self.hidden, name='fc1_1')(x))
    x = nn.relu(nn.Dense(self.hidden, name='fc1_2')(x))
    return nn.Dense(self.features, name='fc2')(x)
