"""Puts labels that annotators gave at times of their own on the frames of a video.

A label belongs to a moment: the time that it gives, or the time of the frame that it counts. Less
the annotators' reaction lag, that is the moment of the video which it describes.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from avjax.errors import InputError

DIMENSIONS = 'valence', 'arousal'
COMPARED_RATE = 25  # moments a second at which labels in time are compared between annotators
MOST_SECONDS = 24 * 3600  # that a label may be away from the start of the video
ROUNDING = 1e-6  # seconds: what decimal times such as 0.1 lose in binary


@dataclasses.dataclass(frozen=True)
class Trace:
  """Holds what one annotator wrote about one clip, in m rows.

  annotator: their name, by which their traces of other clips are found.
  places: (m,) float64, ascending: seconds from the first frame, or numbers of frames from 1.
  values: (m,2) float64 valence and arousal in [-1, 1]; NaN where not annotated.
  frames: (m,) float64 numbers of frames beside seconds, NaN for none; they are only compared.
  """

  annotator: str
  places: np.ndarray
  values: np.ndarray
  frames: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class TimedLabels:
  """Holds the labels of a clip before the times of its frames are known.

  traces: one or more of each of K annotators.
  weights: (len(traces),2) float64, 0 or more: of each trace in the mean, for valence and arousal.
  by_frame: whether the places of the traces are numbers of frames.
  lag: seconds by which a label comes later than what it describes.
  gap: seconds up to which two successive labels are joined by a straight line.
  """

  traces: tuple[Trace, ...]
  weights: np.ndarray
  by_frame: bool
  lag: float
  gap: float

  def given(self) -> np.ndarray:
    """Tells for each trace whether it has a value at all: (len(traces),2) bool."""
    return np.array([np.isfinite(trace.values).any(axis=0) for trace in self.traces])

  def seconds(self, trace: Trace, times: np.ndarray) -> np.ndarray:
    """Returns the moments of the video that the m rows of a trace describe, (m,) in seconds.

    times: (n,) of the frames. Frames beyond the last one follow at the mean rate.
    """
    if not self.by_frame:
      return trace.places - self.lag
    return seconds_of(trace.places - 1, times) - self.lag

  def on_frames(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the labels of n frames.

    Each trace is put on the frames by `interpolate`. Then valence and arousal are each the weighted
    mean over those traces that have a value at the frame.

    times: (n,) seconds of the frames, ascending, the first one 0.

    Returns labels (n,2) float32 in [-1, 1], 0 where not annotated; annotated (n,) bool, True where
    there are both values.
    """
    mean = weighted_mean(self.traces_on_frames(times), self.weights[:, None])
    annotated = np.isfinite(mean).all(axis=1)
    return np.where(annotated[:, None], mean, 0).astype(np.float32), annotated

  def traces_on_frames(self, times: np.ndarray) -> np.ndarray:
    """Returns the values of each trace at n frames (len(traces),n,2), NaN for none."""
    near = frame_period(times) / 2
    return np.stack(
      [
        interpolate(self.seconds(trace, times), trace.values, times, gap=self.gap, near=near)
        for trace in self.traces
      ]
    )

  def why_none(self, times: np.ndarray) -> str:
    """Returns why none of n frames is annotated, as the end of a sentence on the clip's labels."""
    found = np.isfinite(self.traces_on_frames(times))
    weighed = (found & (self.weights[:, None] > 0)).any(axis=(0, 1))
    for d, dimension in enumerate(DIMENSIONS):
      if not found[..., d].any():
        places = (
          'frames are counted from the first'
          if self.by_frame
          else ('times are in seconds from its first frame')
        )
        return f'gives no {dimension} within the video, which lasts {times[-1]:.1f} s; {places}'
      if not weighed[d]:
        return (
          f'gives {dimension} within the video only by annotators to whom --annotators ewe gives '
          'the weight 0; take --annotators mean'
        )
    return (
      'gives valence and arousal, but never both for the same frame; do they belong to the same '
      'clip, and does --label_gap join them?'
    )

  def moments(self, times: np.ndarray) -> np.ndarray:
    """Returns the moments of the video, in seconds, that all rows with a value describe."""
    return np.concatenate(
      [self.seconds(trace, times)[np.isfinite(trace.values).any(axis=1)] for trace in self.traces]
    )

  def rows_after(self, times: np.ndarray) -> np.ndarray:
    """Returns the moments, in seconds, of all rows with a value that describe no frame any more.

    They lie more than half a frame after the last of the n frames.
    """
    found, last = self.moments(times), times[-1] + frame_period(times) / 2
    return found[found > last + ROUNDING]

  def rows_before(self, times: np.ndarray) -> np.ndarray:
    """Returns the times, in seconds, of all rows with a value that precede the video.

    They lie more than half a frame before the first of the n frames, also without the lag: with it,
    what was written in the first seconds always describes what was before the video.
    """
    found, first = self.moments(times) + self.lag, times[0] - frame_period(times) / 2
    return found[found < first - ROUNDING]

  def contradiction(self, times: np.ndarray) -> float:
    """Returns how many frames the numbers of frames beside seconds are away from these, at most.

    times: (n,) seconds of the frames, which may be counted from 0 or 1. 0 where none are numbered.
    """
    apart = [
      min(
        np.nanmax(np.abs(seconds_of(trace.frames - first, times) - trace.places))
        for first in (0, 1)
      )
      for trace in self.traces
      if trace.frames is not None and np.isfinite(trace.frames).any()
    ]
    return float(max(apart, default=0)) / frame_period(times)

  def tobytes(self) -> bytes:
    """Returns bytes that differ where the labels do."""
    settings = repr((self.by_frame, self.lag, self.gap, len(self.traces))).encode()
    arrays = [array for trace in self.traces for array in (trace.places, trace.values)]
    return settings + b''.join(
      np.ascontiguousarray(array).tobytes() for array in (*arrays, self.weights)
    )


