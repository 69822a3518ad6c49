"""Charon, or Mamba-VA (Liang et al. 2025, arXiv:2503.10104): selective state spaces over the face's features; the voice is not used.

Source: VA/model/mamba.py of the authors' public code; its initialisation of A and of the time step is replaced by Mamba's own
(Gu and Dao 2023), which theirs overwrites.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avjax.models.registry import FUSIONS


def selective_scan(decay, drive, read):
  """h_t = decay_t * h_(t-1) + drive_t, y_t = sum over states of read_t * h_t, with h = 0 before the first frame.

  decay, drive (B,L,D,N), read (B,L,N) -> (B,L,D). In log L steps: (a, b) then (c, d) is (a c, b c + d).
  """
  def after(first, then):
    return first[0] * then[0], first[1] * then[0] + then[1]
  _, h = jax.lax.associative_scan(after, (decay, drive), axis=1)
  return jnp.einsum('bldn,bln->bld', h, read)


def start_weight(key, shape, dtype=jnp.float32):
  """The weight before such a step: U(-1/sqrt(rank), 1/sqrt(rank))."""
  return jax.random.uniform(key, shape, dtype, -shape[0] ** -0.5, shape[0] ** -0.5)


def start_step(key, shape, dtype=jnp.float32, least=1e-3, most=1e-1):
  """A bias under which softplus gives time steps between least and most, evenly in their logarithm."""
  step = jnp.exp(jax.random.uniform(key, shape, dtype) * (np.log(most) - np.log(least)) + np.log(least))
  return step + jnp.log(-jnp.expm1(-step))  # the inverse of softplus


class Mamba(nn.Module):
  """One Mamba layer, (B,L,D) -> (B,L,D): gated, convolved over `taps` frames, and a recurrence with N states a channel. Causal."""
  states: int = 8
  taps: int = 4
  rank: int = 16  # of the time step's projection

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    x, z = jnp.split(nn.Dense(2 * width, use_bias=False, name='in')(x), 2, axis=-1)
    x = nn.silu(nn.Conv(width, (self.taps,), padding=[(self.taps - 1, 0)], feature_group_count=width, name='conv')(x))
    step, write, read = jnp.split(nn.Dense(self.rank + 2 * self.states, use_bias=False, name='select')(x),
                                  [self.rank, self.rank + self.states], axis=-1)
    step = nn.softplus(nn.Dense(width, kernel_init=start_weight, bias_init=start_step, name='step')(step))  # (B,L,D)
    a = -jnp.exp(self.param('a_log', lambda key: jnp.log(jnp.tile(jnp.arange(1.0, self.states + 1), (width, 1)))))  # (D,N)
    skip = self.param('skip', nn.initializers.ones, (width,))
    y = selective_scan(jnp.exp(step[..., None] * a), (step * x)[..., None] * write[:, :, None], read) + skip * x
    return nn.Dense(width, use_bias=False, name='out')(y * nn.silu(z))


@FUSIONS.register('mamba', needs=('visual',))
class MambaVA(nn.Module):
  """Each frame's features to mean 0 and variance 1, then layers of Mamba with a residual and a norm. (B,L,Dv) -> (B,L,Dv)."""
  length: int  # not used
  layers: int = 4
  states: int = 8
  rank: int = 16

  @nn.compact
  def __call__(self, visual, audio, mask, is_trainable):
    del audio, is_trainable
    x = nn.LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False, name='frame_norm')(visual)
    for i in range(self.layers):
      x = nn.LayerNorm(epsilon=1e-5, name=f'norm{i}')(x + Mamba(self.states, rank=self.rank, name=f'layer{i}')(x))
    return x * mask[..., None]
