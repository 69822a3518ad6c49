"""Computes IR-50 with its frozen norms folded into the convolutions; an experiment on speed.

A frozen norm is x * factor + shift in each channel. Behind a convolution the factor goes into its
kernel. Before one, so does the factor, and the shift becomes a map that is added: at the border the
kernel sees padding, which is zero and not the shift.
"""

import jax.numpy as jnp
from jax import lax

from avjax.models.layers import at_least_float32, per_channel

EPSILON = 1e-5  # of layers.Norm


def affine(params, stats):
  """Returns (factor, shift), each (C,), of a frozen norm."""
  factor = lax.rsqrt(stats['var'] + EPSILON) * params['scale']
  return factor, params['bias'] - stats['mean'] * factor


def convolve(x, kernel, stride=1):
  """Convolves x (N,H,W,C) as `towers.residual.conv` does."""
  pad = kernel.shape[0] // 2
  layout = ('NHWC', 'HWIO', 'NHWC')
  padding = ((pad, pad), (pad, pad))
  kernel = kernel.astype(x.dtype)
  return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)


def conv_norm(x, kernel, norm, stride=1):
  """Computes norm(conv(x)); norm: what `affine` returns."""
  factor, shift = norm
  y = convolve(x, kernel * factor, stride)
  return y + per_channel(shift.astype(y.dtype), y)


def norm_conv(x, norm, kernel):
  """Computes conv(norm(x)); norm: what `affine` returns."""
  factor, shift = norm
  constant = jnp.broadcast_to(shift, (1, *x.shape[1:3], len(shift)))
  return convolve(x, kernel * factor[:, None]) + convolve(constant, kernel).astype(x.dtype)


def prelu(x, params):
  return jnp.maximum(x, 0) + params['slope'].astype(x.dtype) * jnp.minimum(x, 0)


def unit(x, params, stats, stride):
  """Computes a `UnitIR`; params and stats are its own."""
  norms = {name: affine(params[name], stats[name]) for name in stats}
  if 'shortcut_conv' in params:
    kernel = params['shortcut_conv']['kernel']
    shortcut = conv_norm(x, kernel, norms['shortcut_norm'], stride)
  else:
    shortcut = x[:, ::stride, ::stride]
  y = prelu(norm_conv(x, norms['norm1'], params['conv1']['kernel']), params['prelu'])
  return conv_norm(y, params['conv2']['kernel'], norms['norm2'], stride) + shortcut


def ir50(params, stats, images):
  """Computes `IR50` in evaluation: (N,H,W,3) -> (N,features); params and stats are its own."""
  start, end = params['input'], params['output']
  x = conv_norm(images, start['conv']['kernel'], affine(start['norm'], stats['input']['norm']))
  x = prelu(x, start['prelu'])
  stages = sorted(name for name in params if name.startswith('stage'))
  for stage in stages:
    for k in range(len(params[stage])):
      stride = 2 if k == 0 and stage != stages[0] else 1
      x = unit(x, params[stage][f'unit{k}'], stats[stage][f'unit{k}'], stride)
  factor, shift = affine(end['norm1'], stats['output']['norm1'])
  x = x * factor.astype(x.dtype) + shift.astype(x.dtype)
  x = x.reshape(len(x), -1) @ end['dense']['kernel'].astype(x.dtype)
  x = at_least_float32(x + end['dense']['bias'].astype(x.dtype))
  factor, shift = affine(end['norm2'], stats['output']['norm2'])
  x = x * factor + shift
  return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
