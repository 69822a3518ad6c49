"""Maps the names and layout of our modules to those of published files, a function per network.

Sources: ABAW3 and RJCMA (models/*.py) for IR-50 and the predecessors' whole models, torchvggish and
TensorFlow's vggish_slim.py for VGGish, torchvision for ResNet-50. docs/weights.md describes the
same for readers without the code.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from avjax.errors import InputError
from avjax.ranges import nearest


@dataclasses.dataclass(frozen=True)
class Entry:
  """Describes one array of a published file.

  name, shape: in the file. ours: lays the array out as our model has it.
  """

  name: str
  shape: tuple[int, ...]
  ours: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Published:
  """Describes the files of a tower or model that others have published.

  entry: maps the path of our leaf, without its collection, and its shape to an Entry, or to None
    for what the file does not have.
  first: a name that every such file holds; what stands before it is the file's prefix.
  left_out: pattern of the names that avjax has no use for.
  licence: what the distributors state.
  """

  entry: Callable[[str, tuple[int, ...]], Entry | None]
  first: str
  left_out: str
  licence: str


# PyTorch's names of our leaves.
TORCH_LEAVES = {
  'kernel': 'weight',
  'bias': 'bias',
  'scale': 'weight',
  'slope': 'weight',
  'mean': 'running_mean',
  'var': 'running_var',
  'direction': 'weight_v',
}
# Our axes in PyTorch's order, by their number: HWIO -> OIHW, KIO -> OIK, IO -> OI.
TORCH_AXES = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}


def torch_entry(
  names: Callable[[str], str], channels: int | None, path: str, shape: tuple[int, ...]
) -> Entry | None:
  """Returns the Entry of a PyTorch file for a leaf of ours.

  Args:
    names: maps our module to theirs, or to '' if the file does not have it.
    channels: of the features that IR-50 flattens before its dense layer; None for other networks.
    path: of our leaf.
    shape: of our leaf.
  """
  module, leaf = path.rsplit('/', 1)
  name, axes = names(module), TORCH_AXES[len(shape)]
  if not name:
    return None
  theirs, back = tuple(shape[axis] for axis in axes), np.argsort(axes)
  if leaf == 'scale' and re.search(r'_conv\d$', module):  # the length of a weight norm
    return Entry(f'{name}.weight_g', (*shape, 1, 1), np.ravel)
  if leaf == 'kernel' and module.endswith('_residual'):  # their 1x1 convolution is our dense layer
    return Entry(f'{name}.weight', (*theirs, 1), lambda x: x[..., 0].T)
  if leaf == 'kernel' and module.endswith('output/dense'):
    return Entry(f'{name}.weight', theirs, lambda x: channels_last(x, channels))
  return Entry(f'{name}.{TORCH_LEAVES[leaf]}', theirs, lambda x: x.transpose(back))


def channels_last(weight: np.ndarray, channels: int) -> np.ndarray:
  """Turns a dense weight over features flattened channel first into a kernel over channel last.

  (O, C*H*W) -> (H*W*C, O).
  """
  outputs = len(weight)
  return weight.reshape(outputs, channels, -1).transpose(0, 2, 1).reshape(outputs, -1).T


def ir50(units: Sequence[int], module: str) -> str:
  """Names a module of IR-50: 'stage3/unit11/conv1' -> 'body.18.res_layer.1'.

  units: the number of units in each stage.
  """
  match module.split('/'):
    case ['input', part]:
      return {'conv': 'input_layer.0', 'norm': 'input_layer.1', 'prelu': 'input_layer.2'}[part]
    case ['output', part]:
      return {'norm1': 'output_layer.0', 'dense': 'output_layer.3', 'norm2': 'output_layer.4'}[part]
    case [stage, unit, part]:
      index = sum(units[: int(stage.removeprefix('stage')) - 1]) + int(unit.removeprefix('unit'))
      layer = {
        'norm1': 'res_layer.0',
        'conv1': 'res_layer.1',
        'prelu': 'res_layer.2',
        'conv2': 'res_layer.3',
        'norm2': 'res_layer.4',
        'shortcut_conv': 'shortcut_layer.0',
        'shortcut_norm': 'shortcut_layer.1',
      }[part]
      return f'body.{index}.{layer}'
  return ''


def resnet50(module: str) -> str:
  """Names a module of ResNet-50: 'stage3/unit5/norm2' -> 'layer3.5.bn2'.

  Our projection to 512 features is not in the file: ''.
  """
  match module.split('/'):
    case ['input', part]:
      return {'conv': 'conv1', 'norm': 'bn1'}[part]
    case [stage, unit, part]:
      shortcut = {'shortcut_conv': 'downsample.0', 'shortcut_norm': 'downsample.1'}
      part = shortcut.get(part, part.replace('norm', 'bn'))
      return f'{stage.replace("stage", "layer")}.{unit.removeprefix("unit")}.{part}'
  return ''


def vggish(module: str) -> str:
  """Names a module of VGGish: 'conv3_1' -> 'features.6'."""
  return {
    'conv1': 'features.0',
    'conv2': 'features.3',
    'conv3_1': 'features.6',
    'conv3_2': 'features.8',
    'conv4_1': 'features.11',
    'conv4_2': 'features.13',
    'fc1_1': 'embeddings.0',
    'fc1_2': 'embeddings.2',
    'fc2': 'embeddings.4',
  }[module]


def vggish_tensorflow(path: str, shape: tuple[int, ...]) -> Entry:
  """Returns the Entry of TensorFlow's checkpoint of VGGish, which has our layout.

  'conv3_1/kernel' -> 'vggish/conv3/conv3_1/weights'.
  """
  module, leaf = path.split('/')
  scope = f'{module.split("_")[0]}/{module}' if '_' in module else module
  name = {'kernel': 'weights', 'bias': 'biases'}[leaf]
  return Entry(f'vggish/{scope}/{name}', shape, lambda x: x)


# The predecessors' names of our modalities and of the modules of our heads.
PREDECESSORS_MODALITIES = {'visual': 'video', 'audio': 'logmel'}
PREDECESSORS_HEADS = {
  'mlp': {'hidden': 'regressor1', 'norm': 'bn1', 'output': 'regressor2'},
  'linear': {'output': 'regressor'},
}


def rjca_author(module: str) -> str:
  """Names a module of RJCA's fusion, in which modality 1 is visual and 2 is audio.

  'recursion_1/visual/key' -> 'coattn.dcn_layers.0.dense_coattn.key1_linear'.
  """
  recursion, *modality, part = module.split('/')
  layer = f'coattn.dcn_layers.{int(recursion.removeprefix("recursion_")) - 1}'
  number = 1 if modality == ['visual'] else 2
  if part == 'joint':
    return f'{layer}.dense_coattn.query_linear'
  if part == 'output':
    return f'{layer}.linears.{number - 1}.0'
  return f'{layer}.dense_coattn.{part}{number}_linear'


def lfan(module: str) -> str:
  """Names a module of LFAN's fusion: 'visual_qkv' -> 'fusion.layers.self_attn.qkv_proj.video'."""
  return {
    'visual_qkv': 'fusion.layers.self_attn.qkv_proj.video',
    'audio_qkv': 'fusion.layers.self_attn.qkv_proj.logmel',
    'output': 'fusion.layers.self_attn.o_proj',
    'norm': 'fusion.layers.norm1',
  }[module]


