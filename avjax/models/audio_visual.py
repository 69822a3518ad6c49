"""Towers -> TCN -> fusion -> head, and nothing else."""

import flax.linen as nn

from avjax.models.fusion import FUSIONS
from avjax.models.heads import HEADS
from avjax.models.layers import Norm
from avjax.models.tcn import TCN
from avjax.models.towers.ir50 import IR50
from avjax.models.towers.resnet50 import ResNet50
from avjax.models.towers.vggish import VGGish

VISUAL_TOWERS = {'ir50': IR50, 'resnet50': ResNet50}
AUDIO_TOWERS = ('vggish',)
FEATURES = 'features/'  # how the name of a tower begins in whose place features of another backbone are given


def make_tower(modality, settings, name=None):
  """The module (N,...), trains, mask (N,) -> (N,D) of a tower, from config.model.visual or config.model.audio as a mapping."""
  if modality == 'audio':
    return VGGish(**{key: value for key, value in settings.items() if key != 'tower'}, name=name)
  return VISUAL_TOWERS[settings['tower']](**settings.get(settings['tower'], {}), name=name)


class AudioVisual(nn.Module):
  """Frame-wise valence and/or arousal of B clips of L frames.

  Fields are plain mappings of keyword arguments for the parts; see `configs/grjca.py`, section `model`.
  """
  length: int       # L of the records
  targets: int      # 1, or 2 for valence and arousal together
  visual: dict      # tower: its name, features/NAME or none; and under each name, that tower's arguments
  audio: dict       # tower: its name, features/NAME or none; and VGGish's arguments
  temporal: dict    # visual and audio widths, and the TCN's other arguments; no widths, no TCN
  fusion: dict      # name, and its arguments
  head: dict        # name, and its arguments

  @nn.compact
  def __call__(self, images, log_mel, mask, is_trainable):
    """images (B,L,H,W,3) in [-1, 1], log_mel (B,L,96,64), mask (B,L) True on real frames -> (B,L,targets).

    In [-1, 1] if the head ends in tanh. Where features (B,L,D) stand in for a tower, they are its input; where there is none, None.
    """
    visual, audio = self.tower('visual', images, mask, is_trainable), self.tower('audio', log_mel, mask, is_trainable)
    visual, audio = self.over_time('visual', visual, mask, is_trainable), self.over_time('audio', audio, mask, is_trainable)
    fusion, head = dict(self.fusion), dict(self.head)
    fused = FUSIONS[fusion.pop('name')](self.length, **fusion, name='fusion')(visual, audio, mask, is_trainable)
    return HEADS[head.pop('name')](self.targets, **head, name='head')(fused, mask, is_trainable)

  def tower(self, modality, x, mask, is_trainable):
    """Features (B,L,D) of one modality, a frame at a time; None if the system does not use it."""
    settings = getattr(self, modality)
    name = settings['tower']
    if name == 'none':
      return None
    if name.startswith(FEATURES):
      return x
    y = make_tower(modality, settings, name=modality)(x.reshape(-1, *x.shape[2:]), is_trainable, mask.reshape(-1))
    return y.reshape(*mask.shape, -1)

  def over_time(self, modality, x, mask, is_trainable):
    """The temporal part of one modality: TCN and norm, (B,L,C) -> (B,L,D)."""
    temporal = {name: value for name, value in self.temporal.items() if name not in ('visual', 'audio', 'norm')}
    widths = self.temporal[modality]
    if x is None or not widths:
      return x
    x = TCN(widths, **temporal, name=f'{modality}_tcn')(x, is_trainable)
    return Norm(name=f'{modality}_norm')(x, is_trainable, mask[..., None]) if self.temporal['norm'] else x
