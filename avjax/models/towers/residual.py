"""Defines what the residual towers share: a convolution as PyTorch pads it, and stages of units."""

import flax.linen as nn

he_init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')


def conv(x, width, kernel, stride=1, name=None):
  """Convolves x (N,H,W,C) without bias and with PyTorch's symmetric padding, in the type of x.

  XLA's SAME would pad a strided convolution unevenly.
  """
  pad = kernel // 2
  convolution = nn.Conv(
    width,
    (kernel, kernel),
    (stride, stride),
    ((pad, pad), (pad, pad)),
    use_bias=False,
    kernel_init=he_init,
    dtype=x.dtype,
    name=name,
  )
  return convolution(x)


class Units(nn.Module):
  """Runs a stage: `count` units named unit0, unit1, ..., of which the first has the stride."""

  unit: type[nn.Module]
  count: int
  width: int
  stride: int

  @nn.compact
  def __call__(self, x, is_trainable, mask=None):
    for i in range(self.count):
      unit = self.unit(self.width, self.stride if i == 0 else 1, name=f'unit{i}')
      x = unit(x, is_trainable, mask)
    return x
