"""Post-processes predictions as the field does, with parameters fitted on other clips.

The chain is that of the AVEC challenges on RECOLA (Trigeorgis et al. 2016, "Adieu features?",
ICASSP; Tzirakis et al. 2017, IEEE JSTSP 11(8)): a median filter, centring on the mean of the
labels, scaling to their standard deviation, and a shift in time, in this order. Each is kept only
if it raises the CCC of the clips that it is fitted on. They searched filters of 0.4 to 20 s and
shifts of 0.04 to 10 s; the lists below span the same.

CCC after this is not what the model predicts, and is reported beside it, never instead of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import median_filter

from avjax.evaluation import statistics
from avjax.evaluation.series import Series
from avjax.evaluation.statistics import Moments

MEDIAN_SECONDS = (0.4, 1, 2, 4, 8, 12, 20)  # widths of the median filter that are tried
SHIFT_SECONDS = (0.2, 0.4, 0.6, 0.8, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9, 10)  # and delays
FOLDS = 100  # most parts of the units that are left out in turn
STEPS = ('median filter', 'centring', 'scaling', 'shift')


class Chain(NamedTuple):
  """Holds the parameters of all steps; by default a step changes nothing.

  The result at a time t is `scale * (filtered(t - shift) + offset - about) + about`, which is not
  clipped to the range of the labels. Fields are numbers, or arrays with a chain in each place.

  median: width of the median filter, in seconds.
  offset: what centring adds.
  scale, about: the factor of the scaling, and the value that it leaves as it is.
  shift: delay of the prediction, in seconds.
  """

  median: float | np.ndarray = 0.0
  offset: float | np.ndarray = 0.0
  scale: float | np.ndarray = 1.0
  about: float | np.ndarray = 0.0
  shift: float | np.ndarray = 0.0

  def first(self, steps: int) -> Chain:
    """Returns the chain of only the first of STEPS."""
    fields = ('median',), ('offset',), ('scale', 'about'), ('shift',)
    kept = [name for group in fields[:steps] for name in group]
    return Chain(**{name: getattr(self, name) for name in kept})


class Track(NamedTuple):
  """Holds one target of a clip.

  frames: (N,) ids, ascending.
  rate: frames a second, or 0 where the times of the clip are no such thing.
  prediction, label: (N,) in float64.
  annotated: (N,) bool, True somewhere.
  """

  frames: np.ndarray
  rate: float
  prediction: np.ndarray
  label: np.ndarray
  annotated: np.ndarray


def make_track(s: Series, target: int) -> Track:
  """Returns the Track of one target of a Series, which is its column of the predictions."""
  seconds, count = float(s.times[-1]) - float(s.times[0]), float(s.frames[-1] - s.frames[0])
  rate = count / seconds if seconds > 0 else 0.0
  return Track(
    s.frames,
    rate,
    np.asarray(s.prediction[:, target], np.float64),
    s.labels[:, target],
    s.annotated,
  )


def filtered(track: Track, seconds: float) -> Track:
  """Returns the track after a median filter of this width, rounded to an odd number of frames.

  Frames on the two sides of a gap are not brought together. At the ends the outermost value is
  repeated.
  """
  half = min(round(seconds * track.rate / 2), len(track.frames))
  if not half:
    return track
  gaps = np.flatnonzero(np.diff(track.frames) != 1) + 1
  parts = np.split(track.prediction, gaps)
  smooth = [median_filter(part, 2 * half + 1, mode='nearest') for part in parts]
  return track._replace(prediction=np.concatenate(smooth))


def delayed(track: Track, seconds: float) -> tuple[np.ndarray, np.ndarray]:
  """Returns (prediction, label) of the annotated frames, the prediction `seconds` later.

  In gaps it is on a straight line, and before the first frame it is that of the first.
  """
  x, label = track.prediction, track.label[track.annotated]
  if seconds and track.rate:
    x = np.interp(track.frames - seconds * track.rate, track.frames, x)
  return x[track.annotated], label


def finish(track: Track, chain: Chain) -> tuple[np.ndarray, np.ndarray]:
  """Returns (post-processed prediction, label) of the annotated frames of a filtered track."""
  x, label = delayed(track, float(chain.shift))
  return chain.scale * (x + chain.offset - chain.about) + chain.about, label


def fit(units: Sequence[Sequence[Track]], weights: np.ndarray) -> Chain:
  """Fits chains that raise CCC over the frames of weighted units.

  Every filter and every shift is tried on Moments of the units, which are made once, however many
  chains are fitted.

  Args:
    units: the tracks of each unit, at least one with an annotated frame.
    weights: (chains,units) of 0 and 1: which units each chain is fitted on.

  Returns a Chain whose fields are (chains,).
  """

  @functools.cache
  def tracks(median):
    return [[filtered(track, median) for track in unit] for unit in units]

  @functools.cache
  def moments(median, shift):
    return statistics.moments(
      join(delayed(track, shift) for track in unit) for unit in tracks(median)
    )

  def pooled(medians, shift):
    """Returns Moments (chains,) of predictions after the filter of each chain."""
    found = np.empty((len(Moments._fields), len(weights)))
    for median in np.unique(medians):
      rows = medians == median
      found[:, rows] = statistics.pool(moments(median, shift), weights[rows])
    return Moments(*found)

  zeros = np.zeros(len(weights))
  best = statistics.ccc(pooled(zeros, 0.0))
  median = zeros.copy()
  for seconds in MEDIAN_SECONDS:
    trial = statistics.ccc(pooled(np.full_like(zeros, seconds), 0.0))
    median, best = np.where(trial > best, seconds, median), np.fmax(trial, best)
  m = pooled(median, 0.0)
  offset = m.label - m.prediction
  trial = statistics.ccc(m, offset)
  offset, best = np.where(trial > best, offset, 0), np.fmax(trial, best)
  about = m.prediction + offset
  scale = np.sqrt(m.label_square) / np.sqrt(
    np.where(m.prediction_square > 0, m.prediction_square, 1)
  )
  trial = statistics.ccc(m, offset, scale, about)
  scale, best = np.where(trial > best, scale, 1), np.fmax(trial, best)
  shift = zeros.copy()
  for seconds in SHIFT_SECONDS:
    trial = statistics.ccc(pooled(median, seconds), offset, scale, about)
    shift, best = np.where(trial > best, seconds, shift), np.fmax(trial, best)
  return Chain(median, offset, scale, about, shift)


def fit_all(units: Sequence[Sequence[Track]]) -> Chain:
  """Fits one chain on all units; its fields are numbers."""
  return Chain(*(float(x[0]) for x in fit(units, np.ones((1, len(units))))))


def fit_on_others(units: Sequence[Sequence[Track]]) -> list[Chain]:
  """Fits a chain for each of several units, on the others: no unit has a part in its own chain.

  Each is left out alone if there are at most FOLDS units, otherwise together with some more.
  """
  part = np.arange(len(units)) % FOLDS
  rows = min(FOLDS, len(units))
  chains = np.array(fit(units, (part != np.arange(rows)[:, None]).astype(float)))
  return [Chain(*(float(x) for x in chains[:, k])) for k in part]


def join(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
  """Joins pairs (prediction, label), each (N,), to one."""
  predictions, labels = zip(*pairs, strict=True)
  return np.concatenate(predictions), np.concatenate(labels)
