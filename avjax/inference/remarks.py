"""Says in words what people should know about a video and its prediction."""

from __future__ import annotations

import numpy as np

from avjax.evaluation.series import Series
from avjax.media.video import Timeline

USUAL_RATES = (10, 70)  # frames per second of Aff-Wild2; another rate gets a remark
STILL_SECONDS = 1.0  # a frame that is shown for longer gets a remark


def missing_input(series: Series) -> list[str]:
  """Returns remarks on frames without a face or sound."""
  notes, n = [], len(series.frames)
  if not series.face_present.all():
    notes.append(f'no face in {n - series.face_present.sum():,} of {n:,} frames')
  if not series.audio_present.any():
    notes.append('no sound')
  elif not series.audio_present.all():
    notes.append(f'no sound in {n - series.audio_present.sum():,} of {n:,} frames')
  return notes


def interruptions(timeline: Timeline) -> list[str]:
  """Returns remarks on where a video shows no new frame for long: it may be damaged."""
  times = timeline.times
  gaps = np.diff(times)
  still = np.flatnonzero(gaps > max(STILL_SECONDS, 3 * np.median(gaps))) if len(gaps) else []
  notes = [
    f'no new frame for {times[k + 1] - times[k]:.1f} s after {times[k]:.1f} s' for k in still[:3]
  ]
  if len(still) > 3:
    notes.append(f'and {len(still) - 3} more times')
  end = timeline.start + times[-1] + 1 / timeline.mean_rate
  duration = timeline.container_duration
  if duration and duration > end + STILL_SECONDS:
    notes.append(f'the file says that it lasts {duration:.1f} s; its frames end after {end:.1f} s')
  return notes


def unusual_rate(timeline: Timeline) -> list[str]:
  """Returns a remark on a frame rate unlike those of Aff-Wild2."""
  rate = timeline.mean_rate
  if USUAL_RATES[0] <= rate <= USUAL_RATES[1]:
    return []
  return [f'{rate:.3g} frames a second, unlike what the model was trained on']
