"""How published files name and lay out what our modules hold: one function a system, from our module's path to theirs.

Sources: ABAW3 and RJCMA (models/*.py) for IR-50 and the predecessors' whole models, torchvggish and TensorFlow's
vggish_slim.py for VGGish, torchvision for ResNet-50. docs/weights.md says the same for people.
"""

import dataclasses
import functools
import re
from typing import Callable

import numpy as np

from avjax.errors import InputError
from avjax.ranges import nearest


@dataclasses.dataclass(frozen=True)
class Entry:
  """One array of a published file: its name and shape there, and the function that lays it out as ours."""
  name: str
  shape: tuple
  ours: Callable


@dataclasses.dataclass(frozen=True)
class Published:
  """A system that others have published.

  entry: path of our leaf without its collection, and its shape -> Entry, or None for what the file does not have.
  first: a name that every such file holds; what stands before it is the file's prefix.
  left_out: pattern of the names that avjax has no use for. licence: what the distributors state.
  """
  entry: Callable
  first: str
  left_out: str
  licence: str


# PyTorch: names of leaves, and our axes in its order, HWIO -> OIHW, KIO -> OIK, IO -> OI.
LEAVES = {'kernel': 'weight', 'bias': 'bias', 'scale': 'weight', 'slope': 'weight', 'mean': 'running_mean',
          'var': 'running_var', 'direction': 'weight_v'}
AXES = {4: (3, 2, 0, 1), 3: (2, 1, 0), 2: (1, 0), 1: (0,)}


def torch_entry(names, channels, path, shape):
  """An Entry of a PyTorch file. names: our module -> theirs, '' for none; channels: of what IR-50 flattens."""
  module, leaf = path.rsplit('/', 1)
  name, axes = names(module), AXES[len(shape)]
  if not name:
    return None
  theirs, back = tuple(shape[axis] for axis in axes), np.argsort(axes)
  if leaf == 'scale' and re.search(r'_conv\d$', module):  # the length of a weight norm
    return Entry(f'{name}.weight_g', (*shape, 1, 1), np.ravel)
  if leaf == 'kernel' and module.endswith('_residual'):   # their 1x1 convolution is our dense layer
    return Entry(f'{name}.weight', (*theirs, 1), lambda x: x[..., 0].T)
  if leaf == 'kernel' and module.endswith('output/dense'):
    return Entry(f'{name}.weight', theirs, lambda x: channels_last(x, channels))
  return Entry(f'{name}.{LEAVES[leaf]}', theirs, lambda x: x.transpose(back))


def channels_last(weight, channels):
  """A dense weight (O, C*H*W) over features flattened channel first -> kernel (H*W*C, O) over channel last."""
  outputs = len(weight)
  return weight.reshape(outputs, channels, -1).transpose(0, 2, 1).reshape(outputs, -1).T


def ir50(units, module):
  """'stage3/unit11/conv1' -> 'body.18.res_layer.1'. units: their number in each stage."""
  match module.split('/'):
    case ['input', part]:
      return {'conv': 'input_layer.0', 'norm': 'input_layer.1', 'prelu': 'input_layer.2'}[part]
    case ['output', part]:
      return {'norm1': 'output_layer.0', 'dense': 'output_layer.3', 'norm2': 'output_layer.4'}[part]
    case [stage, unit, part]:
      index = sum(units[:int(stage.removeprefix('stage')) - 1]) + int(unit.removeprefix('unit'))
      return f'body.{index}.' + {'norm1': 'res_layer.0', 'conv1': 'res_layer.1', 'prelu': 'res_layer.2', 'conv2': 'res_layer.3',
                                 'norm2': 'res_layer.4', 'shortcut_conv': 'shortcut_layer.0',
                                 'shortcut_norm': 'shortcut_layer.1'}[part]


def resnet50(module):
  """'stage3/unit5/norm2' -> 'layer3.5.bn2'; our projection to 512 features is not in the file."""
  match module.split('/'):
    case ['input', part]:
      return {'conv': 'conv1', 'norm': 'bn1'}[part]
    case [stage, unit, part]:
      part = {'shortcut_conv': 'downsample.0', 'shortcut_norm': 'downsample.1'}.get(part, part.replace('norm', 'bn'))
      return f'{stage.replace("stage", "layer")}.{unit.removeprefix("unit")}.{part}'
  return ''


def vggish(module):
  """'conv3_1' -> 'features.6'."""
  return {'conv1': 'features.0', 'conv2': 'features.3', 'conv3_1': 'features.6', 'conv3_2': 'features.8',
          'conv4_1': 'features.11', 'conv4_2': 'features.13', 'fc1_1': 'embeddings.0', 'fc1_2': 'embeddings.2',
          'fc2': 'embeddings.4'}[module]