PREDECESSORS_FUSIONS = {'rjca_author': rjca_author, 'lfan': lfan}


def model(units: Sequence[int], fusion: str, head: str, module: str) -> str:
  """Names a module of a whole model: 'visual_tcn/level2_conv0' -> 'temporal.video.network.2.conv1'.

  units: of IR-50 in each stage; fusion: a key of PREDECESSORS_FUSIONS; head: of
  PREDECESSORS_HEADS.
  """
  part, _, rest = module.partition('/')
  if part == 'visual':
    return 'spatial.visual.backbone.' + ir50(units, rest)
  if part == 'audio':
    return 'spatial.audio.backbone.' + vggish(rest)
  if part == 'fusion':
    return PREDECESSORS_FUSIONS[fusion](rest)
  if part == 'head':
    return PREDECESSORS_HEADS[head][rest]
  modality, kind = part.split('_')
  modality = PREDECESSORS_MODALITIES[modality]
  if kind == 'norm':
    return f'bn.{modality}'
  level, layer = rest.removeprefix('level').split('_')
  layer = {'conv0': 'conv1', 'conv1': 'conv2', 'residual': 'downsample'}[layer]
  return f'temporal.{modality}.network.{level}.{layer}'


OR_COUNTERS = r'|.*num_batches_tracked'
# What TensorFlow's optimizers and savers add to a checkpoint.
TENSORFLOW_EXTRAS = r'(.*/)?(global_step|beta[12]_power|Adam(_\d+)?|_CHECKPOINTABLE_OBJECT_GRAPH)'
UNSTATED = 'none stated by its distributors'
TOWERS = {
  'ir50': Published(
    functools.partial(torch_entry, functools.partial(ir50, (3, 4, 14, 3)), 512),
    first='input_layer.0.weight',
    left_out=r'logits\..*' + OR_COUNTERS,
    licence=UNSTATED,
  ),
  'resnet50': Published(
    functools.partial(torch_entry, resnet50, None),
    first='layer1.0.conv1.weight',
    left_out=r'fc\..*' + OR_COUNTERS,
    licence='BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research',
  ),
  'vggish': Published(
    functools.partial(torch_entry, vggish, None),
    first='embeddings.0.weight',
    left_out=r'pproc\..*',
    licence='Apache-2.0',
  ),
  'vggish_tensorflow': Published(
    vggish_tensorflow,
    first='vggish/conv1/weights',
    left_out=TENSORFLOW_EXTRAS,
    licence='Apache-2.0',
  ),
}


def of_model(config: ConfigDict) -> Published:
  """Describes the predecessors' files of the whole model that a config describes.

  Raises InputError for a model that they do not have.
  """
  tower = config.model.visual.tower
  author = config.model.fusion.get('formulation') == 'author'
  fusion = config.model.fusion.name + ('_author' if author else '')
  if fusion not in PREDECESSORS_FUSIONS:
    known = ', '.join(PREDECESSORS_FUSIONS)
    raise InputError(
      f'no published code trains {fusion}; '
      f'only {known} in configs/{nearest(fusion, PREDECESSORS_FUSIONS)}'
    )
  if tower != 'ir50':
    raise InputError(f"the predecessors' models have the visual tower ir50, not {tower}")
  sizes = config.model.visual.ir50
  names = functools.partial(model, sizes.units, fusion, config.model.head.name)
  # Their weight-normed convolutions are listed twice, the second time as net.0 and net.4.
  left_out = r'temporal\.\w+\.network\.\d+\.net\..*|spatial\.visual\.logits\..*'
  if not config.model.fusion.get('joint_fc', True):  # their query_linear is there, but not used
    left_out += r'|coattn\.dcn_layers\.\d+\.dense_coattn\.query_linear\..*'
  return Published(
    functools.partial(torch_entry, names, sizes.widths[-1]),
    first='temporal.video.network.0.conv1.weight_v',
    left_out=left_out + OR_COUNTERS,
    licence=UNSTATED,
  )
