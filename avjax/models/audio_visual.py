"""Towers -> TCN -> fusion -> head, and nothing else."""

import flax.linen as nn

from avjax.models.fusion import FUSIONS
from avjax.models.heads import HEADS
from avjax.models.layers import Norm
from avjax.models.resnet import IR50, ResNet50
from avjax.models.tcn import TCN
from avjax.models.vggish import VGGish

VISUAL_TOWERS = {'ir50': IR50, 'resnet50': ResNet50}


class AudioVisual(nn.Module):
  """Frame-wise valence and/or arousal of B clips of L frames.

  Fields are plain mappings of keyword arguments for the parts; see `configs/grjca.py`, section `model`.
  """
  length: int       # L of the records
  targets: int      # 1, or 2 for valence and arousal together
  visual: dict      # tower: its name; and under each name, that tower's arguments
  audio: dict       # VGGish's arguments
  temporal: dict    # visual and audio widths, kernel, dropout
  fusion: dict      # name, and its arguments
  head: dict        # name, and its arguments

  @nn.compact
  def __call__(self, images, log_mel, mask, trains):
    """images (B,L,H,W,3) in [-1, 1], log_mel (B,L,96,64), mask (B,L) True on real frames -> (B,L,targets) in [-1, 1]."""
    clips, frames = mask.shape
    name = self.visual['tower']
    tower = VISUAL_TOWERS[name](**self.visual.get(name, {}), name='visual')
    x_v = tower(images.reshape(clips * frames, *images.shape[2:]), trains, mask.reshape(-1)).reshape(clips, frames, -1)
    x_a = VGGish(**self.audio, name='audio')(log_mel.reshape(clips * frames, *log_mel.shape[2:]))
    x_a = x_a.reshape(clips, frames, -1)

    temporal = dict(self.temporal)
    widths = {'visual': temporal.pop('visual'), 'audio': temporal.pop('audio')}
    x_v = TCN(widths['visual'], **temporal, name='visual_tcn')(x_v, trains)
    x_v = Norm(name='visual_norm')(x_v, trains, mask[..., None])  # (B,L,Dv)
    x_a = TCN(widths['audio'], **temporal, name='audio_tcn')(x_a, trains)
    x_a = Norm(name='audio_norm')(x_a, trains, mask[..., None])  # (B,L,Da)

    fusion, head = dict(self.fusion), dict(self.head)
    fused = FUSIONS[fusion.pop('name')](self.length, **fusion, name='fusion')(x_v, x_a, mask, trains)
    return HEADS[head.pop('name')](self.targets, **head, name='head')(fused, mask, trains)
