"""Valence and arousal of a video of one's own: python -m avjax.predict clip.mp4 --run RUN --output out/

Writes clip.csv, clip.png and clip.html. From Python: avjax.predict('clip.mp4', 'RUN') gives the same as arrays.
"""

import collections
import contextlib
import dataclasses
import pathlib

import av
import numpy as np
from tqdm import tqdm

from avjax.errors import InputError
from avjax.inference.face_source import FoundFaces, GivenFaces
from avjax.inference.outputs import (
  check_absent,
  display,
  output_paths,
  partial_folder,
  write,
)
from avjax.inference.overlay import draw
from avjax.inference.stream import BLOCK, StreamingPredictor
from avjax.inference.timing import Clock
from avjax.media import audio, video
from avjax.media.writer import ClipWriter
from avjax.system import step
from avjax.targets import TARGETS

CUT_FROM = 1920        # pixels of the longer side of the picture that faces are cut from
USUAL_RATES = (10, 70)  # frames per second of Aff-Wild2; others are predicted on with a remark
STILL = 1.0            # seconds with one picture; more is remarked on


@dataclasses.dataclass
class VideoPrediction:
  """What is predicted for the n frames of a video; NaN where nothing was seen or heard that the model uses.

  frames (n,) from 1; times (n,) in s; valence and arousal (n,) in [-1, 1], or None where no run predicts it; face_found and
  audio_present (n,) bool; boxes (n,4) left, top, width, height of the face in parts of the picture, NaN without one; gates {name: (n,K)},
  the share of trust in each column; notes: remarks for people; speed {stage: frames per second}.
  """
  frames: np.ndarray
  times: np.ndarray
  valence: np.ndarray | None
  arousal: np.ndarray | None
  face_found: np.ndarray
  audio_present: np.ndarray
  boxes: np.ndarray
  gates: dict
  notes: list
  speed: dict

  @property
  def targets(self):
    return [target for target in TARGETS if getattr(self, target) is not None]

  @property
  def values(self):
    """(n,targets)"""
    return np.stack([getattr(self, target) for target in self.targets], axis=1)


def predict_video(path, run, output=None, face='largest', crops=None, stride=None, overlay=False):
  """Valence and arousal of every frame of a video.

  Args:
    path: the video.
    run: folder of a run or of an exported model, or a list of two, one for valence and one for arousal.
    output: folder for CLIP.csv, CLIP.png and CLIP.html, or None; nothing is overwritten.
    face: whose: 'largest', 'left', 'right', or the N-th largest, from 1.
    crops: folder of aligned faces, 00001.jpg for frame 1, to be taken in place of finding them.
    stride: frames from one window to the next, by default as in the run; fewer make curves smoother, and cost fusion in proportion.
    overlay: whether to write the video with the face and the values drawn in.

  Returns a Prediction. Raises InputError for what is no video, no run, or shows and sounds nothing that the model uses.
  """
  return predict_with(load_predictors(run), path, output, face, crops, stride, overlay)


def load_predictors(run):
  """The Runners of one run or of several; InputError where two predict the same."""
  folders = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  if not folders:
    raise InputError('no run is given')
  predictors = [StreamingPredictor(folder) for folder in folders]
  targets = [target for predictor in predictors for target in predictor.config.targets]
  if len(set(targets)) < len(targets):
    raise InputError(f'the runs predict {", ".join(targets)}: give one for each of valence and arousal')
  return predictors


