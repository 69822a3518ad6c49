"""Describes a clip, decodes its files, joined by frame id, and cuts it into records."""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from avjax.data import windows
from avjax.data.names import check_name
from avjax.data.records import Layout
from avjax.errors import InputError
from avjax.media import audio, faces
from avjax.media.decoder import Decoder
from data_prep import features
from data_prep.labels import TimedLabels, frame_period

# Annotation, crops and decoded video may differ by this many frames; officially they do by a few.
MAX_LENGTH_DIFFERENCE = 30


@dataclasses.dataclass(frozen=True)
class Clip:
  """Names the files of one person in one video.

  annotation: the file of the labels, or a folder with one of each annotator.
  partition: 'train', 'validation' or 'test'; a test clip has no annotation.
  """

  name: str
  video: pathlib.Path
  crops: pathlib.Path
  annotation: pathlib.Path | None
  partition: str

  def __post_init__(self):
    check_name(self.name, 'a clip of the data set')  # here, since every source makes a Clip


@dataclasses.dataclass(frozen=True)
class Job:
  """Holds a clip and what is known about it before its video is opened.

  This is all that a worker process needs to decode the clip.
  """

  clip: Clip
  crop_ids: np.ndarray  # (K,) int32 frames that have a crop, ascending; empty if `face` is given
  labels: np.ndarray | None  # (T,2) float32 valence and arousal; None for a test clip
  annotated: np.ndarray | None  # (T,) bool, True where both were annotated; None for a test clip
  unreadable: frozenset[str]  # crops of any clip that may be broken, such as clip/00026.jpg
  features: dict[str, pathlib.Path]
  ignore_length: bool = False  # whether lengths may differ by more than MAX_LENGTH_DIFFERENCE
  timed: TimedLabels | None = None  # in place of labels and annotated, which are then None
  # Whose face is found in the video (face_source.check_face); the crops of the clip are then made.
  face: str | None = None
  subject: str | None = None  # who the clip shows; None if that is not known

  @property
  def is_labelled(self) -> bool:
    """Whether there are labels; a test clip has none."""
    return self.labels is not None or self.timed is not None

  @property
  def is_recorded(self) -> bool:
    """Whether the clip comes into the records: it has annotated frames, or is a test clip.

    Timed labels always have some, or are refused.
    """
    return self.annotated is None or bool(self.annotated.any())


@dataclasses.dataclass(frozen=True)
class DecodedClip:
  """Holds the n kept frames of a clip, in order, and the log-mel of its whole video.

  Arrays have the types that records.fields gives for one frame; there `labels` is called va, and
  `window_starts` is called starts.
  """

  name: str
  frames: np.ndarray
  times: np.ndarray
  labels: np.ndarray
  annotated: np.ndarray
  faces: np.ndarray
  face_present: np.ndarray
  log_mel: np.ndarray
  window_starts: np.ndarray
  audio_present: np.ndarray
  features: dict[str, np.ndarray]  # {name: (n,D)}
  unreadable: int  # how many crops are masked because they are broken
  cut: int  # how many annotated rows lie beyond the end of the video


def list_crop_ids(clip: Clip) -> np.ndarray:
  """Returns the frames of a clip that have a crop, (K,) int32, ascending.

  Raises InputError if there are none.
  """
  crop_ids = np.array(sorted(faces.list_crops(clip.crops)), np.int32)
  if not crop_ids.size:
    raise InputError(f'{clip.crops} holds no crops such as 00001.jpg')
  return crop_ids


def decode_clip(job: Job, layout: Layout) -> DecodedClip:
  """Reads crops, frame times and sound of a clip's annotated frames.

  A clip without annotation is read at every frame.

  Raises InputError where a file is broken, where lengths differ by more than MAX_LENGTH_DIFFERENCE
  frames, or where features have another number of rows than the video has frames.
  """
  with Decoder() as decoder:
    return decode_with(decoder, job, layout)


def decode_with(decoder: Decoder, job: Job, layout: Layout) -> DecodedClip:
  """Does what `decode_clip` does."""
  timeline = decoder.timeline(job.clip.video)
  if not job.ignore_length:
    check_lengths(job, timeline.times)
  check_rows(job, len(timeline.times))
  labels, annotated, beyond = frame_labels(job, timeline.times)
  kept = kept_frames(job, annotated)
  frames = (kept + 1).astype(np.int32)
  images, face_present, broken = faces.read_faces(
    job.clip.crops, frames, layout.face, job.unreadable
  )
  sound = decoder.sound(job.clip.video, until=timeline.heard_until)
  log_mel, window_starts, audio_present = audio.hear(timeline, sound)
  return DecodedClip(
    name=job.clip.name,
    frames=frames,
    times=timeline.times[kept].astype(np.float32),
    labels=labels[kept],
    annotated=annotated[kept],
    faces=images,
    face_present=face_present,
    log_mel=log_mel,
    window_starts=window_starts[kept],
    audio_present=audio_present[kept],
    features={name: features.read_rows(path, kept) for name, path in job.features.items()},
    unreadable=broken,
    cut=beyond,
  )


