"""Predicts valence and arousal of every frame of a video, from a face and the sound."""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import pathlib
import threading
from collections.abc import Generator, Iterable, Sequence

import numpy as np
from tqdm import tqdm

from avjax.errors import InputError
from avjax.inference.engines import check_engine
from avjax.inference.face_source import each_face
from avjax.inference.looking import LookedAt, look_at_all
from avjax.inference.outputs import (
  display,
  move,
  partial_folder,
  write_page,
  write_table,
)
from avjax.inference.overlay import draw
from avjax.inference.prediction import VideoPrediction
from avjax.inference.remarks import interruptions, missing_input, unusual_rate
from avjax.inference.stream import BLOCK_FRAMES, StreamingPredictor
from avjax.inference.timing import Clock
from avjax.media import audio
from avjax.media.writer import ClipWriter
from avjax.system.start import own_settings
from avjax.targets import TARGETS

PAGE_SIDE = 640  # pixels of the longer side of the page's video
OVERLAY_SIDE = 1280  # pixels of the longer side of the overlay


@own_settings()
def predict_video(
  path,
  run,
  output=None,
  face='largest',
  crops=None,
  stride=None,
  overlay=False,
  *,
  film=None,
  sound=None,
  rotate='auto',
  engine='jax',
  formats=(),
) -> VideoPrediction:
  """Predicts valence and arousal for every frame of a video, or from the voice of a sound file.

  Args:
    path: the video, or a file of sound alone.
    run: folder of a run or of an exported model, or a list of two, one for valence and one for
      arousal.
    output: folder for CLIP.csv, CLIP.png and CLIP.html, or None; nothing is overwritten.
    face: whose face: 'largest', 'left', 'right', or N for the N-th largest, from 1.
    crops: folder of aligned faces, 00001.jpg for frame 1; with it no faces are looked for.
    stride: frames from one window to the next, by default as in the run. A smaller stride makes
      smoother curves, and fusion takes longer in proportion.
    overlay: whether to also write a video with the face and the values drawn in.
    film, sound: which track of film or sound is read, from 1, where there are several; by default
      the one that players take.
    rotate: degrees by which the film is turned clockwise, 0, 90, 180 or 270; 'auto' turns a film
      in which the faces are turned.
    engine: what runs the towers, one of `engines.ENGINES`; those of OpenVINO are faster on a CPU
      where the processor computes in bfloat16.
    formats: what else is written into `output` than the CSV, names in `formats.FORMATS`: 'parquet';
      'eaf', annotations of ELAN; 'vtt', subtitles.

  Raises InputError if `path` is not a video or `run` is not a run, if an output exists, or if no
  frame has a face or sound that the model uses.
  """
  check_engine(engine)
  looked_at = {
    'output': output,
    'face': face,
    'crops': crops,
    'overlay': overlay,
    'film': film,
    'sound': sound,
    'rotate': rotate,
    'formats': formats,
  }
  with look_at_all([path], **looked_at) as looks:
    (prediction,) = predict_videos(run, looks, stride, engine)
  if isinstance(prediction, InputError):
    raise prediction
  return prediction


def predict_videos(
  run, looks: Iterable[LookedAt | InputError], stride, engine='jax'
) -> Generator[VideoPrediction | InputError, None, None]:
  """Yields the prediction of each video, or why there is none.

  looks: what `look_at_all` yields. run, stride, engine: as in `predict_video`.
  """
  predictors = load_predictors(run, engine)
  check_stride(predictors, stride)
  for looked in looks:
    if isinstance(looked, InputError):
      yield looked
      continue
    try:
      with looked:
        found = predict_with(predictors, looked, stride)
    except InputError as error:
      yield error
    else:
      yield found


def load_predictors(run: str | pathlib.Path | Sequence, engine='jax') -> list[StreamingPredictor]:
  """Loads one run or several; InputError where two of them predict the same target.

  engine: what runs their towers, one of `engines.ENGINES`.
  """
  folders = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  if not folders:
    raise InputError('no run is given')
  threading.Thread(target=import_ahead).start()  # no daemon: LLVM aborts if it is cut off
  with tqdm(total=0, desc='loading the model', bar_format='{desc}', leave=False, disable=None):
    predictors = [StreamingPredictor(folder, engine) for folder in folders]
  targets = [target for predictor in predictors for target in predictor.system.targets]
  if len(set(targets)) < len(targets):
    raise InputError(
      f'the runs predict {", ".join(targets)}: give one for each of valence and arousal'
    )
  return predictors


