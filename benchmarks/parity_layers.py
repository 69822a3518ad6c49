"""Describes the layers that are compared with PyTorch by themselves: what is ours, names, inputs.

None of this needs torch. `parity_cases` has the towers and whole models, and computes our results.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from avjax.models.fusion.ca_2021 import CA2021
from avjax.models.fusion.ras import DCMMOE, RAAV
from avjax.models.fusion.transformer import EncoderLayer
from avjax.models.heads import GELU
from avjax.models.layers import Dropout, nothing_trainable, zero_padding
from avjax.weights.name_maps import Entry, Published, torch_entry

CLIPS, FRAMES, WIDTH, HEADS, HIDDEN = 3, 10, 16, 4, 24
ALL_FRAMES = np.ones((CLIPS, FRAMES), bool)
PADDED = np.arange(FRAMES) < np.array([[7], [FRAMES], [1]])
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
  left_out: pattern of the names in PyTorch's state dict that ours has no use for.
  """

  module: nn.Module
  inputs: dict[str, int]
  mask: np.ndarray
  entry: Callable[[str, tuple[int, ...]], Entry]
  first: str
  dropouts: dict[str, int] = dataclasses.field(default_factory=dict)
  left_out: str = ''

  def published(self):
    """Describes PyTorch's state dict."""
    return Published(self.entry, first=self.first, left_out=self.left_out, licence='')

  def shapes(self):
    """Returns {path: shape} of the parameters of our module."""
    xs = [jnp.zeros((CLIPS, FRAMES, width)) for width in self.inputs.values()]
    init = lambda: self.module.init(
      jax.random.key(0), *xs, jnp.asarray(self.mask), nothing_trainable
    )
    params = {'params': jax.eval_shape(init)['params']}
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
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
  return attention_entry('self_attn', path, shape)


def attention_entry(name, path, shape):
  """Returns the Entry of a leaf of attention, '.../query/kernel', under PyTorch's name of it."""
  part, leaf = path.split('/')[-2:]
  end, axes = {'kernel': ('weight', 2), 'bias': ('bias', 1)}[leaf]
  if part == 'out':
    return Entry(f'{name}.out_proj.{end}', (WIDTH,) * axes, lambda x: x.T.reshape(shape))
  rows = slice(WIDTH * (i := ('query', 'key', 'value').index(part)), WIDTH * (i + 1))
  packed = (3 * WIDTH, WIDTH)[:axes]
  return Entry(f'{name}.in_proj_{end}', packed, lambda x: x[rows].T.reshape(shape))


class WithHead(nn.Module):
  """Computes a fusion and its head, (B,L,2), with zeros on padding."""

  fusion: nn.Module
  head: nn.Module

  def __call__(self, visual, audio, mask, is_trainable):
    fused = self.fusion(visual, audio, mask, is_trainable)
    return zero_padding(self.head(fused, mask, is_trainable), mask)


