"""Defines heads: fused features (B,L,D) and frame mask (B,L) -> predictions (B,L,outputs).

The output of a head without tanh may leave [-1, 1]; `Target.activate` clips predictions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn
import jax.numpy as jnp

from avjax.models.layers import Dropout, Norm, Trainable, leaky_relu
from avjax.models.registry import HEADS
from avjax.ranges import DROPOUT, OneOf, at_least

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float


@HEADS.register('mlp', ranges={'hidden': at_least(1)})
class MLP(nn.Module):
  """Applies dense, norm, LeakyReLU, dense, tanh: the paper's MLP.

  Its sizes are those of the authors' code.
  """

  outputs: int = 1
  hidden: int = 256

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L outputs']:
    x = nn.Dense(self.hidden, name='hidden')(x)
    x = leaky_relu(Norm(name='norm')(x, is_trainable, mask[..., None]))
    return jnp.tanh(nn.Dense(self.outputs, name='output')(x))


@HEADS.register('linear')
class Linear(nn.Module):
  """Applies one dense layer and, if asked for, tanh.

  LFAN has the tanh; the leader-follower of 2021 and the baseline do not.
  """

  outputs: int = 1
  tanh: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L outputs']:
    del mask, is_trainable
    x = nn.Dense(self.outputs, name='output')(x)
    return jnp.tanh(x) if self.tanh else x


@HEADS.register('affine')
class Affine(nn.Module):
  """Applies dense to D/2, norm, dense to 1, separately for each output, and, if asked for, tanh.

  Without tanh it is the head of Meng, Zhou, Zhang Ziyang, Zhang Wei and CtyunAI.

  shared: whether all outputs have one dense layer to D/2 and one norm, as in CtyunAI's code.
  """

  outputs: int = 1
  tanh: bool = False
  shared: bool = False

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L outputs']:
    widths = [self.outputs] if self.shared else [1] * self.outputs
    outputs = []
    for i, width in enumerate(widths):
      y = nn.Dense(x.shape[-1] // 2, name=f'hidden{i}')(x)
      y = Norm(name=f'norm{i}')(y, is_trainable, mask[..., None])
      outputs.append(nn.Dense(width, name=f'output{i}')(y))
    x = jnp.concatenate(outputs, axis=-1)
    return jnp.tanh(x) if self.tanh else x


@HEADS.register('perceptron', ranges={'hidden': at_least(1), 'dropout': DROPOUT})
class Perceptron(nn.Module):
  """Applies dense, ReLU, dropout, dense and, if asked for, tanh.

  HSEmotion's frame-wise perceptron has the tanh; Mamba-VA and JCA 2022 do not.
  """

  outputs: int = 1
  hidden: int = 128
  dropout: float = 0.0
  tanh: bool = True
  relu: bool = True

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L outputs']:
    del mask
    x = nn.Dense(self.hidden, name='hidden')(x)
    x = Dropout(self.dropout, name='dropout')(nn.relu(x) if self.relu else x, is_trainable)
    x = nn.Dense(self.outputs, name='output')(x)
    return jnp.tanh(x) if self.tanh else x


@HEADS.register(
  'gelu',
  ranges={'hidden': at_least(1), 'dropout': DROPOUT, 'norm': OneOf(('input', 'hidden'))},
)
class GELU(nn.Module):
  """Applies dense, GELU, dropout and dense, with a layer norm: the head of team RAS.

  norm: where the norm is: before the first dense layer ('input'), as in RAAV, or behind it
    ('hidden'), as in DCMMOE.
  """

  outputs: int = 1
  hidden: int = 256
  dropout: float = 0.1
  norm: str = 'input'

  @nn.compact
  def __call__(
    self, x: Float[Array, 'B L D'], mask: Bool[Array, 'B L'], is_trainable: Trainable
  ) -> Float[Array, 'B L outputs']:
    del mask
    norm, dense = nn.LayerNorm(epsilon=1e-5, name='norm'), nn.Dense(self.hidden, name='hidden')
    x = dense(norm(x)) if self.norm == 'input' else norm(dense(x))
    x = nn.gelu(x, approximate=False)
    x = Dropout(self.dropout, name='dropout')(x, is_trainable)
    return nn.Dense(self.outputs, name='output')(x)
