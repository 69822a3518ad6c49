"""Builds RAAV and DCMMOE from a checkout of their authors' public code, for `benchmarks.parity`.

The code is SMIL-SPCRAS/CVPRW-26 (MIT licence) at commit 8385d2a; nothing of it is in this project.
What the comparison needs is changed in its modules: dropouts multiply by given factors, numbers
that are no weights are left out of the state dict and computed in float64, and outputs on padding
are 0.
"""

import dataclasses
import hashlib
import importlib.util
import pathlib
import re
import sys
import types

import torch
from torch import nn

from avjax.errors import InputError
from benchmarks.torch_layers import Given

REPOSITORY = 'https://github.com/SMIL-SPCRAS/CVPRW-26'
COMMIT = '8385d2a851c62f6aa6115c03a72063fc4932d306'
RAAV_FILE = 'src_audio_and_fusion/src/fusion/models/multimodal_fusion_model.py'
DCMMOE_FILE = 'src_fusion_model/model.py'
SHA256 = {
  RAAV_FILE: '5e1f68a656b3b5b5d03042328930f51d012805f908ef13da308e3b74d6dd05b0',
  DCMMOE_FILE: 'c61dacb7ed746fdff9827370f1466ca0e230237874ac19b554e17be298e2103c',
}
# Ends of the names of their dropouts, and our names of these.
DROPOUTS = {
  r'frame_gate_mlps\.face\.2': 'gate_visual_dropout',
  r'frame_gate_mlps\.audio\.2': 'gate_audio_dropout',
  r'temporal_encoder\.layers\.\d\.dropout1': 'dropout1',
  r'temporal_encoder\.layers\.\d\.dropout': 'dropout2',
  r'temporal_encoder\.layers\.\d\.dropout2': 'dropout3',
  r'projections\.visual\.2': 'visual_dropout',
  r'projections\.audio\.2': 'audio_dropout',
  r'positional_encoding\.dropout': 'dropout_positions',
  r'add_norm_after_attention\.dropout': 'dropout1',
  r'feed_forward\.dropout': 'dropout2',
  r'add_norm_after_ff\.dropout': 'dropout3',
  r'head\.3': 'dropout',
}


@dataclasses.dataclass
class Batch:
  """Stands in for the class of this name of the framework that RAAV's code is written for."""

  inputs: dict
  meta: dict


def stand_ins():
  """Returns what RAAV's file imports of its framework, chimera_ml, as {module: its contents}."""
  registry = types.SimpleNamespace(register=lambda name: lambda function: function)
  return {
    'chimera_ml.core.batch': {'Batch': Batch},
    'chimera_ml.models.base': {'BaseModel': nn.Module},
    'chimera_ml.core.types': {'ModelOutput': types.SimpleNamespace},
    'chimera_ml.core.registry': {'MODELS': registry},
  }


def load(folder, name):
  """Runs a file of the checkout and returns its module; InputError if it is not that of COMMIT."""
  path = pathlib.Path(folder) / name
  if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
    raise InputError(f'{path} is not that of {REPOSITORY} at commit {COMMIT}: check it out there')
  for module, contents in stand_ins().items():
    sys.modules[module] = types.ModuleType(module)
    vars(sys.modules[module]).update(contents)
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def prepare(model, factors):
  """Gives the dropouts their factors, {our name: (CLIPS,FRAMES,width)}, and hides fixed numbers."""
  for name, module in list(model.named_modules()):
    module._non_persistent_buffers_set |= module._buffers.keys()
    if isinstance(module, nn.Dropout):
      (ours,) = (ours for end, ours in DROPOUTS.items() if re.search(rf'(^|\.){end}$', name))
      parent, _, leaf = name.rpartition('.')
      setattr(model.get_submodule(parent), leaf, Given(torch.from_numpy(factors[ours])))
  return model


class Masked(nn.Module):
  """Computes outputs (B,L,2) that are zero on padding, of visual (B,L,Dv) and audio (B,L,Da)."""

  def named_buffers(self, *args, **kwargs):
    """Returns none: fixed numbers are no running averages."""
    return iter(())

  def forward(self, visual, audio):
    mask = self.mask[: len(visual)]
    return self.predict(visual, audio, mask) * mask[..., None].to(visual.dtype)


