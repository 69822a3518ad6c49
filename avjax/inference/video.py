"""Predicts valence and arousal of every frame of a video, from a face and the sound."""

from __future__ import annotations

import collections
import contextlib
import importlib
import pathlib
import threading
from collections.abc import Sequence

import av
import librosa
import numpy as np
from tqdm import tqdm

from avjax.errors import InputError
from avjax.inference.face_source import FoundFaces, GivenFaces
from avjax.inference.outputs import check_absent, display, output_paths, partial_folder, write
from avjax.inference.overlay import draw
from avjax.inference.prediction import VideoPrediction
from avjax.inference.stream import BLOCK_FRAMES, StreamingPredictor
from avjax.inference.timing import Clock
from avjax.media import audio, video
from avjax.media.writer import ClipWriter
from avjax.system.start import own_settings
from avjax.targets import TARGETS

CUT_FROM = 1920  # pixels of the longer side of the frames that faces are cut from
PAGE_SIDE = 640  # pixels of the longer side of the page's video
OVERLAY_SIDE = 1280  # pixels of the longer side of the overlay
USUAL_RATES = (10, 70)  # frames per second of Aff-Wild2; another rate gets a remark
STILL_SECONDS = 1.0  # a frame that is shown for longer gets a remark


@own_settings()
def predict_video(
  path, run, output=None, face='largest', crops=None, stride=None, overlay=False
) -> VideoPrediction:
  """Predicts valence and arousal for every frame of a video.

  Args:
    path: the video.
    run: folder of a run or of an exported model, or a list of two, one for valence and one for
      arousal.
    output: folder for CLIP.csv, CLIP.png and CLIP.html, or None; nothing is overwritten.
    face: whose face: 'largest', 'left', 'right', or N for the N-th largest, from 1.
    crops: folder of aligned faces, 00001.jpg for frame 1; with it no faces are looked for.
    stride: frames from one window to the next, by default as in the run. A smaller stride makes
      smoother curves, and fusion takes longer in proportion.
    overlay: whether to also write a video with the face and the values drawn in.

  Raises InputError if `path` is not a video or `run` is not a run, if an output exists, or if no
  frame has a face or sound that the model uses.
  """
  return predict_with(
    load_predictors(run),
    path,
    output=output,
    face=face,
    crops=crops,
    stride=stride,
    overlay=overlay,
  )


def load_predictors(run: str | pathlib.Path | Sequence) -> list[StreamingPredictor]:
  """Loads one run or several; InputError where two of them predict the same target."""
  folders = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  if not folders:
    raise InputError('no run is given')
  threading.Thread(target=import_ahead, daemon=True).start()
  with tqdm(total=0, desc='loading the model', bar_format='{desc}', leave=False, disable=None):
    predictors = [StreamingPredictor(folder) for folder in folders]
  targets = [target for predictor in predictors for target in predictor.system.targets]
  if len(set(targets)) < len(targets):
    raise InputError(
      f'the runs predict {", ".join(targets)}: give one for each of valence and arousal'
    )
  return predictors


def import_ahead():
  """Imports what a video needs later, while the model is compiled, which leaves Python idle."""
  librosa.stft  # noqa: B018  (librosa imports its parts, and SciPy with them, when they are used)
  importlib.import_module('avjax.reports.plots')


def predict_with(
  predictors, path, *, output=None, face='largest', crops=None, stride=None, overlay=False
) -> VideoPrediction:
  """Predicts as `predict_video` does, with runs that `load_predictors` has loaded."""
  path, clock = pathlib.Path(path), Clock()
  check_options(predictors, output=output, face=face, stride=stride)
  outputs = output_paths(path, output, overlay)
  check_absent(outputs)
  timeline = read_timeline(path)
  sound = video.SoundReader(path)
  collections.deque(
    sound, maxlen=0
  )  # reads the track to its end: only then start and gaps are known
  first_rows, audio_present = audio.place(timeline, sound)
  for predictor in predictors:
    predictor.begin(timeline.times, audio_present, stride, clock)

  passes = 2 - bool(crops) + overlay  # over the frames, which the progress bar counts
  with contextlib.ExitStack() as stack:
    stack.enter_context(writing_errors(path))
    total = passes * len(timeline.times)
    bar = tqdm(total=total, desc=path.name, unit='frame', leave=False, disable=None)
    progress = stack.enter_context(bar)
    if crops:
      person = GivenFaces(crops, len(timeline.times))
    else:
      person = FoundFaces(timeline, clock)
      person.find(path, face, progress)
    check_input(path, predictors, person, audio_present)
    partial = stack.enter_context(partial_folder(output)) if output else None
    log_mel_windows = clock.each('sound', audio.windows(sound, first_rows))
    page_video = contextlib.nullcontext()
    if output:
      page_video = ClipWriter(partial / 'clip.mp4', path, timeline, PAGE_SIDE)
    with page_video as writer:
      feed(predictors, path, person, log_mel_windows, writer, clock, progress)
    prediction = collect_prediction(predictors, timeline, person, clock)
    if output:
      if overlay:
        write_overlay(partial / 'overlay.mp4', path, timeline, prediction, progress)
      write(prediction, path, partial, outputs)
  return prediction


