"""Predicts for a video while its frames are decoded.

Each frame goes through the towers once, even where windows overlap.
"""

from __future__ import annotations

import collections
import functools
import os
import pathlib

import jax
import numpy as np
from absl import logging as absl_logging
from flax import traverse_util

from avjax.config import Config
from avjax.data.records import WINDOW_ROWS
from avjax.data.windows import Merger, window_starts
from avjax.errors import InputError, as_input_error
from avjax.evaluation.series import Series, flatten_output, make_series
from avjax.inference.engines import ENGINES, check_engine
from avjax.inference.timing import Clock
from avjax.media import faces
from avjax.models.audio_visual import FEATURES, MODALITIES
from avjax.runs import copies
from avjax.runs.load import load_best
from avjax.system import System, compilation
from avjax.system.values import check_outputs
from avjax.weights.exported import DESCRIPTION, read_exported

BLOCK_FRAMES = 16  # frames that go through the towers at once


class StreamingPredictor:
  """Predicts with a run or an exported model from the frames of a video in order.

  The constructor compiles the model. For each video call `begin`, then `add` until all frames are
  in, then `series`.

  notes: remarks for people on how it computes.
  """

  def __init__(self, folder, engine='jax'):
    """Loads a model, from a copy if its folder is on a bucket.

    engine: what runs the towers, one of `engines.ENGINES`.
    """
    check_engine(engine)
    self.folder, self.notes = pathlib.Path(copies.here(folder)), []
    with as_input_error(f'{folder} holds no valid model'):
      self.config, self.system, variables = load_model(self.folder)
      read = [name for name in self.system.inputs.fields if name.startswith(FEATURES)]
      features = [name.removeprefix(FEATURES) for name in read]
      if features:
        raise InputError(
          f'{folder} was trained on features of another backbone ({", ".join(features)}), '
          'which a video does not have'
        )
      self.variables = jax.device_put(variables)
      self.length, self.stride = self.config.data.length, self.config.data.stride
      self.compile()
    if ENGINES[engine]:
      self.use_openvino(ENGINES[engine])

  def compile(self):
    """Compiles the towers for a block of frames, and what comes after them for a window."""
    block = self.system.inputs.blank_block(1, BLOCK_FRAMES)
    compiled = functools.partial(compilation.compile_bounded, model=str(self.folder))
    self.encode = compiled(self.system.encode, self.variables, block)
    windows = [
      None if x is None else np.zeros((1, self.length, x.shape[-1]), x.dtype)
      for x in self.encode.out_info
    ]
    mask = np.ones((1, self.length), bool)
    self.decode = compiled(self.system.decode, self.variables, *windows, mask)

  def use_openvino(self, precision):
    """Puts OpenVINO's towers in place of the compiled ones, with which they are compared."""
    from avjax.inference.openvino_engine import Encoder  # an optional package

    batch = self.system.inputs.blank_block(1, BLOCK_FRAMES)
    mask = np.ones((1, self.length), bool)
    encoder = Encoder(self.system, self.variables, batch, precision, model=str(self.folder))
    encoder.check(self.encode, self.decode, self.variables, batch, mask)
    self.encode, self.notes = encoder, [encoder.note]

  def begin(self, times, audio_present, stride: int | None, clock: Clock):
    """Begins a video of n frames.

    Args:
      times: (n,) in seconds.
      audio_present: (n,) bool.
      stride: frames from one window to the next; None for that of the run.
      clock: measures the stages 'towers' and 'fusion'.
    """
    self.times, self.audio_present, self.clock = times, audio_present, clock
    self.windows = collections.deque(window_starts(len(times), self.length, stride or self.stride))
    self.count = 0  # frames so far
    self.first_kept = 0  # the first frame whose features are still needed
    self.features = {modality: [] for modality in MODALITIES}
    self.face_present, self.merger = [], Merger()

  def add(self, crops, log_mel_windows):
    """Adds the next frames, at most BLOCK_FRAMES of them.

    crops: the face of each frame as a PIL image, or None.
    log_mel_windows: the log-mel window of each frame, (96,64).
    """
    batch = self.system.inputs.blank_block(1, BLOCK_FRAMES)
    batch['real'][0, : len(crops)] = True
    for i, (crop, window) in enumerate(zip(crops, log_mel_windows, strict=True)):
      if crop is not None and 'faces' in batch:
        batch['faces'][0, i] = faces.fit(crop, self.config.data.face)
      if 'log_mel' in batch:
        batch['log_mel'][0, i * WINDOW_ROWS : (i + 1) * WINDOW_ROWS] = window
    with self.clock('towers', len(crops)):
      for modality, x in zip(MODALITIES, self.encode(self.variables, batch), strict=True):
        if x is not None:
          self.features[modality].extend(np.asarray(x)[0, : len(crops)])
    self.face_present += [crop is not None for crop in crops]
    self.count += len(crops)
    while self.windows and min(self.windows[0] + self.length, len(self.times)) <= self.count:
      first = self.windows.popleft()
      self.predict_window(first, min(first + self.length, len(self.times)))
      self.forget_before(self.windows[0] if self.windows else self.count)

  def predict_window(self, first: int, end: int):
    """Predicts for the window of frames `first` to `end` - 1, and merges it with those before."""
    mask = (np.arange(self.length) < end - first)[None]

    def window(rows):
      if not rows:  # the system does not use this modality
        return None
      filled = np.stack(rows[first - self.first_kept : end - self.first_kept])
      return np.pad(filled, [(0, self.length - len(filled)), (0, 0)])[None]

    with self.clock('fusion', end - first):
      output = self.decode(self.variables, *map(window, self.features.values()), mask)
      window_output = jax.tree.map(lambda x: np.asarray(x)[0], output)
      flat = flatten_output(window_output, mask[0])
      check_outputs(str(self.folder), flat)
      self.merger.add(np.arange(first, end) + 1, flat)

  def forget_before(self, needed: int):
    """Drops the features of frames that no window to come needs."""
    for rows in self.features.values():
      del rows[: needed - self.first_kept]
    self.first_kept = needed

  def series(self) -> Series:
    """Returns the Series of the video.

    Predictions and gates are NaN on frames without any input that the model uses.
    """
    frames, means = self.merger.means()
    n = len(frames)
    fields = {
      'times': self.times,
      'labels': np.zeros((n, len(self.system.targets))),
      'annotated': np.zeros(n, bool),
      'face_present': np.array(self.face_present),
      'audio_present': self.audio_present,
    }
    series = make_series(frames, means, fields, self.system, self.config.smooth)
    has_input = self.system.inputs.has_input(series.face_present, series.audio_present)
    for values in (series.prediction, *series.gates.values()):
      values[~has_input] = np.nan
    return series


def load_model(folder: pathlib.Path) -> tuple[Config, System, dict]:
  """Returns (config, system, variables) of a run's best state, or of an exported model."""
  if not os.path.lexists(folder / DESCRIPTION):
    # Orbax logs a message for every checkpoint that is opened for reading.
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
      return load_best(folder)[:3]
    finally:
      absl_logging.set_verbosity(before)
  exported = read_exported(folder)
  return exported.config, exported.system, traverse_util.unflatten_dict(exported.weights, sep='/')