def import_ahead():
  """Imports what a video needs later, while the model is compiled, which leaves Python idle.

  Where the run is refused meanwhile, Python ends, and an import may fail of that.
  """
  with contextlib.suppress(Exception):  # a true error is raised again where the import is needed
    audio.log_mel(np.zeros(1, np.int16))  # librosa imports and compiles its parts when used
    importlib.import_module('avjax.reports.plots')


def predict_with(predictors, looked: LookedAt, stride=None) -> VideoPrediction:
  """Predicts for a video in which the person has been found, and writes the files of it.

  predictors: what `load_predictors` returns.
  """
  source, person, outputs = looked.source, looked.person, looked.outputs
  clock, progress = looked.clock, looked.progress
  path, timeline = source.path, source.timeline
  output = next((target.parent for target in outputs.values()), None)
  for predictor in predictors:
    predictor.begin(timeline.times, looked.audio_present, stride, clock)
  check_input(source, predictors, person, looked.audio_present)
  with contextlib.ExitStack() as stack:
    partial = stack.enter_context(partial_folder(output)) if output else None
    log_mel_windows = clock.each('sound', audio.windows(source.sound, looked.first_rows))
    page_video = contextlib.nullcontext()
    if output:
      page_video = ClipWriter(partial / 'clip.mp4', source.sound, timeline, PAGE_SIDE)
    with page_video as writer:
      feed(predictors, source, person, log_mel_windows, writer, clock, progress)
    prediction = collect_prediction(predictors, source, person, clock)
    if output:
      write_table(prediction, path, partial, outputs)
      check_written(writer, path, 'page', output)
      write_page(prediction, path, partial, outputs)
    if 'overlay' in outputs:
      write_overlay(partial / 'overlay.mp4', source, prediction, progress, output)
      move(partial / 'overlay.mp4', outputs['overlay'], private=True)
  return prediction


def check_stride(predictors, stride):
  """Raises InputError for a stride that is no whole number, or longer than the windows of a run."""
  if stride is not None and not isinstance(stride, int):
    raise InputError(f'a stride is a whole number of frames, not {stride!r}')
  for predictor in predictors:
    taken = predictor.stride if stride is None else stride
    if not 1 <= taken <= predictor.length:
      raise InputError(
        f'a stride of {taken} frames is out of range: '
        f'it is 1 to {predictor.length} for {predictor.folder}'
      )


def check_input(source, predictors, person, audio_present):
  """Raises InputError where no frame of a video has anything that a model uses."""
  has_face, has_sound = np.array([person.any_face]), audio_present.any(keepdims=True)
  if not any(predictor.system.inputs.has_input(has_face, has_sound) for predictor in predictors):
    face = 'no face is found in it' if source.has_film else 'it holds no film with a face'
    missing = '' if has_sound else ' and it has no sound'
    raise InputError(f'{source.path}: {face}{missing}; there is nothing to predict from')


def feed(predictors, source, person, log_mel_windows, writer, clock, progress):
  """Decodes the video and feeds the predictors, block by block.

  They work on a block while the next one is decoded. The writer of the page's video, if there is
  one, gets each frame.
  """
  count = len(person.boxes)
  crops, windows = [], []
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    working = None
    for frame, (image, crop) in enumerate(each_face(source, person, clock)):
      crops.append(crop)
      windows.append(next(log_mel_windows))
      if writer:
        with clock('page', 1):
          writer.add(image)
      if len(crops) == BLOCK_FRAMES or frame == count - 1:
        if working:
          working.result()
        working = pool.submit(add_block, predictors, crops, windows)
        crops, windows = [], []
      progress.update()
    if working:
      working.result()


@own_settings()  # of the thread that it runs in
def add_block(predictors, crops, windows):
  """Gives a block of frames to each predictor."""
  for predictor in predictors:
    predictor.add(crops, windows)


def write_overlay(target, source, prediction: VideoPrediction, progress, output):
  """Writes the video with the face and the values drawn in."""
  with ClipWriter(target, source.sound, source.timeline, OVERLAY_SIDE) as writer:
    for frame, image in enumerate(source.frames(OVERLAY_SIDE)):
      writer.add(draw(image, prediction, frame))
      progress.update()
  check_written(writer, source.path, 'overlay', output)


def check_written(writer, path, what, output):
  """Raises InputError where a ClipWriter has failed; the files before it are there."""
  if writer.error:
    raise InputError(
      f'{path}: its {what} cannot be written ({writer.error}); the files without it are in {output}'
    )


def collect_prediction(predictors, source, person, clock: Clock) -> VideoPrediction:
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
  notes += [note for predictor in predictors for note in predictor.notes]
  timeline = source.timeline
  notes += [*source.notes, *missing_input(first), *person.notes]
  notes += [*interruptions(timeline), *unusual_rate(timeline)]
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