def predict_with(predictors, path, output, face, crops, stride, overlay):
  """`predict` with runs that are loaded."""
  path, clock = pathlib.Path(path), Clock()
  if output is not None and not str(output):
    raise InputError('--output names no folder')
  if stride is not None and not isinstance(stride, int):
    raise InputError(f'a stride is a whole number of frames, not {stride!r}')
  for predictor in predictors:
    taken, length = predictor.stride if stride is None else stride, predictor.config.data.length
    if not 1 <= taken <= length:
      raise InputError(f'a stride of {taken} frames leaves some out, or is none: it is 1 to {length} for {predictor.folder}')
  if face not in ('largest', 'left', 'right') and not (str(face).isascii() and str(face).isdigit() and int(face)):
    raise InputError(f'face {face} is none of largest, left, right and a number from 1')
  outputs = output_paths(path, output, overlay)
  check_absent(outputs)
  timeline = video.read_timeline(path)
  twice = np.flatnonzero(np.diff(timeline.times) <= 0)
  if len(twice):
    raise InputError(f'{path}: frames {twice[0] + 1} and {twice[0] + 2} are shown at the same time; write it anew, with ffmpeg -i IN OUT')
  n, sound = len(timeline.times), video.SoundReader(path)
  collections.deque(sound, maxlen=0)  # reads it through
  starts, audio_present = audio.place(timeline, sound)
  for predictor in predictors:
    predictor.begin(timeline.times, audio_present, stride, clock)
  with contextlib.ExitStack() as stack:
    stack.enter_context(film_errors(path))
    progress = stack.enter_context(tqdm(total=n * (2 - bool(crops) + overlay), desc=path.name, unit='frame', leave=False,
                                        disable=None))
    person = GivenFaces(crops, n) if crops else FoundFaces(path, timeline, face, clock, progress)
    has_sound = audio_present.any(keepdims=True)
    if not any(step.seen(predictor.config, np.array([person.seen]), has_sound) for predictor in predictors):
      raise InputError(f'{path}: no face is found in it' + (' and it has no sound' if not has_sound else '')
                       + '; there is nothing to predict from')
    partial = stack.enter_context(partial_folder(output)) if output else None
    writer = stack.enter_context(ClipWriter(partial / 'clip.mp4', path, timeline, 640)) if output else None

    block, heard, windows = [], [], clock.each('sound', audio.windows(sound, starts))
    for frame, image in enumerate(clock.each('decode', video.read_frames(path, CUT_FROM))):
      if frame == n:
        raise InputError(f'{path} has more frames than its {n} time stamps')
      block.append(person.face(frame, image))
      heard.append(next(windows))
      if writer:
        with clock('page', 1):
          writer.add(image)
      if len(block) == BLOCK or frame == n - 1:
        for predictor in predictors:
          predictor.add(block, heard)
        block, heard = [], []
      progress.update()
    if any(predictor.count < n for predictor in predictors):
      raise InputError(f'{path} is damaged: {predictors[0].count + len(block)} of its {n} frames can be decoded')
    if writer:
      writer.close()
    result = collect_prediction(predictors, timeline, person, clock)
    if output:
      if overlay:
        with ClipWriter(partial / 'overlay.mp4', path, timeline, 1280) as drawn:
          for frame, image in enumerate(video.read_frames(path, 1280)):
            drawn.add(draw(image, result, frame))
            progress.update()
      write(result, path, partial, outputs)
  return result


def interruptions(timeline):
  """Remarks on where a film shows nothing new for long: it may be damaged, and what can be read of it is predicted."""
  times = timeline.times
  gaps = np.diff(times)
  still = np.flatnonzero(gaps > max(STILL, 3 * np.median(gaps))) if len(gaps) else []
  notes = [f'no new picture for {times[k + 1] - times[k]:.1f} s from {times[k]:.1f} s on' for k in still[:3]]
  if len(still) > 3:
    notes.append(f'and {len(still) - 3} times more')
  end = timeline.start + times[-1] + 1 / timeline.mean_rate
  if timeline.container_duration and timeline.container_duration > end + STILL:
    notes.append(f'the file says that it lasts {timeline.container_duration:.1f} s; its pictures end after {end:.1f} s')
  return notes


@contextlib.contextmanager
def film_errors(path):
  """Turns what FFmpeg raises into an InputError; what reading raises is one already."""
  try:
    yield
  except av.error.FFmpegError as error:
    raise InputError(f'the film of {path} cannot be written: {error.strerror}') from error


def collect_prediction(predictors, timeline, person, clock):
  """The Prediction of what the runners have seen."""
  series = [predictor.series() for predictor in predictors]
  first, notes = series[0], [f'{display(predictor.folder.resolve())}: {predictor.config.model.fusion.name}, {" and ".join(predictor.config.targets)}'
                             for predictor in predictors]
  values, gates = dict.fromkeys(TARGETS), {}
  for predictor, s in zip(predictors, series):
    values |= {target: s.prediction[:, i] for i, target in enumerate(predictor.config.targets)}
    prefix = f'{predictor.config.targets[0]}/' if len(predictors) > 1 else ''
    gates |= {f'{prefix}{name}': scores for name, scores in s.gates.items()}
  n = len(first.frames)
  if not first.face_present.all():
    notes.append(f'no face in {n - first.face_present.sum():,} of {n:,} frames')
  if not first.audio_present.all():
    notes.append('no sound' if not first.audio_present.any() else f'no sound in {n - first.audio_present.sum():,} of {n:,} frames')
  notes += [*person.notes, *interruptions(timeline)]
  rate = timeline.mean_rate
  if not USUAL_RATES[0] <= rate <= USUAL_RATES[1]:
    notes.append(f'{rate:.3g} frames a second, unlike what the model was trained on')
  return VideoPrediction(first.frames, timeline.times, values['valence'], values['arousal'], first.face_present, first.audio_present, person.boxes, gates,
                    notes, clock.speed())