def check_options(predictors, *, output, face, stride):
  """Raises InputError for an option of `predict_video` that is out of its range."""
  if output is not None and not str(output):
    raise InputError('--output is empty; name a folder')
  if stride is not None and not isinstance(stride, int):
    raise InputError(f'a stride is a whole number of frames, not {stride!r}')
  for predictor in predictors:
    taken = predictor.stride if stride is None else stride
    if not 1 <= taken <= predictor.length:
      raise InputError(
        f'a stride of {taken} frames is out of range: '
        f'it is 1 to {predictor.length} for {predictor.folder}'
      )
  number = str(face)
  is_number = number.isascii() and number.isdigit() and int(number)
  if face not in ('largest', 'left', 'right') and not is_number:
    raise InputError(f'face {face} is not one of largest, left, right and a number from 1')


def read_timeline(path) -> video.Timeline:
  """Reads the times of a video's frames; InputError where two of them are the same."""
  timeline = video.read_timeline(path)
  same = np.flatnonzero(np.diff(timeline.times) <= 0)
  if len(same):
    raise InputError(
      f'{path}: frames {same[0] + 1} and {same[0] + 2} are shown at the same time; '
      'convert it with ffmpeg -i IN OUT'
    )
  return timeline


def check_input(path, predictors, person, audio_present):
  """Raises InputError where no frame of a video has anything that a model uses."""
  has_face, has_sound = np.array([person.any_face]), audio_present.any(keepdims=True)
  if not any(predictor.system.inputs.has_input(has_face, has_sound) for predictor in predictors):
    missing = '' if has_sound else ' and it has no sound'
    raise InputError(f'{path}: no face is found in it{missing}; there is nothing to predict from')


def feed(predictors, path, person, log_mel_windows, writer, clock, progress):
  """Decodes the video and feeds the predictors, block by block.

  The writer of the page's video, if there is one, gets each frame.
  """
  count = len(person.boxes)
  crops, windows = [], []
  for frame, image in enumerate(clock.each('decode', video.read_frames(path, CUT_FROM))):
    if frame == count:
      raise InputError(f'{path} has more frames than its {count} time stamps')
    crops.append(person.face(frame, image))
    windows.append(next(log_mel_windows))
    if writer:
      with clock('page', 1):
        writer.add(image)
    if len(crops) == BLOCK_FRAMES or frame == count - 1:
      for predictor in predictors:
        predictor.add(crops, windows)
      crops, windows = [], []
    progress.update()
  decoded = predictors[0].count + len(crops)
  if decoded < count:
    raise InputError(f'{path} is damaged: {decoded} of its {count} frames can be decoded')


def write_overlay(target, path, timeline, prediction: VideoPrediction, progress):
  """Writes the video with the face and the values drawn in."""
  with ClipWriter(target, path, timeline, OVERLAY_SIDE) as writer:
    for frame, image in enumerate(video.read_frames(path, OVERLAY_SIDE)):
      writer.add(draw(image, prediction, frame))
      progress.update()


@contextlib.contextmanager
def writing_errors(path):
  """Turns what FFmpeg raises while a video is written into an InputError.

  Errors of reading are InputErrors already.
  """
  try:
    yield
  except av.error.FFmpegError as error:
    raise InputError(f'the output video of {path} cannot be written: {error.strerror}') from error


def collect_prediction(predictors, timeline, person, clock: Clock) -> VideoPrediction:
  """Joins what the predictors give for one video."""
  series = [predictor.series() for predictor in predictors]
  first, found, gates = series[0], {}, {}
  for predictor, s in zip(predictors, series, strict=True):
    found |= {target: s.prediction[:, i] for i, target in enumerate(predictor.system.targets)}
    prefix = f'{predictor.system.targets[0]}/' if len(predictors) > 1 else ''
    gates |= {f'{prefix}{name}': scores for name, scores in s.gates.items()}
  notes = [
    f'{display(predictor.folder.resolve())}: {predictor.config.model.fusion.name}, '
    f'{" and ".join(predictor.system.targets)}'
    for predictor in predictors
  ]
  notes += [*missing_input(first), *person.notes, *interruptions(timeline), *unusual_rate(timeline)]
  return VideoPrediction(
    frames=first.frames,
    times=timeline.times,
    predictions={target: found[target] for target in TARGETS if target in found},
    face_found=first.face_present,
    audio_present=first.audio_present,
    boxes=person.boxes,
    gates=gates,
    notes=notes,
    speed=clock.speed(),
  )


def missing_input(series) -> list[str]:
  """Returns remarks on frames without a face or sound."""
  notes, n = [], len(series.frames)
  if not series.face_present.all():
    notes.append(f'no face in {n - series.face_present.sum():,} of {n:,} frames')
  if not series.audio_present.any():
    notes.append('no sound')
  elif not series.audio_present.all():
    notes.append(f'no sound in {n - series.audio_present.sum():,} of {n:,} frames')
  return notes


def interruptions(timeline: video.Timeline) -> list[str]:
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


def unusual_rate(timeline: video.Timeline) -> list[str]:
  """Returns a remark on a frame rate unlike those of Aff-Wild2."""
  rate = timeline.mean_rate
  if USUAL_RATES[0] <= rate <= USUAL_RATES[1]:
    return []
  return [f'{rate:.3g} frames a second, unlike what the model was trained on']