# The authors' names of our modules of RAAV and of DCMMOE; N stands for the number of a layer.
RAAV_NAMES = {
  'fusion/visual': 'frame_projectors.face',
  'fusion/audio': 'frame_projectors.audio',
  'fusion/gate_visual_hidden': 'frame_gate_mlps.face.0',
  'fusion/gate_visual': 'frame_gate_mlps.face.3',
  'fusion/gate_audio_hidden': 'frame_gate_mlps.audio.0',
  'fusion/gate_audio': 'frame_gate_mlps.audio.3',
  'fusion/context': 'audio_projector',
  'fusion/gather': 'audio_latent_attn',
  'fusion/latents_norm': 'norm_audio_latents',
  'fusion/frames_norm': 'norm_frame_pre',
  'fusion/find': 'frame_to_audio_attn',
  'fusion/context_norm': 'norm_after_audio',
  'fusion/layerN/attention': 'temporal_encoder.layers.N.self_attn',
  'fusion/layerN/norm1': 'temporal_encoder.layers.N.norm1',
  'fusion/layerN/norm2': 'temporal_encoder.layers.N.norm2',
  'fusion/layerN/dense1': 'temporal_encoder.layers.N.linear1',
  'fusion/layerN/dense2': 'temporal_encoder.layers.N.linear2',
  'head/norm': 'head.0',
  'head/hidden': 'head.1',
  'head/output': 'head.4',
}
DCMMOE_NAMES = {
  'fusion/visual': 'experts.0.projections.visual.0',
  'fusion/visual_norm': 'experts.0.projections.visual.1',
  'fusion/audio': 'experts.0.projections.audio.0',
  'fusion/audio_norm': 'experts.0.projections.audio.1',
  'fusion/gate': 'gate',
  'head/hidden': 'experts.0.head.0',
  'head/norm': 'experts.0.head.1',
  'head/output': 'experts.0.head.4',
}
for number, modality in enumerate(('visual', 'audio')):
  layer, theirs = f'fusion/{modality}_layerN', f'experts.{number}.transformer.N'
  DCMMOE_NAMES |= {
    f'{layer}/attention': f'{theirs}.self_attention',
    f'{layer}/norm1': f'{theirs}.add_norm_after_attention.norm',
    f'{layer}/norm2': f'{theirs}.add_norm_after_ff.norm',
    f'{layer}/dense1': f'{theirs}.feed_forward.layer_1',
    f'{layer}/dense2': f'{theirs}.feed_forward.layer_2',
  }


def ras_entry(names, path, shape):
  """Returns the Entry of a leaf of RAAV or DCMMOE, by the authors' names of our modules."""
  if path == 'fusion/latents':
    return Entry('audio_latents', (1, *shape), lambda x: x[0])
  number = ''.join(re.findall(r'layer(\d)', path))

  def theirs(module):
    return names[re.sub(r'layer\d', 'layerN', module)].replace('N', number)

  module = path.rsplit('/', 1)[0]
  if module.endswith(('/query', '/key', '/value', '/out')):
    return attention_entry(theirs(module.rsplit('/', 1)[0]), path, shape)
  return torch_entry(theirs, None, path, shape)


def ras(fusion, norm, names):
  """Describes a fusion of team RAS with its head; norm: where the head has its norm."""
  dropouts = dict.fromkeys(('dropout1', 'dropout2', 'dropout3', 'dropout'), WIDTH)
  if isinstance(fusion, RAAV):
    dropouts |= {'dropout2': 4 * WIDTH}
    dropouts |= dict.fromkeys(('gate_visual_dropout', 'gate_audio_dropout'), WIDTH)
  else:
    dropouts |= dict.fromkeys(('visual_dropout', 'audio_dropout', 'dropout_positions'), WIDTH)
  return Layer(
    WithHead(fusion, GELU(2, WIDTH, dropout=0.0, norm=norm)),
    {'visual': 12, 'audio': 6},
    PADDED,
    functools.partial(ras_entry, names),
    first=names['fusion/visual'] + '.weight',
    dropouts=dropouts,
    # Their gate over one modality, whose weight is always 1.
    left_out=r'frame_gate_mlps\..*' if not getattr(fusion, 'gate_audio', True) else '',
  )


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
    PADDED,
    encoder_entry,
    first='linear1.weight',
    dropouts=DROPOUTS,
  ),
  'ca_2021': cross_attention(residual=True),
  'ca_2021_code': cross_attention(residual=False),
}

# These are compared with the modules of their authors: python -m benchmarks.parity --ras FOLDER.
SIZES = {'width': WIDTH, 'heads': HEADS, 'layers': 2, 'dropout': 0.0}
RAS = {
  'raav': ras(RAAV(FRAMES, **SIZES, latents=3), 'input', RAAV_NAMES),
  'raav_face': ras(RAAV(FRAMES, **SIZES, latents=3, gate_audio=False), 'input', RAAV_NAMES),
  'dcmmoe': ras(DCMMOE(FRAMES, **SIZES), 'hidden', DCMMOE_NAMES),
  'dcmmoe_expert': ras(DCMMOE(FRAMES, **SIZES, audio_expert=False), 'hidden', DCMMOE_NAMES),
}
LAYERS |= RAS
