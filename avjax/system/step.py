"""The pure steps: one update, one prediction. Runs without TensorFlow."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from avjax.ranges import nearest
from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.errors import InputError
from avjax.models.audio_visual import AUDIO_TOWERS, FEATURES, VISUAL_TOWERS, AudioVisual
from avjax.models.fusion import FUSIONS
from avjax.models.fusion.transformer import POSITIONS
from avjax.models.heads import HEADS
from avjax.models.layers import everything_trainable, nothing_trainable
from avjax.models.tcn import ACTIVATIONS
from avjax.system import preprocess
from avjax.targets import TARGETS, losses
from avjax.targets import columns as label_columns
from avjax.training import optimizer


@flax.struct.dataclass
class State:
  """What a step changes: params and batch_stats are Linen's collections, opt_state is optax's."""
  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self):
    return {'params': self.params, 'batch_stats': self.batch_stats}


def input_fields(config):
  """The fields of a record that the model of a config sees."""
  return (*_fields(config.model.visual.tower, ('faces',)), *_fields(config.model.audio.tower, ('log_mel', 'starts')), 'real')


def _fields(tower, raw):
  """What one tower sees of a record: raw, features that are named like the tower, or nothing."""
  return (tower,) if tower.startswith(FEATURES) else () if tower == 'none' else raw


def seen(config, face_present, audio_present):
  """(n,) bool: the frames in which there is something that the model of a config uses."""
  uses_face, uses_voice = (config.model[modality].tower != 'none' for modality in ('visual', 'audio'))
  return (uses_face & face_present) | (uses_voice & audio_present)


def feature_names(config):
  """The features of other backbones that the model of a config takes in place of towers."""
  towers = (config.model.visual.tower, config.model.audio.tower)
  return [tower.removeprefix(FEATURES) for tower in towers if tower.startswith(FEATURES)]


def on_device(batch, config):
  """The part of a batch of records that a step needs."""
  return {name: batch[name] for name in (*input_fields(config), 'va', 'annotated')}


def model_inputs(config, batch, key=None):
  """What the towers take, of a batch on the device: (images or features, log-mel windows or features), None without a tower.

  With a key, images are augmented.
  """
  inputs = []
  for tower, prepare in ((config.model.visual.tower, lambda: preprocess.images(batch['faces'], config.crop, key)),
                         (config.model.audio.tower, lambda: preprocess.windows(batch['log_mel'], batch['starts']))):
    inputs.append(batch[tower] if tower.startswith(FEATURES) else None if tower == 'none' else prepare())
  return inputs


def without_towers(config, widths):
  """The config of the same model behind its towers, on features `face` and `voice` of these widths ({name: width}) in their place."""
  config = config.copy_and_resolve_references()
  for modality, name in (('visual', 'face'), ('audio', 'voice')):
    if config.model[modality].tower != 'none':
      config.model[modality].tower = FEATURES + name
  config.data.features = {name: widths[name] for name in feature_names(config)}
  return config


def make_model(config):
  """The model that a config describes. Raises InputError for a name that does not exist."""
  m = config.model
  for what, name, known in (('model.visual.tower', m.visual.tower, (*VISUAL_TOWERS, f'{FEATURES}NAME', 'none')),
                            ('model.audio.tower', m.audio.tower, (*AUDIO_TOWERS, f'{FEATURES}NAME', 'none')),
                            ('model.fusion.name', m.fusion.name, FUSIONS),
                            ('model.head.name', m.head.name, HEADS),
                            ('model.fusion.positions', m.fusion.get('positions', 'none'), POSITIONS),
                            ('model.temporal.activation', m.temporal.activation, ACTIVATIONS),
                            *(('model.fusion.inputs', name, ('visual', 'audio')) for name in m.fusion.get('inputs', ())),
                            ('model.fusion.formulation', m.fusion.get('formulation', 'paper'), ('paper', 'author')),
                            ('loss.scope', config.loss.scope, losses.SCOPES),
                            ('loss.variance', config.loss.variance, losses.VARIANCES),
                            ('frozen_mode', config.frozen_mode, ('evaluation', 'training')),
                            *(('targets', target, TARGETS) for target in config.targets)):
    if name not in known and not ('tower' in what and name.startswith(FEATURES)):
      raise InputError(f'config.{what} {name!r} is not one of {", ".join(known)}{nearest(name, known)}')
  for modality in m.fusion.get('inputs', FUSIONS[m.fusion.name].needs):
    if m[modality].tower == 'none':
      raise InputError(f'config.model.{modality}.tower is none, but the fusion {m.fusion.name} needs it')
  return AudioVisual(length=config.data.length, targets=len(config.targets), visual=m.visual.to_dict(), audio=m.audio.to_dict(),
                     temporal=m.temporal.to_dict(), fusion=m.fusion.to_dict(), head=m.head.to_dict())


def init_variables(config, model, seed):
  """{'params', 'batch_stats'}, drawn from the seed."""
  # One frame is enough: no parameter's shape depends on the number of frames given, only on `length`.
  frame = {'faces': jnp.zeros((1, 1, config.data.face, config.data.face, 3), jnp.uint8), 'starts': jnp.zeros((1, 1), int),
           'log_mel': jnp.zeros((1, WINDOW_ROWS, MEL_BANDS)),
           **{f'{FEATURES}{name}': jnp.zeros((1, 1, width)) for name, width in config.data.features.items()}}
  inputs = jax.tree.map(lambda x: jnp.zeros(x.shape), model_inputs(config, frame))  # in the precision of the parameters
  variables = jax.jit(lambda key: model.init(key, *inputs, jnp.ones((1, 1), bool), nothing_trainable))(jax.random.key(seed))
  return {name: variables.get(name, {}) for name in ('params', 'batch_stats')}


def paths(params):
  """The names of all parameters: 'visual/stage4/unit0/conv1/kernel', ..."""
  return list(traverse_util.flatten_dict(params, sep='/'))


def count(params, counted=lambda path: True):
  """The number of parameters at the paths that are `counted`."""
  return sum(leaf.size for path, leaf in traverse_util.flatten_dict(params, sep='/').items() if counted(path))


def make_train_step(config, model, is_trainable, tx):
  """Returns step(state, batch, key, rate) -> (state, metrics) of the stage that `is_trainable` describes.

  batch is what `on_device` leaves. Only the open groups are differentiated, so that a frozen trunk costs no backward pass. Where loss or
  gradient is not finite the state comes back as it was.
  """
  targets = label_columns(config.targets)
  mode = is_trainable if config.frozen_mode == 'evaluation' else everything_trainable

  def step(state, batch, key, rate):
    crop_key, dropout_key = jax.random.split(key)
    images, log_mel = model_inputs(config, batch, crop_key if config.augment else None)
    flat = traverse_util.flatten_dict(state.params, sep='/')
    frozen = {path: value for path, value in flat.items() if not is_trainable(path)}

    def loss_fn(open_params):
      variables = {'params': traverse_util.unflatten_dict({**frozen, **open_params}, sep='/'),
                   'batch_stats': state.batch_stats}
      prediction, updated = model.apply(variables, images, log_mel, batch['real'], mode, mutable=['batch_stats'],
                                        rngs={'dropout': dropout_key})
      loss = losses.ccc_loss(prediction, batch['va'][..., targets], batch['annotated'], config.loss.scope, config.loss.variance)
      return loss, updated.get('batch_stats', {})

    open_params = {path: value for path, value in flat.items() if is_trainable(path)}
    (loss, batch_stats), gradients = jax.value_and_grad(loss_fn, has_aux=True)(open_params)
    metrics = {'loss': loss, 'gradient_norm': optax.tree.norm(gradients)}
    zeros = {path: jnp.zeros_like(value) for path, value in frozen.items()}
    gradients = traverse_util.unflatten_dict({**zeros, **gradients}, sep='/')
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    stepped = State(optimizer.apply(state.params, updates, rate), batch_stats, opt_state)
    finite = jnp.isfinite(loss) & jnp.isfinite(metrics['gradient_norm'])
    return jax.tree.map(lambda new, old: jnp.where(finite, new, old), stepped, state), metrics

  return jax.jit(step, donate_argnums=0)


def make_predict_step(config, model):
  """Returns predict(variables, batch) -> {'prediction' (B,L,targets), 'gates' {name: (B,L,K)}}; centre crop, nothing trained."""

  def predict(variables, batch):
    prediction, sown = model.apply(variables, *model_inputs(config, batch), batch['real'], nothing_trainable, mutable=['gates'])
    return {'prediction': jnp.clip(prediction, -1, 1), 'gates': sown.get('gates', {}).get('fusion', {})}

  return jax.jit(predict)
