"""Builds a system from a config: one network with its inputs, its targets and its steps."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from avjax import ranges, targets
from avjax.config import Config
from avjax.data.records import check_layout
from avjax.errors import InputError, one_line
from avjax.models.audio_visual import MODALITIES, AudioVisual, check_settings
from avjax.models.layers import nothing_trainable
from avjax.system import compilation, steps
from avjax.system.inputs import Inputs
from avjax.targets import losses

PRECISION = {
  'towers': ranges.OneOf(('float32', 'bfloat16')),
  'rest': ranges.OneOf(('float32',)),
}
SECTIONS = ('visual', 'audio', 'temporal', 'fusion', 'head')  # of config.model


def precision_of(config: Mapping[str, Any] | Config) -> dict[str, str]:
  """Returns config.precision; a config that is older than this section meant float32."""
  return {'towers': 'float32', 'rest': 'float32', **config.get('precision', {})}


@dataclasses.dataclass(frozen=True, eq=False)
class System:
  """Holds one network and its steps.

  Everything that a System calls takes the System or its parts, never a config.

  targets: names of what is predicted, along the last axis of a prediction.
  loss: arguments of the losses of its targets.
  augment: whether training crops and flips at random.
  frozen_mode: how frozen norms and dropouts behave in a training step: 'evaluation' or 'training'.
  """

  model: AudioVisual
  inputs: Inputs
  targets: tuple[str, ...]
  loss: Mapping[str, Any]
  augment: bool
  frozen_mode: str

  @classmethod
  def from_config(cls, config: Config) -> System:
    """Builds the system that a config describes.

    Raises InputError, naming the key, for a setting that no system can have. `config.data.features`
    must have the width of each set of features that the config names as a tower.
    """
    settings = config.model.to_dict()
    check_settings(settings)
    ranges.check('loss', config.loss, losses.RANGES)
    precision = precision_of(config)
    ranges.check('precision', precision, PRECISION)
    for key in config.loss:
      ranges.OneOf(tuple(losses.RANGES)).check(f'loss.{key}', key)
    check_layout(config.data, 'config.data')
    face = config.data.face
    known = {
      'crop': ranges.Range(lambda crop: 1 <= crop <= face, f'1 to data.face = {face}'),
      'frozen_mode': ranges.OneOf(('evaluation', 'training')),
      'targets': ranges.Range(lambda names: len(names) >= 1, 'at least one of valence and arousal'),
    }
    ranges.check('', config, known)
    for target in config.targets:
      ranges.OneOf(tuple(targets.TARGETS)).check('targets', target)
    inputs = Inputs(
      length=config.data.length,
      face=config.data.face,
      crop=config.crop,
      towers={modality: settings[modality]['tower'] for modality in MODALITIES},
      features=dict(config.data.get('features', {})),
    )
    model = AudioVisual(
      length=config.data.length,
      outputs=targets.count_outputs(config.targets),
      settings={section: settings[section] for section in SECTIONS},
      tower_type=precision['towers'],
    )
    return cls(
      model=model,
      inputs=inputs,
      targets=tuple(config.targets),
      loss=config.loss.to_dict(),
      augment=config.augment,
      frozen_mode=config.frozen_mode,
    )

  def init(self, seed: int):
    """Draws the variables, {'params', 'batch_stats'}, from the seed."""
    return compilation.jit(self._draw)(jax.random.key(seed))

  def _draw(self, key):
    # One frame: the shapes of the parameters do not depend on their number.
    blank = self.inputs.prepare(self.inputs.blank_block(1, 1))
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape), blank)
    mask = jnp.ones((1, 1), bool)
    variables = self.model.init(key, *inputs, mask, nothing_trainable)
    return {name: variables.get(name, {}) for name in ('params', 'batch_stats')}

  @functools.cached_property
  def shapes(self):
    """The variables as jax.ShapeDtypeStruct; InputError for sizes that do not go together."""
    try:
      with warnings.catch_warnings(action='ignore'):  # of NumPy, where a size has no end
        return jax.eval_shape(self._draw, jax.random.key(0))
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
      raise InputError(f'the model of the config cannot be built: {one_line(error)}') from error

  def select(self, batch):
    """Returns what a step needs of a batch of records: the model's fields and its labels.

    These are 'labels' (B,L,targets), and 'annotated' (B,L), True where they count.
    """
    labels = targets.select_labels(self.targets, batch)
    fields = {name: batch[name] for name in self.inputs.fields}
    return {**fields, 'labels': labels, 'annotated': batch['annotated']}

  def encode(self, variables, batch) -> Any:
    """Runs the towers, a frame at a time: a batch -> visual and audio features, each (B,L,D).

    Features are None for a modality that the system does not use.
    """
    inputs = self.inputs.prepare(batch)
    return self.model.apply(variables, *inputs, batch['real'], nothing_trainable, method='encode')

  def decode(self, variables, visual, audio, mask):
    """Predicts from the features that `encode` returns; mask (B,L) is True on frames.

    Returns {'prediction': (B,L,outputs), 'gates': {name: (B,L,K)}}. The prediction is what
    `Target.activate` returns.
    """
    applied: Any = self.model.apply(
      variables, visual, audio, mask, nothing_trainable, method='decode', mutable=['gates']
    )
    outputs, sown = applied
    parts = targets.split_outputs(self.targets, outputs)
    return {
      'prediction': jnp.concatenate([target.activate(x) for target, x in parts], axis=-1),
      'gates': sown.get('gates', {}).get('fusion', {}),
    }

  def predict(self, variables, batch):
    """Predicts for a batch of windows: `encode`, then `decode`.

    Faces get the centre crop, and no module is in training mode.
    """
    visual, audio = self.encode(variables, batch)
    return self.decode(variables, visual, audio, batch['real'])

  @functools.cached_property
  def encode_step(self):
    """The jitted `encode`."""
    return compilation.jit(self.encode)

  @functools.cached_property
  def decode_step(self):
    """The jitted `decode`."""
    return compilation.jit(self.decode)

  def make_train_step(self, is_trainable, optimizer: optax.GradientTransformation):
    """Returns the jitted training step of one stage; see `steps.make_train_step`."""
    return steps.make_train_step(self, is_trainable, optimizer)
