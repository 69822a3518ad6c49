"""Regressors: fused features (B,L,D), mask (B,L) -> predictions (B,L,targets) in [-1, 1]. `config.model.head.name` chooses."""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Norm, leaky_relu


class MLP(nn.Module):
  """The paper's MLP, in the sizes of the authors' code: dense, norm, LeakyReLU, dense, tanh."""
  targets: int = 1
  hidden: int = 256

  @nn.compact
  def __call__(self, x, mask, trains):
    x = nn.Dense(self.hidden, name='hidden')(x)
    x = leaky_relu(Norm(name='norm')(x, trains, mask[..., None]))
    return jnp.tanh(nn.Dense(self.targets, name='output')(x))


class Linear(nn.Module):
  """LFAN's regressor: dense, tanh."""
  targets: int = 1

  @nn.compact
  def __call__(self, x, mask, trains):
    del mask, trains
    return jnp.tanh(nn.Dense(self.targets, name='output')(x))


HEADS = {'mlp': MLP, 'linear': Linear}
