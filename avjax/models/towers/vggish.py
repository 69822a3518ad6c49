"""Audio tower: VGGish (Hershey et al. 2017) without its last ReLU, its PCA and its quantisation."""

from typing import Sequence

import flax.linen as nn


def max_pool(x):
  """2x2 max-pool of stride 2, (N,H,W,C) -> (N,H/2,W/2,C): as a reshape, whose gradient XLA runs many times faster on a CPU."""
  n, h, w, c = x.shape
  return x.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


class VGGish(nn.Module):
  """Log-mel examples (N,96,64) -> features (N,128). 72.1 M parameters; named as in the published TensorFlow graph.

  The features are flattened height, width, channel, as there, so that published weights need no reordering.
  """
  features: int = 128
  widths: Sequence[int] = (64, 128, 256, 256, 512, 512)
  hidden: int = 4096

  @nn.compact
  def __call__(self, log_mel, is_trainable=None, mask=None):
    del is_trainable, mask  # nothing in it is different in training, or looks at more than its own window
    x = log_mel[..., None]  # (N,96,64,1)
    for name, width in zip(('conv1', 'conv2', 'conv3_1', 'conv3_2', 'conv4_1', 'conv4_2'), self.widths):
      x = nn.relu(nn.Conv(width, (3, 3), name=name)(x))
      if not name.endswith('_1'):  # the second convolution of a pair is pooled
        x = max_pool(x)
    x = x.reshape(x.shape[0], -1)  # (N,6*4*512)
    x = nn.relu(nn.Dense(self.hidden, name='fc1_1')(x))
    x = nn.relu(nn.Dense(self.hidden, name='fc1_2')(x))
    return nn.Dense(self.features, name='fc2')(x)
