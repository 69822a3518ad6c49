"""Registers what is compared, and at which settings of the world.

What stands here, and docs/disagreement_tuning.json, are committed before the test part is opened.
It is the second registry. In the first one only some systems had a projection in the residual of
their TCN; docs/disagreement_first.json has its results.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict

from avjax.models.fusion.joint_cross_attention import GRJCA
from avjax.models.layers import sow_gate
from avjax.models.registry import FUSIONS
from avjax.system import System
from benchmarks.disagreement.world import LENGTH, MODALITIES, WIDTHS, Setting

NAME = 'world'
LINEAR = 'grjca_linear'
SEEDS = range(200, 210)  # of the test; each has its own worlds, initial weights and order of clips
TUNING_SEEDS = (10, 11)
MIDDLE = Setting(0.4, 1.0)  # where rates are chosen, and where all systems are compared
SETTINGS = (*(Setting(rho, 1.0) for rho in (0.0, 0.2, 0.4, 0.6)), Setting(0.4, 0.0))
# The weights that need a lower rate than the others, of the systems that have such: those with an
# axis over the frames of a window, and the fusions for which configs/ has a lower rate.
OVER_TIME = 'fusion/.*/w_[ch]'
SLOW = {
  **dict.fromkeys(('jca', 'rjca', 'dca', 'grjca', 'hgrjca'), OVER_TIME),
  'jca_2022': 'fusion/.*/(affine|w_x|w_h)',
  **dict.fromkeys(('zhang_ziyang', 'meng', 'zhou', 'ustc', 'zhang_wei'), 'fusion/.*'),
}
# Trials: a rate, and the factor of SLOW weights.
TRIALS = {
  '': tuple((rate, 1.0) for rate in (0.003, 0.007, 0.015, 0.03, 0.06)),
  'fusion/.*': ((0.01, 0.1), (0.03, 0.1), (0.03, 0.03), (0.01, 0.3), (0.01, 1.0)),
}
OF_FRAMES = ((0.01, 0.003), (0.03, 0.003), (0.06, 0.003), (0.03, 0.001), (0.03, 0.01))


class LinearGRJCA(GRJCA):
  """Computes GRJCA without the ReLU of eq. 12, 13 and 17 to 20.

  It is registered only for its own entry: no config of configs/ may name it.
  """

  @nn.nowrap
  def gate(self, name, x, series):
    scores = nn.softmax(nn.Dense(len(series), name=f'gate_{name}')(x) / self.temperature, axis=-1)
    sow_gate(self, name, scores)
    return jnp.einsum('kbld,blk->bld', jnp.stack(series), scores)


@dataclasses.dataclass(frozen=True)
class Entry:
  """Describes one system of the comparison.

  config: its name in configs/.
  changes: {path below config.model: value} of what differs from it.
  told: whether the features say which modality lies.
  everywhere: whether it is tested at all SETTINGS, or only at MIDDLE.
  spread: factor of the standard deviation with which the L x L weights are drawn.
  one_rate: whether the L x L weights have the rate of all others.
  """

  config: str
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  told: bool = False
  everywhere: bool = False
  spread: float = 1.0
  one_rate: bool = False

  @property
  def slow(self) -> str:
    """Returns a pattern of the weights that have a rate of their own, '' for none."""
    return '' if self.one_rate else SLOW.get(self.config, '')

  @property
  def trials(self) -> tuple[tuple[float, float], ...]:
    """Returns the pairs of a rate and a factor to try."""
    return TRIALS.get(self.slow, OF_FRAMES)

  @property
  def widths(self):
    """Returns {modality: features of a frame}."""
    return {m: width + len(MODALITIES) * self.told for m, width in WIDTHS.items()}

  def system(self) -> System:
    """Makes the system, with features of the world in place of its towers.

    Temporal part, head and loss are the same for all; fusions have their mini sizes. No width of
    the TCN is that of the features, so that every system has a projection in its first residual.
    """
    config = importlib.import_module(f'configs.{self.config}').get_config('mini')
    config.data.update(length=LENGTH, stride=LENGTH)
    config.data.features = ConfigDict({f'{NAME}_{m}': w for m, w in self.widths.items()})
    for modality in MODALITIES:
      if config.model[modality].tower != 'none':
        config.model[modality].tower = f'features/{NAME}_{modality}'
    config.model.temporal.update(
      visual=(24, 24), audio=(12, 12), kernel=5, kernels=(), norm=True, dropout=0.1,
      activation='leaky_relu',
    )  # fmt: skip
    config.model.head = ConfigDict({'name': 'mlp', 'hidden': 32})
    config.loss = ConfigDict({'scope': 'sequence', 'variance': 'biased'})
    for path, value in self.changes.items():
      part, name = path.split('.')
      config.model[part][name] = value
    if config.model.fusion.name == LINEAR and LINEAR not in FUSIONS:
      FUSIONS.register(LINEAR)(LinearGRJCA)
    return System.from_config(config)


def fusion(config, everywhere=False, **changes):
  """Returns the entry of a config whose fusion has changes."""
  changes = {f'fusion.{name}': value for name, value in changes.items()}
  return Entry(config, changes, everywhere=everywhere)


at_all_settings = functools.partial(fusion, everywhere=True)


CONTEXT = {'reach': 4, 'dilation': 2}  # 1.6 seconds before a frame, and after it
WIDE = {
  'temporal.visual': (44, 44),
  'temporal.audio': (22, 22),
}  # about as many parameters as GRJCA
OTHERS = (
  'zhang_ziyang', 'meng', 'zhou', 'ustc', 'zhang_wei', 'jca', 'jca_author', 'rjca_author',
  'jca_2022', 'ca_2021', 'can', 'leader_follower', 'lfan',
)  # fmt: skip

ENTRIES = {
  'concatenation': at_all_settings('concatenation'),
  'rjca': at_all_settings('rjca'),
  'dca': at_all_settings('dca'),
  'grjca': at_all_settings('grjca'),
  'hgrjca': at_all_settings('hgrjca'),
  'raav': at_all_settings('raav'),
  'dcmmoe': at_all_settings('dcmmoe'),
  'joint_context': at_all_settings('joint_context', **CONTEXT),
  'concatenation, wide': Entry('concatenation', WIDE, everywhere=True),
  'visual': at_all_settings('visual'),
  'audio': at_all_settings('audio'),
  'concatenation, told': Entry('concatenation', told=True, everywhere=True),
  'joint_context, gated': at_all_settings('joint_context', **CONTEXT, gated=True),
  **{f'rjca, M = {m}': fusion('rjca', recursions=m) for m in (2, 4)},  # M = 1 is jca
  **{f'grjca, M = {m}': fusion('grjca', recursions=m) for m in (1, 2, 4)},
  # With M = 1 it is GRJCA by algebra.
  **{
    f'hgrjca, M = {m}': fusion('hgrjca', recursions=m) for m in (2, 4)
  },
  **{f'grjca, T = {t:g}': fusion('grjca', temperature=t) for t in (0.05, 1.0, 5.0)},
  'grjca, no ReLU': fusion('grjca', name=LINEAR),
  'grjca, one rate': Entry('grjca', one_rate=True),
  'grjca, Xavier': Entry('grjca', spread=math.sqrt(LENGTH)),
  **{name: Entry(name) for name in OTHERS},
}  # fmt: skip
