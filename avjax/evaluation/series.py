"""Merges overlapping windows into one series per clip.

The predictions of a frame are averaged over the windows that cover it, and smoothed over frames
where the config says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from avjax import targets
from avjax.data.windows import Merger
from avjax.errors import InputError, one_line
from avjax.evaluation.frames import WindowPredictor
from avjax.system import System

# Besides the labels, the record fields that are equal in every window that covers a frame.
CONSTANT_FIELDS = ('times', 'annotated', 'face_present', 'audio_present')
WIDEST = 1_000_000  # frames of a moving average: more than 9 hours at 30 frames a second


@dataclasses.dataclass
class Series:
  """Holds the predictions for one clip, a row per frame.

  frames: (N,) ids, from 1.
  times: (N,) in seconds.
  prediction: (N,targets), in the units of the labels.
  labels: (N,targets); 0 where not annotated.
  annotated, face_present, audio_present: (N,) bool, as in avjax.data.records.
  gates: {name: (N,K)}.
  """

  frames: np.ndarray
  times: np.ndarray
  prediction: np.ndarray
  labels: np.ndarray
  annotated: np.ndarray
  face_present: np.ndarray
  audio_present: np.ndarray
  gates: dict[str, np.ndarray]


def predict_records(
  batches, system: System, variables, mesh, *, batch_size: int, smooth: int | Sequence[int]
) -> dict[str, Series]:
  """Predicts for batches of records, and returns one smoothed series per clip.

  Overlapping windows are averaged per frame.

  Args:
    batches: yields dicts with the fields of avjax.data.records.
    system: the System that predicts.
    variables: of the model, on the devices of the mesh.
    mesh: devices of this process.
    batch_size: windows that are decoded together.
    smooth: frames of the moving average, as `smoothing_widths` takes them.

  Returns {clip: Series} in order of name. Memory grows with the number of frames, not with that of
  windows.
  """
  predictor, clips = WindowPredictor(system, variables, mesh, batch_size), {}
  for record, output in predictor.predict(split_batches(batches, system)):
    fields = {name: record[name] for name in (*CONSTANT_FIELDS, 'labels')}
    clips.setdefault(record['clip'].decode(), WindowMerger()).add(
      record['frames'], record['real'], output, fields
    )
  return {clip: clips.pop(clip).series(system, smooth) for clip in sorted(clips)}


def split_batches(batches, system: System):
  """Yields the records of batches one by one, without the fields that the system does not need."""
  for batch in batches:
    selected = {name: batch[name] for name in ('clip', 'frames', *CONSTANT_FIELDS)}
    selected |= system.select(batch)
    for i in range(len(batch['clip'])):
      yield {name: values[i] for name, values in selected.items()}


class WindowMerger:
  """Merges the windows of one clip.

  Predictions and gates are averaged per frame. The CONSTANT_FIELDS and labels are equal in every
  window, so those of the first one are kept.
  """

  def __init__(self):
    self.rows: dict[int, int] = {}  # {frame id: row}, so that a high id takes no memory
    self.means, self.constants = Merger(), {}

  def add(self, frames, frame_mask, output, fields):
    """Adds a window.

    Args:
      frames: (L,) frame ids, none twice.
      frame_mask: (L,) bool, False on padding.
      output: {'prediction': (L,outputs), 'gates': {name: (L,K)}}.
      fields: {name: (L,...)}, the record's CONSTANT_FIELDS and 'labels'.
    """
    frame_mask = np.asarray(frame_mask, bool)
    ids = np.asarray(frames)[frame_mask].tolist()
    rows = np.array([self.rows.setdefault(frame, len(self.rows)) for frame in ids], np.int64)
    self.means.add(rows, flatten_output(output, frame_mask))
    new = self.means.counts[rows] == 1  # no window before covers these frames
    for name, value in fields.items():
      value = np.asarray(value)
      kept = self.constants.get(name, np.zeros((0, *value.shape[1:]), value.dtype))
      missing = len(self.means.counts) - len(kept)
      kept = np.pad(kept, [(0, missing), *[(0, 0)] * (value.ndim - 1)]) if missing else kept
      kept[rows[new]] = value[frame_mask][new]
      self.constants[name] = kept

  def series(self, system: System, smooth: int | Sequence[int]) -> Series:
    """Returns the Series of the clip, once all its windows have been added."""
    frames = np.array(list(self.rows), np.int64)
    order = np.argsort(frames)
    means = {name: values[order] for name, values in self.means.means()[1].items()}
    fields = {name: kept[order] for name, kept in self.constants.items()}
    return make_series(frames[order], means, fields, system, smooth)


def flatten_output(output, frame_mask):
  """Returns what a model predicts for one window as {'prediction' and 'gates/NAME': (n,...)}.

  Only the n frames of the mask (L,) are kept. `make_series` takes these names.
  """
  gates = {f'gates/{name}': scores for name, scores in output['gates'].items()}
  flat = {'prediction': output['prediction'], **gates}
  return {name: np.asarray(x)[frame_mask] for name, x in flat.items()}


def make_series(frames, means, fields, system: System, smooth: int | Sequence[int]) -> Series:
  """Makes a Series of merged windows, and smooths its predictions.

  Args:
    frames: (N,) ids.
    means: {'prediction': (N,outputs), 'gates/NAME': (N,K)}, averaged over windows.
    fields: {name: (N,...)}, the CONSTANT_FIELDS and 'labels'.
    system: its inputs say which frames count in the smoothing, its targets what outputs mean.
    smooth: as `predict_records` takes it.
  """
  masks = {
    name: np.asarray(fields[name], bool) for name in ('annotated', 'face_present', 'audio_present')
  }
  counted = system.inputs.has_input(masks['face_present'], masks['audio_present'])
  gates = {
    name.removeprefix('gates/'): scores
    for name, scores in means.items()
    if name.startswith('gates/')
  }
  widths = smoothing_widths(smooth, system.targets)
  smoothed = [
    target.decide(moving_average(x, frames, counted, width))
    for (target, x), width in zip(
      targets.split_outputs(system.targets, means['prediction']), widths, strict=True
    )
  ]
  return Series(
    frames,
    np.asarray(fields['times'], np.float64),
    np.stack(smoothed, axis=1).astype(means['prediction'].dtype),
    np.asarray(fields['labels'], np.float64),
    **masks,
    gates=gates,
  )


def smoothing_widths(smooth: int | Sequence[int], names: Sequence[str]) -> list[int]:
  """Returns the frames that the predictions of each of these targets are averaged over.

  smooth: `config.smooth`, one number for all targets or a number for each, in their order; 1 does
    not smooth. Raises InputError for anything else.
  """
  widths = list(smooth) if isinstance(smooth, list | tuple) else [smooth] * len(names)
  valid = all(type(width) is int and 1 <= width <= WIDEST for width in widths)
  if len(widths) != len(names) or not valid:
    each = f', or {len(names)} of them, for {" and ".join(names)}' if len(names) > 1 else ''
    raise InputError(
      f'config.smooth {one_line(repr(smooth))} is out of range: it takes a number of frames, '
      f'1 to {WIDEST}{each}'
    )
  return widths


def moving_average(values, frames, counted, width: int):
  """Computes the centred moving average of values (N,outputs) over `width` frames.

  As in HSEmotion's notebook (configs/hsemotion.py), frames that do not count are filled first: by
  straight lines between the nearest frames that do, before the first and after the last one by its
  value. If none counts, the values are returned as they are.

  Args:
    values: (N,outputs).
    frames: (N,) ids, ascending. A window is a range of ids, not of rows, so that a gap does not
      bring distant frames together. At the ends of a clip, windows are shorter.
    counted: (N,) bool, False where the model had no input.
    width: frames. An even window has one more frame before its centre than after it, as that of
      SciPy's uniform_filter1d, which DCA uses (configs/dca.py).
  """
  if width == 1 or not counted.any():
    return values
  lines = [np.interp(frames, frames[counted], column) for column in values[counted].T]
  filled = np.where(counted[:, None], values, np.stack(lines, axis=1))
  total = np.cumsum(np.pad(filled, ((1, 0), (0, 0))), axis=0)
  first = np.searchsorted(frames, frames - width // 2)
  last = np.searchsorted(frames, frames + (width - 1) // 2, side='right')
  return (total[last] - total[first]) / (last - first)[:, None]
