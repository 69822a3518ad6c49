"""Describes the layers that are compared with PyTorch by themselves: what is ours, names, inputs.

None of this needs torch. `parity_cases` has the towers and whole models, and computes our results.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avjax.models.fusion.ca_2021 import CA2021
from avjax.models.fusion.transformer import EncoderLayer
from avjax.models.layers import Dropout, nothing_trainable
from avjax.weights.name_maps import Entry, Published, torch_entry

CLIPS, FRAMES, WIDTH, HEADS, HIDDEN = 3, 10, 16, 4, 24
ALL_FRAMES = np.ones((CLIPS, FRAMES), bool)
# The widths of the dropouts of the encoder layer, and PyTorch's names of them. The dropout of
# attention has no layer of its own in PyTorch; tests/avjax/models/test_systems.py has it.
DROPOUTS = {'dropout1': WIDTH, 'dropout2': HIDDEN, 'dropout3': WIDTH}
TORCH_DROPOUTS = {'dropout1': 'dropout1', 'dropout2': 'dropout', 'dropout3': 'dropout2'}


@dataclasses.dataclass(frozen=True)
class Layer:
  """Describes a layer.

  module: ours, called with the inputs, the mask and `is_trainable`.
  inputs: {name: width}, arrays (CLIPS,FRAMES,width).
  mask: (CLIPS,FRAMES) bool, False on padding.
  entry: maps our leaves to PyTorch's, as in avjax.weights.name_maps.
  first: a name in PyTorch's state dict.
  dropouts: {name of ours: width}, which multiply by given factors in training mode.
  """

  module: nn.Module
  inputs: dict[str, int]
  mask: np.ndarray
  entry: Callable[[str, tuple[int, ...]], Entry]
  first: str
  dropouts: dict[str, int] = dataclasses.field(default_factory=dict)

  def published(self):
    """Describes PyTorch's state dict."""
    return Published(self.entry, first=self.first, left_out='', licence='')

  def shapes(self):
    """Returns {path: shape} of the parameters of our module."""
    xs = [jnp.zeros((CLIPS, FRAMES, width)) for width in self.inputs.values()]
    init = lambda: self.module.init(
      jax.random.key(0), *xs, jnp.asarray(self.mask), nothing_trainable
    )
    leaves = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init))[0]
    return {'/'.join(key.key for key in path): leaf.shape for path, leaf in leaves}

  def factors(self, draw):
    """Returns {dropout: what it multiplies by, (CLIPS,FRAMES,width)}: 0 or 2, as if half dropped.

    draw(name, shape): draws a standard normal array.
    """
    shapes = {name: (CLIPS, FRAMES, width) for name, width in self.dropouts.items()}
    return {name: 2 * np.float32(draw(name, shape) > 0) for name, shape in shapes.items()}

  def apply(self, variables, xs, is_trainable, factors):
    """Applies our module to the inputs xs, the first B clips; returns (B,FRAMES,width)."""

    def multiply(call, arguments, keywords, context):
      given = factors.get(context.module.name) if isinstance(context.module, Dropout) else None
      if given is None or context.method_name != '__call__' or is_trainable is nothing_trainable:
        return call(*arguments, **keywords)
      return arguments[0] * jnp.asarray(given, arguments[0].dtype)

    with nn.intercept_methods(multiply):
      return self.module.apply(variables, *xs, jnp.asarray(self.mask)[: len(xs[0])], is_trainable)


def encoder_entry(path, shape):
  """Returns the Entry of PyTorch's encoder layer, whose query, key and value are one array."""
  if not path.startswith('attention/'):
    return torch_entry(lambda name: name.replace('dense', 'linear'), None, path, shape)
  _, part, leaf = path.split('/')
  end, axes = {'kernel': ('weight', 2), 'bias': ('bias', 1)}[leaf]
  if part == 'out':
    return Entry(f'self_attn.out_proj.{end}', (WIDTH,) * axes, lambda x: x.T.reshape(shape))
  rows = slice(WIDTH * (i := ('query', 'key', 'value').index(part)), WIDTH * (i + 1))
  packed = (3 * WIDTH, WIDTH)[:axes]
  return Entry(f'self_attn.in_proj_{end}', packed, lambda x: x[rows].T.reshape(shape))


def cross_attention(residual):
  """Describes cross-attention of 2021; without the residual it is the authors' code."""
  return Layer(
    CA2021(FRAMES, residual=residual),
    {'visual': 12, 'audio': 6},
    ALL_FRAMES,
    lambda path, shape: Entry('corr_weights', shape, lambda x: x),
    first='corr_weights',
  )


LAYERS = {
  'encoder_layer': Layer(
    EncoderLayer(HEADS, HIDDEN, dropout=0.0),
    {'x': WIDTH},
    np.arange(FRAMES) < np.array([[7], [FRAMES], [1]]),
    encoder_entry,
    first='linear1.weight',
    dropouts=DROPOUTS,
  ),
  'ca_2021': cross_attention(residual=True),
  'ca_2021_code': cross_attention(residual=False),
}
