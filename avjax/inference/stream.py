"""The model of a run or of an exported folder, fed with the frames of a video: what avjax.predict runs."""

import collections
import json
import pathlib

import jax
import numpy as np
from absl import logging as absl_logging
from flax import traverse_util
from ml_collections import ConfigDict

from avjax import errors
from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.data.windows import window_starts
from avjax.errors import InputError
from avjax.evaluation.series import WindowMerger
from avjax.media import faces
from avjax.models.audio_visual import FEATURES, make_tower
from avjax.models.layers import nothing_trainable
from avjax.runs.load import load_best
from avjax.system import preprocess, sharding, step
from avjax.weights.exported import read_exported

BLOCK = 16  # frames that go through the towers at once


class StreamingPredictor:
  """The model of a run, fed with the frames of a video in order. Each frame goes through the towers once, however windows overlap."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    with errors.as_input_error(f'{folder} holds no sound model'):
      self.build(*load_model(self.folder))

  def build(self, config, variables):
    """Compiles the towers and what lies behind them."""
    self.config, folder = config, self.folder
    self.stride = config.data.stride
    if step.feature_names(self.config):
      raise InputError(f'{folder} was trained on features of another backbone ({", ".join(step.feature_names(self.config))}), '
                       'which a video does not have')
    m, widths, self.towers = self.config.model, {}, {}
    for modality, name in (('visual', 'face'), ('audio', 'voice')):
      if m[modality].tower != 'none':
        tower = make_tower(modality, m[modality].to_dict())
        own = {collection: tree[modality] for collection, tree in variables.items() if modality in tree}
        prepare = self.images if modality == 'visual' else lambda windows: windows.astype(np.float32)
        # The weights are an argument, so that they are not compiled into the program.
        run = jax.jit(lambda own, x, tower=tower, prepare=prepare: tower.apply(own, prepare(x), nothing_trainable))
        self.towers[name] = lambda x, run=run, own=own: np.asarray(run(own, x))
        widths[name] = self.towers[name](self.empty(name)).shape[-1]  # which compiles it
    self.behind = step.without_towers(self.config, widths)
    self.behind.batch_size = 1
    self.rest = {collection: {name: x for name, x in tree.items() if name not in ('visual', 'audio')} for collection, tree in variables.items()}
    self.predict_step = step.make_predict_step(self.behind, step.make_model(self.behind))
    length = self.config.data.length
    self.predict_step(self.rest, {'real': np.ones((1, length), bool), **{
        f'{FEATURES}{name}': np.zeros((1, length, width), np.float32) for name, width in widths.items()}})  # likewise

  def images(self, crops):
    return preprocess.images(crops[None], self.config.crop)[0]

  def empty(self, name):
    """A block of what a tower takes, all zeros."""
    face = self.config.data.face
    return np.zeros((BLOCK, face, face, 3), np.uint8) if name == 'face' else np.zeros((BLOCK, WINDOW_ROWS, MEL_BANDS), np.float16)

  def begin(self, times, audio_present, stride, clock):
    """Makes ready for a video of n frames.

    times (n,) in seconds; audio_present (n,) bool; stride: frames from one window to the next, or None for the run's; clock: a
    clock.Clock.
    """
    self.times, self.audio_present, self.clock = times, audio_present, clock
    self.windows = collections.deque(window_starts(len(times), self.config.data.length, stride or self.stride))
    self.first, self.count = 0, 0  # frames: the first that is kept, and how many there were
    self.features, self.face_present = {name: [] for name in self.towers}, []
    mesh = sharding.make_mesh(jax.devices()[:1])
    self.predictions = WindowMerger(self.predict_step, sharding.replicate(self.rest, mesh), self.behind, mesh)

  def add(self, crops, heard):
    """Takes the next frames, at most BLOCK: of each a face as a PIL image, or None, and a window (96,64) of its sound."""
    inputs = {name: self.empty(name) for name in self.towers}
    for i, (crop, window) in enumerate(zip(crops, heard)):
      if 'face' in inputs and crop is not None:
        inputs['face'][i] = faces.fit(crop, self.config.data.face)
      if 'voice' in inputs:
        inputs['voice'][i] = window
    with self.clock('towers', len(crops)):
      for name, x in inputs.items():
        self.features[name].extend(self.towers[name](x)[:len(crops)])
    self.face_present += [crop is not None for crop in crops]
    self.count += len(crops)
    while self.windows and min(self.windows[0] + self.config.data.length, len(self.times)) <= self.count:
      frames = np.arange(self.windows[0], min(self.windows[0] + self.config.data.length, len(self.times)))
      with self.clock('fusion', len(frames)):
        self.predictions.add(self.record(frames))
      self.windows.popleft()
      needed = self.windows[0] if self.windows else self.count
      for values in (*self.features.values(), self.face_present):
        del values[:needed - self.first]
      self.first = needed

  def record(self, frames):
    """A batch of one record, of a window of frames (m,) from 0; where a film is shorter than a window, the rest is padding."""
    length = self.config.data.length
    def cut(values, first=0):
      filled = np.stack([values[frame - first] for frame in frames])
      return np.pad(filled, [(0, length - len(frames)), *[(0, 0)] * (filled.ndim - 1)])[None]
    return {'clip': [b''], 'real': (np.arange(length) < len(frames))[None], 'frames': cut(range(1, len(self.times) + 1)),
            'times': cut(self.times), 'va': np.zeros((1, length, 2), np.float32), 'annotated': np.zeros((1, length), bool),
            'face_present': cut(self.face_present, self.first), 'audio_present': cut(self.audio_present),
            **{f'{FEATURES}{name}': cut(rows, self.first) for name, rows in self.features.items()}}

  def series(self):
    """The evaluate.Series of the video, NaN in prediction and gates where nothing was seen that the model uses."""
    (series,) = self.predictions.series().values()
    seen = step.seen(self.config, series.face_present, series.audio_present)
    for values in (series.prediction, *series.gates.values()):
      values[~seen] = np.nan
    return series


def load_model(folder):
  """(config, variables) of a run's best state, or of an exported model."""
  if not (folder / 'model.json').exists():
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax remarks on what is opened for reading
    try:
      config, _, variables, _ = load_best(folder)
    finally:
      absl_logging.set_verbosity(before)
    return config, variables
  description, flat, metadata = read_exported(folder)
  config = ConfigDict(description['config'])
  if json.loads(metadata.get('config', 'null')) != description['config']:
    raise InputError(f'{folder}: model.json has been changed: its config is not the one in weights.safetensors')
  shapes = jax.eval_shape(lambda: step.init_variables(config, step.make_model(config), 0))
  wanted = {name: x.shape for name, x in traverse_util.flatten_dict(shapes, sep='/').items()}
  if wanted != {name: x.shape for name, x in flat.items()}:
    raise InputError(f'{folder}: weights.safetensors does not hold the model of model.json; export it again')
  return config, traverse_util.unflatten_dict(flat, sep='/')
