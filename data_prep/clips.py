"""One clip, decoded and joined by frame id, and its cutting into records. What a worker process does."""

import dataclasses

import numpy as np

from avjax.data import windows
from avjax.errors import InputError
from avjax.media import audio, faces, video
from data_prep import features
from data_prep.sources.affwild2 import Clip

MAX_LENGTH_DIFFERENCE = 30  # frames: annotation, crops and decoded video of the official set differ by a few


@dataclasses.dataclass(frozen=True)
class Job:
  """A clip and what is known of it before its video is opened.

  crop_ids (K,) int32 frames that have a crop, K >= 1; va (T,2) and annotated (T,), or None for a test clip; features {name: file}.
  """
  clip: Clip
  crop_ids: np.ndarray
  va: np.ndarray | None
  annotated: np.ndarray | None
  unreadable: frozenset
  features: dict
  ignore_length: bool = False


@dataclasses.dataclass(frozen=True)
class DecodedClip:
  """The n kept frames of a clip, in order, and its whole spectrogram; fields as in records.fields."""
  name: str
  frames: np.ndarray
  times: np.ndarray
  va: np.ndarray
  annotated: np.ndarray
  faces: np.ndarray
  face_present: np.ndarray
  log_mel: np.ndarray
  starts: np.ndarray
  audio_present: np.ndarray
  features: dict   # {name: (n,D)}
  unreadable: int  # crops masked because they are broken
  cut: int         # annotated rows beyond the end of the video


def decode_clip(job, layout):
  """Reads crops, frame times and sound of a clip's annotated frames (of every frame, where there is no annotation).

  Raises InputError where a file is broken, where lengths differ by more than MAX_LENGTH_DIFFERENCE frames, or where features have
  another number of rows than the video has frames.
  """
  timeline = video.read_timeline(job.clip.video)
  n = len(timeline.times)
  if not job.ignore_length:
    compare(job, n)
  for path in job.features.values():  # never cut: a row that is missing may be missing anywhere
    rows = len(features.open_rows(path))
    if rows != n:
      raise InputError(f'{path} has {rows} rows, but {job.clip.video} has {n} frames; make a row for each frame that decoding gives')
  if job.va is None:
    va, annotated = np.zeros((n, 2), np.float32), np.zeros(n, bool)
    kept = np.arange(n)
  else:
    va, annotated = job.va[:n], job.annotated[:n]
    kept = np.flatnonzero(annotated)
  frames = (kept + 1).astype(np.int32)
  images, face_present, broken = faces.read_faces(job.clip.crops, frames, layout.face, job.unreadable)
  rows, starts, audio_present = audio.hear(timeline, video.SoundReader(job.clip.video))
  return DecodedClip(job.clip.name, frames, timeline.times[kept].astype(np.float32), va[kept], annotated[kept], images,
                     face_present, rows, starts[kept], audio_present[kept],
                     {name: features.read_rows(path, kept) for name, path in job.features.items()}, broken,
                     0 if job.va is None else int(job.annotated[n:].sum()))


def compare(job, n):
  """Raises InputError where annotation or crops and the n decoded frames cannot belong together."""
  hint = '; to cut to the shorter, add --tolerate length'
  if job.va is not None and abs(len(job.va) - n) > MAX_LENGTH_DIFFERENCE:
    raise InputError(f'{job.clip.annotation} has {len(job.va)} rows, but {job.clip.video} has {n} frames{hint}')
  if job.crop_ids[-1] > n + MAX_LENGTH_DIFFERENCE:
    raise InputError(f'{job.clip.crops} goes up to frame {job.crop_ids[-1]}, but {job.clip.video} has {n} frames{hint}')


def clip_records(clip, layout):
  """Yields the records of a decoded clip, window by window, as records.fields describes them."""
  for window, index in enumerate(windows.window_indices(len(clip.frames), layout.length, layout.stride)):
    real = index >= 0
    def cut(values):
      filled = values[index]  # where index is -1 this takes the last frame, which the next line wipes out
      filled[~real] = 0
      return filled
    rows, starts = audio.keep_rows(clip.log_mel, clip.starts[index[real]])
    yield {
        'clip': clip.name, 'window': window, 'real': real, 'frames': cut(clip.frames), 'times': cut(clip.times),
        'va': cut(clip.va), 'annotated': cut(clip.annotated), 'faces': cut(clip.faces),
        'face_present': cut(clip.face_present), 'audio_present': cut(clip.audio_present),
        'log_mel': rows, 'starts': np.pad(starts, (0, layout.length - len(starts))),
        **{f'features/{name}': cut(values) for name, values in clip.features.items()},
    }
