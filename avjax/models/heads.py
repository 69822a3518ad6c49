"""Regressors: fused features (B,L,D), mask (B,L) -> predictions (B,L,targets). `config.model.head.name` chooses.

Those without tanh may leave [-1, 1] in training, and are cut to it where they predict.
"""

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Norm, leaky_relu


class MLP(nn.Module):
  """The paper's MLP, in the sizes of the authors' code: dense, norm, LeakyReLU, dense, tanh."""
  targets: int = 1
  hidden: int = 256

  @nn.compact
  def __call__(self, x, mask, is_trainable):
    x = nn.Dense(self.hidden, name='hidden')(x)
    x = leaky_relu(Norm(name='norm')(x, is_trainable, mask[..., None]))
    return jnp.tanh(nn.Dense(self.targets, name='output')(x))


class Linear(nn.Module):
  """One dense layer, and tanh if wanted: LFAN's regressor; without tanh, the leader-follower's of 2021, and the baseline's."""
  targets: int = 1
  tanh: bool = True

  @nn.compact
  def __call__(self, x, mask, is_trainable):
    del mask, is_trainable
    x = nn.Dense(self.targets, name='output')(x)
    return jnp.tanh(x) if self.tanh else x


class Affine(nn.Module):
  """For each target dense to D/2, norm, dense to 1, with nothing between: the head of Meng, Zhou, both Zhang, and CtyunAI."""
  targets: int = 1
  tanh: bool = False

  @nn.compact
  def __call__(self, x, mask, is_trainable):
    outputs = []
    for i in range(self.targets):
      y = Norm(name=f'norm{i}')(nn.Dense(x.shape[-1] // 2, name=f'hidden{i}')(x), is_trainable, mask[..., None])
      outputs.append(nn.Dense(1, name=f'output{i}')(y))
    x = jnp.concatenate(outputs, axis=-1)
    return jnp.tanh(x) if self.tanh else x


class Perceptron(nn.Module):
  """Dense, ReLU, dropout, dense, and tanh if wanted: HSEmotion's frame-wise perceptron (tanh), Mamba-VA's and JCA 2022's heads."""
  targets: int = 1
  hidden: int = 128
  dropout: float = 0.0
  tanh: bool = True
  relu: bool = True

  @nn.compact
  def __call__(self, x, mask, is_trainable):
    del mask
    x = nn.Dense(self.hidden, name='hidden')(x)
    x = Dropout(self.dropout, name='dropout')(nn.relu(x) if self.relu else x, is_trainable)
    x = nn.Dense(self.targets, name='output')(x)
    return jnp.tanh(x) if self.tanh else x


HEADS = {'mlp': MLP, 'linear': Linear, 'affine': Affine, 'perceptron': Perceptron}
