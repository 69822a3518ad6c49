"""Says what would be built from a data set, and what people should know about its labels and faces.

Videos are opened for the times of their frames, but their pictures are not looked at.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from avjax.data.splits import fold_chunks
from avjax.media.decoder import Decoder
from data_prep import clips, found_faces, labels, parallel
from data_prep.clips import Job

MOST_APART = 1.5  # frames that rounding may put between a time and the frame beside it


@dataclasses.dataclass(frozen=True)
class Counts:
  """Counts what is in a clip.

  frames: of the video, of which those without labels come into no record.
  seconds: that they last. annotated: seconds of the frames that are annotated.
  weight_0: seconds that would be annotated if annotators of weight 0 counted.
  between: seconds that would be annotated if labels were joined whatever lies between them.
  gap: seconds up to which they are joined; 0 where labels are not in time.
  before: rows of labels before the begin of the video, which the build leaves out.
  beyond: rows of labels after the end of the video, which the build leaves out and counts, too.
  after: frames after the last one that is annotated; 0 for a test clip.
  contradiction: of numbers of frames beside times, in frames (`TimedLabels.contradiction`).
  """

  frames: int
  seconds: float
  annotated: float
  weight_0: float
  between: float
  gap: float
  before: int
  beyond: int
  after: int
  contradiction: float


def count(job: Job) -> Counts:
  """Counts what is in a clip; InputError where its video, labels and features do not fit."""
  with Decoder() as decoder:
    times = decoder.timeline(job.clip.video).times
  if not job.ignore_length:
    clips.check_lengths(job, times)
  clips.check_rows(job, len(times))
  _, annotated, beyond = clips.frame_labels(job, times)
  last = max(np.flatnonzero(annotated), default=len(times) - 1)
  period = labels.frame_period(times)
  lost, between, gap, before, contradiction = 0, 0, 0.0, 0, 0.0
  if job.timed is not None:
    alike = dataclasses.replace(job.timed, weights=np.ones_like(job.timed.weights))
    lost = int((alike.on_frames(times)[1] & ~annotated).sum())
    joined = dataclasses.replace(job.timed, gap=np.inf)
    between, gap = int((joined.on_frames(times)[1] & ~annotated).sum()), job.timed.gap
    before = len(job.timed.rows_before(times))
    contradiction = job.timed.contradiction(times)
  return Counts(
    frames=len(times),
    seconds=len(times) * period,
    annotated=float(np.sum(annotated)) * period,
    weight_0=lost * period,
    between=between * period,
    gap=gap,
    before=before,
    beyond=beyond,
    after=len(times) - 1 - int(last),
    contradiction=contradiction,
  )


def describe(splits: Mapping[str, Sequence[Job]], workers: int) -> str:
  """Returns what would be built: clips, subjects and seconds of each split, and `remarks`.

  Args:
    splits: {split: jobs} of a source.
    workers: processes that read the videos.
  """
  planned = [job for members in splits.values() for job in members]
  splits = {split: [job for job in members if job.is_recorded] for split, members in splits.items()}
  jobs = [job for members in splits.values() for job in members]
  counted = parallel.ordered_or_mistakes(count, jobs, workers, 'clip')
  counts = {job.clip.name: found for job, found in zip(jobs, counted, strict=True)}
  width = max(map(len, ('split', 'all', *splits)))
  lines = [
    f'{"split":{width}}{"clips":>7}{"subjects":>10}{"video frames":>14}{"s":>9}{"annotated s":>13}'
  ]
  for split, members in [*splits.items(), ('all', jobs)]:
    found = [counts[job.clip.name] for job in members]
    subjects = len({job.subject for job in members if job.subject is not None})
    lines.append(
      f'{split:{width}}{len(members):7,}{subjects or "-":>10}{sum(c.frames for c in found):14,}'
      f'{sum(c.seconds for c in found):9,.0f}{sum(c.annotated for c in found):13,.1f}'
    )
  lines.append(f'validates: {fold_chunks(0, splits)[1]} (in fold 0, which is trained by default)')
  kinds = collections.Counter('found' if job.face else 'given' for job in jobs)
  lines.append(
    f'faces: given as crops for {kinds["given"]} clips, to be found for {kinds["found"]}'
  )
  lost = sum(found.weight_0 for found in counts.values())
  if lost:
    lines.append(
      f'{lost:,.1f} s are labelled by annotators of weight 0 alone, and so are not annotated'
    )
  between = {name: c.between for name, c in counts.items() if c.between}
  if between:
    most = max(between, key=between.__getitem__)
    lines.append(
      f'{sum(between.values()):,.1f} s lie between labels more than {counts[most].gap:g} s apart, '
      f'most in {most}, and so are not annotated; --label_gap joins such labels'
    )
  apart = {name: c.contradiction for name, c in counts.items() if c.contradiction > MOST_APART}
  if apart:
    most = max(apart, key=apart.__getitem__)
    lines.append(
      f'times and frames of the labels contradict each other in {len(apart)} of the clips, most in '
      f'{most}, by {apart[most]:,.0f} frames of the video: the times count'
    )
  lines += ends(counts)
  if len(jobs) < len(planned):
    lines.append(f'left out, since no frame is annotated: {len(planned) - len(jobs)} clips')
  return '\n'.join([*lines, *agreement(jobs), 'nothing has been written: this is a dry run'])


def ends(counts: Mapping[str, Counts]) -> list[str]:
  """Returns lines on labels that begin before or end after their videos, or end long before.

  counts: {clip: Counts}.
  """
  lines = []
  before = {name: found.before for name, found in counts.items() if found.before}
  if before:
    lines.append(
      f'rows of labels before the begin of the video, which are left out: '
      f'{sum(before.values()):,}, in {len(before)} of the clips, most in '
      f'{max(before, key=before.__getitem__)}'
    )
  beyond = {name: found.beyond for name, found in counts.items() if found.beyond}
  if beyond:
    lines.append(
      f'rows of labels after the end of the video, which are left out: {sum(beyond.values()):,}, '
      f'in {len(beyond)} of the clips, most in {max(beyond, key=beyond.__getitem__)}'
    )
  # Up to so many frames, the two count as equally long elsewhere, too.
  after = {name: c.after for name, c in counts.items() if c.after > clips.MAX_LENGTH_DIFFERENCE}
  if after:
    most = max(after, key=after.__getitem__)
    seconds = after[most] * counts[most].seconds / counts[most].frames
    lines.append(
      f'videos go on for more than {clips.MAX_LENGTH_DIFFERENCE} frames after the last one that is '
      f'annotated in {len(after)} of the clips, longest in {most}: for {seconds:,.1f} s'
    )
  return lines


def agreement(jobs: Sequence[Job]) -> list[str]:
  """Returns lines on several annotators: how much they agree, and their weights if they differ."""
  timed = [job.timed for job in jobs if job.timed is not None]
  found = labels.agreement(timed)
  if found is None:
    return []
  several = [one for one in timed if len({trace.annotator for trace in one.traces}) > 1]
  apart = sum(not labels.share_moments(one) for one in several)
  lines = [f'the annotators of {apart} clips share no moment'] if apart else []
  if apart < len(several):
    valence, arousal = (f'{one:.3f}' if np.isfinite(one) else 'none' for one in found)
    lines.append(
      f'annotators agree by a mean pairwise CCC of {valence} in valence and {arousal} in arousal, '
      f'over {len(several) - apart} clips with several'
    )
  weights = {
    trace.annotator: weight
    for one in several
    for trace, weight in zip(one.traces, one.weights, strict=True)
  }
  if any((weight != 1).any() for weight in weights.values()):
    shown = (f'{name} {v:.3f} and {a:.3f}' for name, (v, a) in sorted(weights.items()))
    lines.append(f'weights of the annotators in valence and arousal: {", ".join(shown)}')
  return lines


def remarks(jobs: Sequence[Job]) -> list[str]:
  """Returns lines on annotators, and on the faces that were found in the videos of clips."""
  shares, lines = {}, []
  for job in jobs:
    made = found_faces.read_made_from(job.clip.crops) if job.face else None
    if made:
      shares[job.clip.name] = made['faces'], made['frames']
      lines += [f'{job.clip.name}: {remark}' for remark in made['remarks']]
  if shares:
    faces, frames = np.sum(list(shares.values()), axis=0)
    fewest = min(shares, key=lambda name: shares[name][0] / shares[name][1])
    least = shares[fewest][0] / shares[fewest][1]
    lines.append(
      f'faces are found in {faces / frames:.1%} of the frames of {len(shares)} clips, least often '
      f'in {fewest}: in {least:.1%}'
    )
  return [*agreement(jobs), *lines]