def frame_labels(job: Job, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
  """Returns the labels of a clip of n frames; an annotation may have fewer rows than that, T.

  times: (n,) seconds of the frames.

  Returns labels (n or T,2) float32 and annotated (n or T,) bool, both 0 for a test clip, and how
  many annotated rows lie beyond the end of the video. Raises InputError, saying why, for timed
  labels that annotate none of the frames.
  """
  n = len(times)
  if job.timed is not None:
    labels, annotated = job.timed.on_frames(times)
    if not annotated.any():
      raise InputError(
        f'{job.clip.name} has no annotated frame: {job.clip.annotation} {job.timed.why_none(times)}'
      )
    return labels, annotated, len(job.timed.rows_after(times))
  if job.labels is None or job.annotated is None:
    return np.zeros((n, 2), np.float32), np.zeros(n, bool), 0
  return job.labels[:n], job.annotated[:n], int(job.annotated[n:].sum())


def kept_frames(job: Job, annotated: np.ndarray) -> np.ndarray:
  """Returns which frames of a clip come into records: (k,) indices from 0, ascending.

  annotated: (n,) bool, of which a test clip needs only the length.
  """
  return np.flatnonzero(annotated) if job.is_labelled else np.arange(len(annotated))


def check_inputs(job: Job) -> None:
  """Checks labels in time and features of a clip without decoding its video.

  Raises InputError where labels annotate no frame or go on after the end of the video, and where a
  feature file has another number of rows than the video has frames, or a number that is not finite
  in a row that is kept. Only decode_clip can tell that a header counts the frames wrongly.
  """
  with Decoder() as decoder:
    times = np.arange(decoder.frames_in_header(job.clip.video))
    rows = [len(features.open_rows(path)) for path in job.features.values()]
    if job.timed is not None or any(n != len(times) for n in rows):
      times = decoder.timeline(job.clip.video).times
  if job.timed is not None and not job.ignore_length:
    check_lengths(job, times)
  check_rows(job, len(times))
  kept = kept_frames(job, frame_labels(job, times)[1])
  for path in job.features.values():
    features.read_rows(path, kept)


def check_rows(job: Job, n: int) -> None:
  """Raises InputError where a feature file has not one row for each of the n decoded frames."""
  for path in job.features.values():  # never cut to length: any row may be the missing one
    rows = len(features.open_rows(path))
    if rows != n:
      raise InputError(
        f'{path} has {rows} rows, but {job.clip.video} has {n} frames; '
        'write one row for each decoded frame'
      )


def check_lengths(job: Job, times: np.ndarray) -> None:
  """Raises InputError where annotation or crops do not fit the n decoded frames.

  times: (n,) seconds of the frames.
  """
  n, hint = len(times), '; to cut to the shorter, add --tolerate length'
  if job.timed is not None:
    before = job.timed.rows_before(times)
    if len(before) and -before.min() > MAX_LENGTH_DIFFERENCE * frame_period(times):
      raise InputError(
        f'{job.clip.annotation} begins {-before.min():.1f} s before {job.clip.video}: times are in '
        f'seconds from its first frame{hint}'
      )
    after = job.timed.rows_after(times)
    excess = (after.max() - times[-1]) / frame_period(times) if len(after) else 0
    if excess > MAX_LENGTH_DIFFERENCE:
      raise InputError(
        f'{job.clip.annotation} goes on for {after.max() - times[-1]:.1f} s after the end of '
        f'{job.clip.video}, which lasts {times[-1]:.1f} s; is it of another video, or are its '
        f'times not in seconds?{hint}'
      )
  if job.labels is not None and abs(len(job.labels) - n) > MAX_LENGTH_DIFFERENCE:
    raise InputError(
      f'{job.clip.annotation} has {len(job.labels)} rows, but {job.clip.video} has {n} frames{hint}'
    )
  if job.crop_ids.size and job.crop_ids[-1] > n + MAX_LENGTH_DIFFERENCE:
    raise InputError(
      f'{job.clip.crops} goes up to frame {job.crop_ids[-1]}, '
      f'but {job.clip.video} has {n} frames{hint}'
    )


def clip_records(clip: DecodedClip, layout: Layout) -> Iterator[dict[str, Any]]:
  """Yields the records of a decoded clip, window by window, as records.fields describes them."""
  for window, index in enumerate(
    windows.window_indices(len(clip.frames), layout.length, layout.stride)
  ):
    frame_mask = index >= 0
    log_mel_rows, window_starts = audio.keep_rows(
      clip.log_mel, clip.window_starts[index[frame_mask]]
    )
    by_frame = {
      'frames': clip.frames,
      'times': clip.times,
      'va': clip.labels,
      'annotated': clip.annotated,
      'faces': clip.faces,
      'face_present': clip.face_present,
      'audio_present': clip.audio_present,
      **{f'features/{name}': values for name, values in clip.features.items()},
    }
    yield {
      'clip': clip.name,
      'window': window,
      'real': frame_mask,
      'log_mel': log_mel_rows,
      'starts': np.pad(window_starts, (0, layout.length - len(window_starts))),
      **{name: take_or_zero(values, index) for name, values in by_frame.items()},
    }


def take_or_zero(values: np.ndarray, index: np.ndarray) -> np.ndarray:
  """Returns values[index], with zeros where the index is -1."""
  taken = values[index]
  taken[index < 0] = 0
  return taken