def frame_period(times: np.ndarray) -> float:
  """Returns the mean seconds from one of n frames to the next; 1/25 where there is only one."""
  return float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 1 / 25


def seconds_of(frames: np.ndarray, times: np.ndarray) -> np.ndarray:
  """Returns the seconds of frames (m,) that are counted from 0, NaN where they are NaN.

  times: (n,) of the frames. Frames beyond the last one follow at the mean rate.
  """
  within = np.clip(np.nan_to_num(frames), 0, len(times) - 1)
  return times[within.astype(int)] + (frames - within) * frame_period(times)


def interpolate(
  moments: np.ndarray, values: np.ndarray, times: np.ndarray, *, gap: float, near: float
) -> np.ndarray:
  """Returns the values of labels at other times.

  At a time between two labels at most `gap` apart it is on the straight line between them. At
  another time it is that of the nearest label, if this is at most `near` away. Elsewhere, and
  where the labels that are used have no value, it is NaN: an empty label is not filled.

  Args:
    moments: (m,) seconds of the labels, ascending, m >= 1.
    values: (m,D) of the labels; NaN for none.
    times: (n,) seconds.
    gap, near: seconds.

  Returns (n,D) float64.
  """
  before = np.searchsorted(moments, times, 'right') - 1  # -1: before the first label
  left, right = np.clip(before, 0, None), np.clip(before + 1, None, len(moments) - 1)
  width = moments[right] - moments[left]
  between = (before >= 0) & (before + 1 < len(moments)) & (width <= gap + ROUNDING)
  share = np.where(between, (times - moments[left]) / np.where(width > 0, width, 1), 0)
  line = values[left] + share[:, None] * (values[right] - values[left])
  nearest = np.where(times - moments[left] <= moments[right] - times, left, right)
  nearest = np.where(before + 1 < len(moments), nearest, left)
  is_near = np.abs(times - moments[nearest]) <= near + ROUNDING
  found = np.where(is_near[:, None], values[nearest], np.nan)
  return np.where(between[:, None] & np.isfinite(line), line, found)


def weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Returns the mean over the first axis of values, without NaN; NaN where nothing has a weight.

  values: (K,n,2). weights: broadcasts to (K,n,2).
  """
  given = np.isfinite(values)
  used = np.where(given, weights, 0)
  total = used.sum(axis=0)
  mean = (used * np.where(given, values, 0)).sum(axis=0) / np.where(total > 0, total, 1)
  return np.where(total > 0, mean, np.nan)


# Agreement of annotators.


def compared(labels: TimedLabels) -> tuple[list[str], np.ndarray]:
  """Returns the annotators of a clip, and their values (K,n,2) at n common moments; NaN for none.

  Labels are joined by straight lines as on frames. The moments are the frames that are counted, of
  which COMPARED_RATE count as a second since the video is not known here, or so many a second.
  """
  first = min(trace.places[0] for trace in labels.traces)
  last = max(trace.places[-1] for trace in labels.traces)
  step = 1 if labels.by_frame else 1 / COMPARED_RATE
  moments = first + step * np.arange(int(np.floor((last - first) / step + ROUNDING)) + 1)
  gap = labels.gap * (COMPARED_RATE if labels.by_frame else 1)
  names = list(dict.fromkeys(trace.annotator for trace in labels.traces))
  rows = np.full((len(names), len(moments), 2), np.nan)
  for trace in labels.traces:  # valence and arousal of one annotator may be two traces
    found = interpolate(trace.places, trace.values, moments, gap=gap, near=step / 2)
    row = rows[names.index(trace.annotator)]
    row[np.isnan(row)] = found[np.isnan(row)]
  return names, rows


def by_annotator(clips: Iterable[TimedLabels]) -> dict[str, np.ndarray]:
  """Returns {annotator: (n,2) values} at the same n moments of all clips, NaN for none.

  Only clips with several annotators count.
  """
  tables = [compared(labels) for labels in clips if len({t.annotator for t in labels.traces}) > 1]
  names = sorted({name for found, _ in tables for name in found})
  lengths = [rows.shape[1] for _, rows in tables]
  joined = {name: np.full((sum(lengths), 2), np.nan) for name in names}
  for start, (found, rows) in zip(itertools.accumulate([0, *lengths]), tables, strict=False):
    for name, values in zip(found, rows, strict=True):
      joined[name][start : start + len(values)] = values
  return joined


def share_moments(labels: TimedLabels) -> bool:
  """Tells whether two annotators of a clip gave a value for the same moment."""
  return bool((np.isfinite(compared(labels)[1]).sum(axis=0) > 1).any())


def agreement(clips: Iterable[TimedLabels]) -> tuple[float, float] | None:
  """Returns the mean pairwise CCC between annotators for valence and for arousal.

  The CCC of a pair is taken over all moments of all clips for which both gave a value. NaN where
  no pair has one, such as for constant labels; None where no clip has several annotators.
  """
  joined = by_annotator(clips)
  if not joined:
    return None
  found = np.array(
    [
      [ccc(*one_dimension(a, b, d)) for d in range(2)]
      for a, b in itertools.combinations(joined.values(), 2)
    ]
  )
  counts = np.isfinite(found).sum(axis=0)
  mean = np.where(counts, np.nansum(found, axis=0) / np.maximum(counts, 1), np.nan)
  return float(mean[0]), float(mean[1])


def one_dimension(a, b, dimension):
  """Returns the values of two (n,2) series in a dimension at those moments that have both."""
  a, b = a[:, dimension], b[:, dimension]
  both = np.isfinite(a) & np.isfinite(b)
  return a[both], b[both]


def ccc(a: np.ndarray, b: np.ndarray) -> float:
  """Returns the concordance correlation coefficient (Lin 1989) of two series (n,).

  NaN where both are constant, or where there are fewer than two values.
  """
  if len(a) < 2 or (np.ptp(a) == 0 and np.ptp(b) == 0):
    return np.nan
  spread = a.var() + b.var() + (a.mean() - b.mean()) ** 2
  return float(2 * ((a - a.mean()) * (b - b.mean())).mean() / spread)


def ewe_weights(clips: Sequence[TimedLabels]) -> dict[str, np.ndarray]:
  """Returns {annotator: (2,) weights of valence and arousal} of the evaluator-weighted estimator.

  The weight of an annotator is the correlation of their values with the mean over all annotators,
  themselves included, over everything that was annotated (Grimm & Kroschel, Evaluation of natural
  emotions using self assessment manikins, ASRU 2005; the formulas are in Schuller, Intelligent
  Audio Analysis, 2013, equations 5.1 to 5.3, and the same reading is in Coutinho et al. 2016). Here
  everything is each moment of all clips for which at least two annotators gave a value. Negative
  weights are set to 0, and so is that of a constant. Annotators who share no moment with anybody
  have the weight 1, by which nothing is weighed. A frame that only annotators of weight 0 labelled
  is not annotated.

  Raises InputError where no two annotators share a moment, and where no annotator has a weight.
  """
  joined = by_annotator(clips)
  weights = {name: np.ones(2) for labels in clips for name in (t.annotator for t in labels.traces)}
  if not any(map(share_moments, clips)):
    raise InputError(
      'no two annotators gave labels for the same moment, so --annotators ewe has no weights; take '
      '--annotators mean'
    )
  values = np.stack(list(joined.values()))
  mean = weighted_mean(values, np.ones(1))
  mean[np.isfinite(values).sum(axis=0) < 2] = np.nan
  for name, own in joined.items():
    for d in range(2):
      a, b = one_dimension(own, mean, d)
      if len(a):
        weights[name][d] = max(correlation(a, b), 0.0)
  for d, dimension in enumerate(DIMENSIONS):
    if not any(weights[name][d] for name in joined):
      raise InputError(
        f'no annotator agrees with the others in {dimension}, so --annotators ewe has no weights; '
        'look at the labels, or take --annotators mean'
      )
  return weights


def correlation(a: np.ndarray, b: np.ndarray) -> float:
  """Returns Pearson's correlation of two series (n,); 0 where one is constant."""
  if np.ptp(a) == 0 or np.ptp(b) == 0:
    return 0.0
  a, b = a - a.mean(), b - b.mean()
  return float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum()))
