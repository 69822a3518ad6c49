"""Windows -> one series per clip -> CCC. Also `python -m avjax.evaluate RUN [--split validation|test] [--report]`."""

import dataclasses

import jax
import numpy as np

from avjax.data.windows import Merger
from avjax.system import sharding, step

AVERAGED = ('times', 'va', 'annotated', 'face_present', 'audio_present')  # of a record, over windows: the same in each


@dataclasses.dataclass
class Series:
  """One clip, a row a frame: frames (N,) from 1, times (N,) in s, prediction (N,targets), va (N,2), gates {name: (N,K)}.

  The masks (N,) are those of data_prep.records.
  """
  frames: np.ndarray
  times: np.ndarray
  prediction: np.ndarray
  va: np.ndarray
  annotated: np.ndarray
  face_present: np.ndarray
  audio_present: np.ndarray
  gates: dict


def predict_records(batches, predict_step, variables, config, mesh):
  """Runs the model over batches of records, averages overlapping windows per frame, and smooths where the config says so.

  batches yields dicts with the fields of data_prep.records. Returns {clip: Series} in order of name.
  """
  predictions = WindowMerger(predict_step, variables, config, mesh)
  for batch in batches:
    predictions.add(batch)
  return predictions.series()


class WindowMerger:
  """`predict` for batches that come one by one; what is kept grows with the frames, not with the windows that overlap on them."""

  def __init__(self, predict_step, variables, config, mesh):
    self.predict_step, self.variables, self.config, self.mesh, self.clips = predict_step, variables, config, mesh, {}

  def add(self, batch):
    """Runs the model over a batch of records."""
    rows, size = len(batch['clip']), sharding.padded_size(self.config.batch_size, self.mesh)
    device = sharding.shard(sharding.pad_rows(step.on_device(batch, self.config), size), self.mesh)
    output = jax.tree.map(lambda x: x[:rows], sharding.gather(self.predict_step(self.variables, device)))
    for i, clip in enumerate(batch['clip']):
      real = np.asarray(batch['real'][i], bool)
      values = {name: batch[name][i] for name in AVERAGED} | {'prediction': output['prediction'][i]} | {
          f'gates/{name}': scores[i] for name, scores in output['gates'].items()}
      self.clips.setdefault(clip.decode(), Merger()).add(np.asarray(batch['frames'][i])[real], {
          name: np.asarray(value)[real] for name, value in values.items()})

  def series(self):
    """{clip: Series} in order of name, once all windows are in."""
    return {clip: _merged_series(self.clips.pop(clip), self.config) for clip in sorted(self.clips)}


def moving_average(series, frames, counted, width):
  """The centred moving average of (N,targets) over an odd number of frames, by frame id: gaps do not bring distant frames together.

  frames (N,) ascending; counted (N,) bool: the others are left out of every average. Where none is counted the value stays.
  """
  total = np.cumsum(np.pad(np.where(counted[:, None], series, 0), ((1, 0), (0, 0))), axis=0)
  count = np.cumsum(np.pad(counted.astype(int), (1, 0)))
  first, last = np.searchsorted(frames, frames - width // 2), np.searchsorted(frames, frames + width // 2, side='right')
  among = (count[last] - count[first])[:, None]
  return np.where(among > 0, (total[last] - total[first]) / np.maximum(among, 1), series) if width > 1 else series


def _merged_series(merger, config):
  """The Series of a clip whose windows are merged."""
  frames, merged = merger.means()
  gates = {name.removeprefix('gates/'): merged.pop(name) for name in list(merged) if name.startswith('gates/')}
  masks = {name: merged[name] > 0.5 for name in ('annotated', 'face_present', 'audio_present')}
  prediction = moving_average(merged['prediction'], frames, step.seen(config, masks['face_present'], masks['audio_present']), config.smooth)
  return Series(frames, merged['times'], prediction, merged['va'], **masks, gates=gates)
