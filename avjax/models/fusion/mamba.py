"""Runs selective state spaces over the visual features: Charon's Mamba-VA.

Charon is Liang et al. 2025 (arXiv:2503.10104). Source: VA/model/mamba.py and model.py of the
authors' public code (FreedomPuppy77/Charon, commit bf99e09). It draws A and the time step again
after Mamba has initialised them; here they start as in Mamba itself (Gu and Dao 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avjax.models.layers import Trainable, per_channel, zero_padding
from avjax.models.registry import FUSIONS
from avjax.ranges import at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


def selective_scan(decay, drive, read):
  """Computes h_t = decay_t * h_(t-1) + drive_t from h = 0, and y_t from h_t.

  y_t is the sum over states of read_t * h_t. decay, drive (B,L,D,N), read (B,L,N) -> y (B,L,D). It
  takes log L steps, since two updates combine into one: (a, b), then (c, d) is (a c, b c + d).
  """

  def after(first, then):
    return first[0] * then[0], first[1] * then[0] + then[1]

  _, h = jax.lax.associative_scan(after, (decay, drive), axis=1)
  return jnp.einsum('bldn,bln->bld', h, read)


def start_weight(key, shape, dtype=jnp.float32):
  """Draws the weight (rank,D) of the time step's projection uniformly within 1/sqrt(rank) of 0."""
  return jax.random.uniform(key, shape, dtype, -(shape[0] ** -0.5), shape[0] ** -0.5)


def start_step(key, shape, dtype=jnp.float32, least=1e-3, most=1e-1):
  """Draws a bias whose softplus is a time step between least and most, uniform in its logarithm."""
  share = jax.random.uniform(key, shape, dtype)
  step = jnp.exp(share * (np.log(most) - np.log(least)) + np.log(least))
  return step + jnp.log(-jnp.expm1(-step))  # the inverse of softplus


class Mamba(nn.Module):
  """Computes one Mamba layer, (B,L,D) -> (B,L,D): a causal convolution and a gated recurrence.

  states: N, the states per channel of the recurrence.
  taps: frames that the convolution sees.
  rank: of the projection that gives the time step.
  """

  states: int = 8
  taps: int = 4
  rank: int = 16

  @nn.compact
  def __call__(self, x):
    width = x.shape[-1]
    x, z = jnp.split(nn.Dense(2 * width, use_bias=False, name='in')(x), 2, axis=-1)
    past = [(self.taps - 1, 0)]
    conv = nn.Conv(width, (self.taps,), padding=past, feature_group_count=width, name='conv')
    x = nn.silu(conv(x))
    selected = nn.Dense(self.rank + 2 * self.states, use_bias=False, name='select')(x)
    step, write, read = jnp.split(selected, [self.rank, self.rank + self.states], axis=-1)
    to_step = nn.Dense(width, kernel_init=start_weight, bias_init=start_step, name='step')
    step = nn.softplus(to_step(step))  # (B,L,D)

    def start_a(key):
      del key
      return jnp.log(jnp.tile(jnp.arange(1.0, self.states + 1), (width, 1)))

    a = -jnp.exp(self.param('a_log', start_a))  # (D,N)
    skip = self.param('skip', nn.initializers.ones, (width,))
    decay = jnp.exp(step[..., None] * a[None, None])  # (B,L,D,N)
    drive = (step * x)[..., None] * write[:, :, None]  # (B,L,D,N)
    y = selective_scan(decay, drive, read) + per_channel(skip, x) * x
    return nn.Dense(width, use_bias=False, name='out')(y * nn.silu(z))


@FUSIONS.register(
  'mamba',
  needs=('visual',),
  ranges={'layers': at_least(1), 'states': at_least(1), 'rank': at_least(1)},
)
class MambaVA(nn.Module):
  """Standardises each frame's visual features, then runs layers of Mamba over them, -> (B,L,Dv).

  Each layer has a residual and a norm.

  output: whether a dense layer, (B,L,Dv) -> (B,L,Dv), follows the last one, as in their code. Runs
    of version 0.2.0 have none, and their configs do not have this setting.
  """

  length: int  # Not used: the recurrence takes any number of frames.
  layers: int = 4
  states: int = 8
  rank: int = 16
  output: bool = False

  @nn.compact
  def __call__(
    self,
    visual: Float[Array, 'B L Dv'],
    audio: Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L D']:
    del audio, is_trainable
    x = nn.LayerNorm(epsilon=1e-5, use_scale=False, use_bias=False, name='frame_norm')(visual)
    for i in range(self.layers):
      layer = Mamba(self.states, rank=self.rank, name=f'layer{i}')
      x = nn.LayerNorm(epsilon=1e-5, name=f'norm{i}')(x + layer(x))
    if self.output:
      x = nn.Dense(x.shape[-1], name='output')(x)
    return zero_padding(x, mask)