def make_raav(module, mask, sizes, priors, widths):
  """Returns RAAV, whose frame modalities are `face` and, with a second prior, `audio`."""
  theirs = module.MultimodalFusionModelV4

  class RAAV(Masked, theirs):
    """RAAV, whose parameters have the authors' names."""

    def predict(self, visual, audio, mask):
      inputs = {'face_embedding': visual, 'audio_embedding': audio}
      valid = {'face': mask, 'audio': mask}
      masks = {'targets_sequence_mask': mask, 'input_valid_mask': valid}
      return theirs.forward(self, Batch(inputs, {'masks': masks})).preds

  modalities = ['face', 'audio'][: len(priors)]
  model = RAAV(modalities, modality_priors=dict(zip(modalities, priors, strict=True)), **sizes)
  model.mask = mask
  # They take the logarithms in float32, whatever the model computes in.
  model.modality_log_priors = (torch.tensor(priors) / sum(priors)).log()
  model(*(torch.zeros(*mask.shape, width) for width in widths))  # gives lazy layers their sizes
  model.frame_gate_mlps.requires_grad_(len(priors) > 1)  # the weight of one modality is always 1
  return model


class DCMMOE(Masked):
  """One of their models for each expert, with common projections and head, and the paper's gate."""

  def __init__(self, module, mask, sizes, queries, widths):
    super().__init__()
    self.mask = mask
    self.experts = nn.ModuleList(
      module.FusionModel(
        dict(zip(('visual', 'audio'), widths, strict=True)),
        ['visual', 'audio'],
        q_modality=query,
        k_modality=other,
        v_modality=other,
        **sizes,
      )
      for query, other in (('visual', 'audio'), ('audio', 'visual'))[:queries]
    )
    first = self.experts[0]
    for expert in self.experts[1:]:
      del expert.projections, expert.head
      object.__setattr__(expert, 'projections', first.projections)
    if queries > 1:
      self.gate = nn.Linear(sizes['hidden_dim'], queries)

  def predict(self, visual, audio, mask):
    features = {'visual': visual, 'audio': audio}
    if len(self.experts) == 1:
      return self.experts[0](features, mask)
    ways = [expert._forward_backbone(features, mask) for expert in self.experts]
    projections = self.experts[0].projections
    # With dropout the projections differ from call to call unless it is given, as it is here.
    mean = sum(projections[name](x) for name, x in features.items()) / len(features)
    scores = torch.softmax(self.gate(mean), -1)
    return self.experts[0].head((torch.stack(ways, -1) * scores[:, :, None]).sum(-1))


def build(case, layer, folder, factors):
  """Builds the module of a case of benchmarks.parity_layers.RAS, with numbers in float64.

  layer: its Layer; folder: of the checkout; factors: {our name of a dropout: (CLIPS,FRAMES,width)}.
  """
  fusion, mask = layer.module.fusion, torch.from_numpy(layer.mask)
  widths = tuple(layer.inputs.values())
  usual = torch.get_default_dtype()
  torch.set_default_dtype(torch.float64)  # for what they compute once: positions
  try:
    if case.startswith('raav'):
      sizes = {'hidden': fusion.width, 'num_heads': fusion.heads, 'dropout': 0.0}
      sizes |= {'num_temporal_layers': fusion.layers, 'num_audio_latents': fusion.latents}
      priors = fusion.priors if fusion.gate_audio else (1.0,)
      model = make_raav(load(folder, RAAV_FILE), mask, sizes, priors, widths)
    else:
      sizes = {'hidden_dim': fusion.width, 'num_heads': fusion.heads, 'dropout': 0.0}
      sizes |= {'tr_layers': fusion.layers}
      queries = 1 + fusion.audio_expert
      model = DCMMOE(load(folder, DCMMOE_FILE), mask, sizes, queries, widths)
  finally:
    torch.set_default_dtype(usual)
  return prepare(model, factors)
