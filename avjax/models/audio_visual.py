"""Builds the whole network from its parts.

The towers see one frame at a time. The temporal part, the fusion and the head work over time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from avjax import ranges
from avjax.errors import InputError
from avjax.models import heads, towers  # noqa: F401  (their classes register themselves)
from avjax.models.fusion import FUSIONS
from avjax.models.layers import Norm, Trainable, at_least_float32
from avjax.models.registry import AUDIO_TOWERS, HEADS, VISUAL_TOWERS
from avjax.models.tcn import TCN

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

TOWERS = {'visual': VISUAL_TOWERS, 'audio': AUDIO_TOWERS}
MODALITIES = tuple(TOWERS)
# A tower named features/NAME is none: the records have features of another backbone in its place.
FEATURES = 'features/'


class AudioVisual(nn.Module):
  """Predicts the targets for each frame of B windows of L frames.

  length: L of the records.
  outputs: numbers per frame, over all targets.
  settings: `config.model` as nested dicts with the sections visual, audio, temporal, fusion and
    head; configs/base.py shows every key.
  tower_type: 'float32', or 'bfloat16' for towers that compute in it. Their parameters and what they
    return are float32 even so, as is everything behind them.
  """

  length: int
  outputs: int
  settings: Mapping[str, Any]
  tower_type: str = 'float32'

  def setup(self):
    # Attributes are the names of the parameters: visual/..., audio_tcn/..., fusion/..., head/...
    temporal = dict(self.settings['temporal'])
    widths = {modality: temporal.pop(modality) for modality in MODALITIES}
    norm = temporal.pop('norm')
    for modality in MODALITIES:
      setattr(self, modality, make_tower(modality, self.settings[modality]))
      tcn = TCN(widths[modality], **temporal) if widths[modality] else None
      setattr(self, f'{modality}_tcn', tcn)
      setattr(self, f'{modality}_norm', Norm() if tcn and norm else None)
    fusion, head = dict(self.settings['fusion']), dict(self.settings['head'])
    self.fusion = FUSIONS[fusion.pop('name')](self.length, **fusion)
    self.head = HEADS[head.pop('name')](self.outputs, **head)

  def __call__(
    self,
    images: Float[Array, 'B L H W 3'] | Float[Array, 'B L Dv'] | None,
    log_mel: Float[Array, 'B L 96 64'] | Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L outputs']:
    """Predicts from images and log-mel windows, -> (B,L,outputs): `encode`, then `decode`.

    The arguments are those of `encode`.
    """
    return self.decode(*self.encode(images, log_mel, mask, is_trainable), mask, is_trainable)

  def encode(
    self,
    images: Float[Array, 'B L H W 3'] | Float[Array, 'B L Dv'] | None,
    log_mel: Float[Array, 'B L 96 64'] | Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> tuple[Float[Array, 'B L Dv'] | None, Float[Array, 'B L Da'] | None]:
    """Runs the towers, a frame at a time.

    Args:
      images: (B,L,H,W,3) in [-1, 1]; features (B,L,Dv) of another backbone in place of a tower; or
        None where the system does not use the modality.
      log_mel: VGGish windows (B,L,96,64), or features (B,L,Da), or None.
      mask: (B,L), True on frames and False on padding.
      is_trainable: see avjax/models/layers.py.

    Returns visual (B,L,Dv) and audio (B,L,Da) features, None for a modality that the system does
    not use.
    """
    visual = self._tower(self.visual, images, mask, is_trainable)
    return visual, self._tower(self.audio, log_mel, mask, is_trainable)

  def decode(
    self,
    visual: Float[Array, 'B L Dv'] | None,
    audio: Float[Array, 'B L Da'] | None,
    mask: Bool[Array, 'B L'],
    is_trainable: Trainable,
  ) -> Float[Array, 'B L outputs']:
    """Predicts from what `encode` returns: (B,L,Dv), (B,L,Da) -> (B,L,outputs).

    Predictions are in [-1, 1] if the head has a tanh.
    """
    # By default a TPU rounds the operands of float32 products to bfloat16, and a GPU to ten bits.
    with jax.default_matmul_precision('highest'):
      visual = self._over_time(self.visual_tcn, self.visual_norm, visual, mask, is_trainable)
      audio = self._over_time(self.audio_tcn, self.audio_norm, audio, mask, is_trainable)
      return self.head(self.fusion(visual, audio, mask, is_trainable), mask, is_trainable)

  def _tower(self, tower, x, mask, is_trainable):
    if tower is None:
      return x
    x = x.reshape(-1, *x.shape[2:])
    if self.tower_type == 'bfloat16':  # the layers of a tower compute in the type of their input
      x = x.astype(jnp.bfloat16)
    y = tower(x, is_trainable, mask.reshape(-1))
    return at_least_float32(y).reshape(*mask.shape, -1)

  def _over_time(self, tcn, norm, x, mask, is_trainable):
    if x is None or tcn is None:
      return x
    x = tcn(x, is_trainable)
    return x if norm is None else norm(x, is_trainable, mask[..., None])


def make_tower(modality, settings):
  """Builds the tower of a modality, (N,...) -> (N,D); None for 'none' and features/NAME.

  settings: the section of the config, config.model.visual or config.model.audio.
  """
  name = settings['tower']
  if name == 'none' or name.startswith(FEATURES):
    return None
  tower = TOWERS[modality].choose(name)
  return tower(**tower_arguments(tower, settings))


def tower_arguments(tower, settings):
  """Returns the arguments of a tower: the section under its name in the settings of its modality.

  A tower that is `inline` has no such section: its arguments stand next to the key `tower`.
  """
  if getattr(tower, 'inline', False):
    return {
      key: value
      for key, value in settings.items()
      if key != 'tower' and not isinstance(value, Mapping)
    }
  return dict(settings.get(settings['tower'], {}))


def check_settings(settings):
  """Raises InputError, which names the key, where `config.model` does not describe a model.

  settings: `config.model` as nested dicts. The ranges are those that towers, temporal part, fusion
  and head declare next to their code.
  """
  for modality, registry in TOWERS.items():
    name = settings[modality]['tower']
    ranges.OneOf((*registry, 'none'), prefix=FEATURES).check(registry.key, name)
    if name in registry:
      tower = registry[name]
      inline = getattr(tower, 'inline', False)
      section = f'model.{modality}' if inline else f'model.{modality}.{name}'
      ranges.check(section, tower_arguments(tower, settings[modality]), tower.ranges)
  ranges.check('model.temporal', settings['temporal'], TCN.ranges)
  for part, registry in (('fusion', FUSIONS), ('head', HEADS)):
    ranges.check(f'model.{part}', settings[part], registry.choose(settings[part]['name']).ranges)
  fusion = settings['fusion']
  for modality in fusion.get('inputs', FUSIONS[fusion['name']].needs):
    if settings[modality]['tower'] == 'none':
      raise InputError(
        f'config.model.{modality}.tower is none, but the fusion {fusion["name"]} needs one'
      )