def vggish_tensorflow(path, shape):
  """'conv3_1/kernel' -> 'vggish/conv3/conv3_1/weights', in our layout."""
  module, leaf = path.split('/')
  scope = f'{module.split("_")[0]}/{module}' if '_' in module else module
  return Entry(f'vggish/{scope}/' + {'kernel': 'weights', 'bias': 'biases'}[leaf], shape, lambda x: x)


# The predecessors' whole models, of two modalities: modality 1 is the face, 2 the log-mel.
MODALITIES = {'visual': 'video', 'audio': 'logmel'}
HEADS = {'mlp': {'hidden': 'regressor1', 'norm': 'bn1', 'output': 'regressor2'}, 'linear': {'output': 'regressor'}}


def rjca_author(module):
  """'recursion_1/visual/key' -> 'coattn.dcn_layers.0.dense_coattn.key1_linear'."""
  recursion, *modality, part = module.split('/')
  layer = f'coattn.dcn_layers.{int(recursion.removeprefix("recursion_")) - 1}'
  number = 1 if modality == ['visual'] else 2
  return {'joint': f'{layer}.dense_coattn.query_linear', 'output': f'{layer}.linears.{number - 1}.0'}.get(
      part, f'{layer}.dense_coattn.{part}{number}_linear')


def lfan(module):
  """'visual_qkv' -> 'fusion.layers.self_attn.qkv_proj.video'."""
  return {'visual_qkv': 'fusion.layers.self_attn.qkv_proj.video', 'audio_qkv': 'fusion.layers.self_attn.qkv_proj.logmel',
          'output': 'fusion.layers.self_attn.o_proj', 'norm': 'fusion.layers.norm1'}[module]


FUSIONS = {'rjca_author': rjca_author, 'lfan': lfan}


def model(units, fusion, head, module):
  """'visual_tcn/level2_conv0' -> 'temporal.video.network.2.conv1'."""
  room, _, rest = module.partition('/')
  if room == 'visual':
    return 'spatial.visual.backbone.' + ir50(units, rest)
  if room == 'audio':
    return 'spatial.audio.backbone.' + vggish(rest)
  if room == 'fusion':
    return FUSIONS[fusion](rest)
  if room == 'head':
    return HEADS[head][rest]
  modality, part = room.split('_')
  if part == 'norm':
    return f'bn.{MODALITIES[modality]}'
  level, part = rest.removeprefix('level').split('_')
  part = {'conv0': 'conv1', 'conv1': 'conv2', 'residual': 'downsample'}[part]
  return f'temporal.{MODALITIES[modality]}.network.{level}.{part}'


COUNTERS = r'|.*num_batches_tracked'
TRAINING = r'(.*/)?(global_step|beta[12]_power|Adam(_\d+)?|_CHECKPOINTABLE_OBJECT_GRAPH)'  # TensorFlow's optimizers and savers
UNSTATED = 'none stated by its distributors'
TOWERS = {
    'ir50': Published(functools.partial(torch_entry, functools.partial(ir50, (3, 4, 14, 3)), 512), 'input_layer.0.weight',
                      r'logits\..*' + COUNTERS, UNSTATED),
    'resnet50': Published(functools.partial(torch_entry, resnet50, None), 'layer1.0.conv1.weight', r'fc\..*' + COUNTERS,
                          "BSD-3-Clause (torchvision); trained on ImageNet, whose images are for research"),
    'vggish': Published(functools.partial(torch_entry, vggish, None), 'embeddings.0.weight', r'pproc\..*', 'Apache-2.0'),
    'vggish_tensorflow': Published(vggish_tensorflow, 'vggish/conv1/weights', TRAINING, 'Apache-2.0'),
}


def of_model(config):
  """The Published of a whole model of the predecessors', in the sizes of a config. InputError for what they do not have."""
  tower = config.model.visual.tower
  fusion = config.model.fusion.name + ('_author' if config.model.fusion.get('formulation') == 'author' else '')
  if fusion not in FUSIONS:
    raise InputError(f'no published code trains {fusion}; only {", ".join(FUSIONS)} of configs/{nearest(fusion, FUSIONS)}')
  if tower != 'ir50':
    raise InputError(f"the predecessors' models have the face tower ir50, not {tower}")
  sizes = config.model.visual.ir50
  names = functools.partial(model, sizes.units, fusion, config.model.head.name)
  # Their weight-normed convolutions are listed twice, the second time as net.0 and net.4; query_linear may go unused.
  aliases = r'temporal\.\w+\.network\.\d+\.net\..*|spatial\.visual\.logits\..*'
  unused = '' if config.model.fusion.get('joint_fc', True) else r'|coattn\.dcn_layers\.\d+\.dense_coattn\.query_linear\..*'
  return Published(functools.partial(torch_entry, names, sizes.widths[-1]), 'temporal.video.network.0.conv1.weight_v',
                   aliases + unused + COUNTERS, UNSTATED)
