"""Face towers: IR-50, which is what the authors' code calls ResNet-50, and the ResNet-50 that the paper cites.

Both map images (N,H,W,3) in [-1, 1] to features (N,features). `mask` (N,) leaves padded frames out of the statistics
of batch norms that are trained.
"""

import flax.linen as nn

he_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(width, kernel, stride=1, name=None):
  """A bias-free convolution with PyTorch's symmetric padding (XLA's SAME pads a strided one unevenly)."""
  pad = kernel // 2
  return nn.Conv(width, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)), use_bias=False,
                 kernel_init=he_init, name=name)


class Units(nn.Module):
  """A stage: `count` units named unit0, unit1, ..., of which the first has the stride."""
  unit: type[nn.Module]
  count: int
  width: int
  stride: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    for i in range(self.count):
      x = self.unit(self.width, self.stride if i == 0 else 1, name=f'unit{i}')(x, is_trainable, mask)
    return x
