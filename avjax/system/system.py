"""A system: one network with what it reads, what it predicts and how it is stepped, as a config describes it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from avjax import ranges, targets
from avjax.config import Config
from avjax.errors import InputError, one_line
from avjax.models.audio_visual import MODALITIES, AudioVisual, check_settings
from avjax.models.layers import nothing_trainable
from avjax.system import steps
from avjax.system.inputs import Inputs
from avjax.targets import losses

SECTIONS = ('visual', 'audio', 'temporal', 'fusion', 'head')  # of config.model


@dataclasses.dataclass(frozen=True, eq=False)
class System:
  """One network and its steps. Everything below it takes a System or its parts, never a config.

  targets: names of what is predicted, the last axis of a prediction. loss: arguments of `losses.ccc_loss`.
  augment: whether training crops and flips at random. frozen_mode: 'evaluation', or 'training' for frozen norms and
  dropouts that behave as in training.
  """

  model: AudioVisual
  inputs: Inputs
  targets: tuple[str, ...]
  loss: Mapping[str, Any]
  augment: bool
  frozen_mode: str

  @classmethod
  def from_config(cls, config: Config) -> System:
    """Reads the network that a config describes; InputError, naming the key, for what it cannot have.

    `config.data.features` must have the width of each set of features that the config names as a tower.
    """
    settings = config.model.to_dict()
    check_settings(settings)
    ranges.check('loss', config.loss, losses.RANGES)
    ranges.check(
      '',
      config,
      {
        'crop': ranges.Range(
          lambda crop: 1 <= crop <= config.data.face, f'1 to data.face = {config.data.face}'
        ),
        'frozen_mode': ranges.OneOf(('evaluation', 'training')),
        'targets': ranges.Range(
          lambda names: len(names) >= 1, 'at least one of valence and arousal'
        ),
      },
    )
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
      targets=len(config.targets),
      settings={section: settings[section] for section in SECTIONS},
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
    inputs = jax.tree.map(lambda x: jnp.zeros(x.shape), self.inputs.prepare(self.inputs.blank()))
    mask = jnp.ones((1, 1), bool)
    variables = jax.jit(lambda key: self.model.init(key, *inputs, mask, nothing_trainable))(
      jax.random.key(seed)
    )
    return {name: variables.get(name, {}) for name in ('params', 'batch_stats')}

  @functools.cached_property
  def shapes(self):
    """The variables as jax.ShapeDtypeStruct; InputError for sizes that do not go together."""
    try:
      return jax.eval_shape(lambda: self.init(0))
    except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
      raise InputError(f'the model of the config cannot be built: {one_line(error)}') from error

  def encode(self, variables, batch) -> Any:
    """Runs the towers, a frame at a time: fields of a batch -> visual and audio features (B,L,D), None without a tower."""
    inputs = self.inputs.prepare(batch)
    return self.model.apply(variables, *inputs, batch['real'], nothing_trainable, method='encode')

  def decode(self, variables, visual, audio, mask):
    """Predicts from the features that `encode` returns; mask (B,L) is True on frames.

    Returns {'prediction': (B,L,targets), clipped to the targets' range, 'gates': {name: (B,L,K)}}.
    """
    applied: Any = self.model.apply(
      variables, visual, audio, mask, nothing_trainable, method='decode', mutable=['gates']
    )
    prediction, sown = applied
    lowest, highest = (
      jnp.array([[bound]], prediction.dtype) for bound in targets.bounds(self.targets)
    )  # (1,1,targets)
    return {
      'prediction': jnp.clip(prediction, lowest, highest),
      'gates': sown.get('gates', {}).get('fusion', {}),
    }

  def predict(self, variables, batch):
    """Predicts for a batch of windows with the centre crop and nothing in training: `decode` of `encode`."""
    visual, audio = self.encode(variables, batch)
    return self.decode(variables, visual, audio, batch['real'])

  @functools.cached_property
  def predict_step(self):
    """`predict`, jitted once."""
    return jax.jit(self.predict)

  def make_train_step(self, is_trainable, optimizer: optax.GradientTransformation):
    """Returns the jitted training step of one stage; see `steps.make_train_step`."""
    return steps.make_train_step(self, is_trainable, optimizer)
