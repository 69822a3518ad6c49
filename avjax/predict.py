"""Valence and arousal of a video of one's own: python -m avjax.predict clip.mp4 --run RUN --output out/

Writes clip.csv, clip.png and clip.html. From Python: avjax.predict('clip.mp4', 'RUN') gives the same as arrays.
"""

import argparse
import contextlib
import csv
import dataclasses
import itertools
import json
import os
import pathlib
import signal
import sys
import tempfile
import time
import types

import av
import jax
import numpy as np
from absl import logging as absl_logging
from flax import traverse_util
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from avjax import evaluate, export, page, plots, preprocess, sharding, step, weights
from avjax.clip_video import ClipWriter, draw
from avjax.models.audio_visual import make_tower
from avjax.models.layers import evaluation
from data_prep import affwild2, audio, detection, errors, faces, tracking, video
from data_prep.errors import InputError
from data_prep.records import WINDOW_ROWS
from data_prep.windows import window_indices

ENDINGS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.m4v', '.wmv', '.flv', '.3gp', '.ts', '.mts', '.m2ts', '.vob', '.ogv')
BLOCK = 16             # frames that go through the towers at once
LOOKED_AT = 640        # pixels of the longer side in which faces are looked for
CUT_FROM = 1920        # and of the picture that they are cut from
USUAL_RATES = (10, 70)  # frames per second of Aff-Wild2; others are predicted on with a remark


@dataclasses.dataclass
class Prediction:
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
    return [target for target in step.TARGETS if getattr(self, target) is not None]

  @property
  def values(self):
    """(n,targets)"""
    return np.stack([getattr(self, target) for target in self.targets], axis=1)


class Runner:
  """The model of a run, fed with the frames of a video in order. Each frame goes through the towers once, however windows overlap."""

  def __init__(self, folder):
    self.folder = pathlib.Path(folder)
    with export.refused(f'{folder} holds no sound model'):
      self.build(*load(self.folder))

  def build(self, config, variables):
    """Compiles the towers and what lies behind them."""
    self.config, folder = config, self.folder
    self.stride = config.data.stride
    if step.feature_names(self.config):
      raise InputError(f'{folder} was trained on features of another backbone ({", ".join(step.feature_names(self.config))}), '
                       'which a video does not have')
    m, widths, self.towers = self.config.model, {}, {}
    for modality, name in (('visual', 'face'), ('audio', 'voice')):
      if m[modality].tower != 'none':
        tower = make_tower(modality, m[modality].to_dict())
        own = {collection: tree[modality] for collection, tree in variables.items() if modality in tree}
        prepare = self.images if modality == 'visual' else lambda windows: windows.astype(np.float32)
        # The weights are an argument, so that they are not compiled into the program.
        run = jax.jit(lambda own, x, tower=tower, prepare=prepare: tower.apply(own, prepare(x), evaluation))
        self.towers[name] = lambda x, run=run, own=own: np.asarray(run(own, x))
        widths[name] = self.towers[name](self.empty(name)).shape[-1]  # which compiles it
    self.behind = step.without_towers(self.config, widths)
    self.behind.batch_size = 1
    self.rest = {collection: {name: x for name, x in tree.items() if name not in ('visual', 'audio')} for collection, tree in variables.items()}
    self.predict_step = step.make_predict_step(self.behind, step.make_model(self.behind))
    length = self.config.data.length
    self.predict_step(self.rest, {'real': np.ones((1, length), bool), **{
        f'features/{name}': np.zeros((1, length, width), np.float32) for name, width in widths.items()}})  # likewise

  def images(self, crops):
    return preprocess.images(crops[None], self.config.crop)[0]

  def empty(self, name):
    """A block of what a tower takes, all zeros."""
    face = self.config.data.face
    return np.zeros((BLOCK, face, face, 3), np.uint8) if name == 'face' else np.zeros((BLOCK, WINDOW_ROWS, 64), np.float16)

  def begin(self, times, log_mel, starts, audio_present, stride, clock):
    """Makes ready for a video of n frames; arguments as `audio.hear` returns them. stride: frames, or None for the run's. clock: a Clock."""
    self.times, self.log_mel, self.starts, self.audio_present, self.clock = times, log_mel, starts, audio_present, clock
    self.windows = window_indices(len(times), self.config.data.length, stride or self.stride)
    self.window, self.first, self.count = 0, 0, 0
    self.features, self.face_present = {name: [] for name in self.towers}, []
    mesh = sharding.make_mesh(jax.devices()[:1])
    self.predictions = evaluate.Predictions(self.predict_step, sharding.replicate(self.rest, mesh), self.behind, mesh)

  def add(self, crops):
    """Takes the next frames, at most BLOCK: of each a face as a PIL image, or None."""
    inputs = {name: self.empty(name) for name in self.towers}
    for i, crop in enumerate(crops):
      if 'face' in inputs and crop is not None:
        inputs['face'][i] = faces.fit(crop, self.config.data.face)
      if 'voice' in inputs:
        start = self.starts[self.count + i]
        inputs['voice'][i] = self.log_mel[start:start + WINDOW_ROWS]
    with self.clock('towers', len(crops)):
      for name, x in inputs.items():
        self.features[name].extend(self.towers[name](x)[:len(crops)])
    self.face_present += [crop is not None for crop in crops]
    self.count += len(crops)
    while self.window < len(self.windows) and self.windows[self.window].max() < self.count:
      index = self.windows[self.window]
      with self.clock('fusion', (index >= 0).sum()):
        self.predictions.add(self.record(index))
      self.window += 1
      needed = self.windows[self.window][0] if self.window < len(self.windows) else self.count
      for values in (*self.features.values(), self.face_present):
        del values[:needed - self.first]
      self.first = needed

  def record(self, index):
    """A batch of one record, of the frames of a window; -1 is padding."""
    real = index >= 0
    def cut(values, first=0):
      filled = np.asarray(values)[np.where(real, index - first, 0)]
      filled[~real] = 0
      return filled[None]
    return {'clip': [b''], 'real': real[None], 'frames': cut(np.arange(1, len(self.times) + 1)), 'times': cut(self.times),
            'va': np.zeros((1, len(index), 2), np.float32), 'annotated': np.zeros((1, len(index)), bool),
            'face_present': cut(self.face_present, self.first), 'audio_present': cut(self.audio_present),
            **{f'features/{name}': cut(rows, self.first) for name, rows in self.features.items()}}

  def series(self):
    """The evaluate.Series of the video, NaN in prediction and gates where nothing was seen that the model uses."""
    (series,) = self.predictions.series().values()
    seen = step.seen(self.config, series.face_present, series.audio_present)
    for values in (series.prediction, *series.gates.values()):
      values[~seen] = np.nan
    return series


def load(folder):
  """(config, variables) of a run's best state, or of an exported model."""
  if not (folder / 'model.json').exists():
    before = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax remarks on what is opened for reading
    try:
      config, _, variables, _ = evaluate.best(folder)
    finally:
      absl_logging.set_verbosity(before)
    return config, variables
  description, flat = export.read_folder(folder)
  config = ConfigDict(description['config'])
  if json.loads(weights.load(folder / 'weights.safetensors')[1].get('config', 'null')) != description['config']:
    raise InputError(f'{folder}: model.json has been changed: its config is not the one in weights.safetensors')
  shapes = jax.eval_shape(lambda: step.init_variables(config, step.make_model(config), 0))
  wanted = {name: x.shape for name, x in traverse_util.flatten_dict(shapes, sep='/').items()}
  if wanted != {name: x.shape for name, x in flat.items()}:
    raise InputError(f'{folder}: weights.safetensors does not hold the model of model.json; export it again')
  return config, traverse_util.unflatten_dict(flat, sep='/')


class Clock:
  """Seconds and frames of each stage of the work."""

  def __init__(self):
    self.seconds, self.frames = {}, {}

  @contextlib.contextmanager
  def __call__(self, stage, frames):
    start = time.perf_counter()
    yield
    self.seconds[stage] = self.seconds.get(stage, 0) + time.perf_counter() - start
    self.frames[stage] = self.frames.get(stage, 0) + int(frames)

  def each(self, stage, items):
    """The items of an iterator, the time for each counted."""
    iterator = iter(items)
    while True:
      with self(stage, 1):
        item = next(iterator, None)
      if item is None:
        self.frames[stage] -= 1
        return
      yield item

  def speed(self):
    return {stage: self.frames[stage] / seconds for stage, seconds in self.seconds.items()}


def find_person(path, times, face, clock, progress):
  """The face of one person: {frame from 0: (box (4,), points (5,2)) in parts of the picture's width and height}; the cuts of the film."""
  def detections():
    for image in clock.each('decode', itertools.islice(video.read_frames(path, LOOKED_AT), len(times))):
      with clock('faces', 1):
        boxes, points, _ = detection.detect(image)
      nonlocal size, before, cuts
      size = np.array(image.shape[1::-1])
      # A cut of the film changes colours all at once; a face that is where another was may then be somebody else's.
      colours = np.histogramdd(image[::8, ::8].reshape(-1, 3), 4, [(0, 256)] * 3)[0].ravel()
      cuts += before is not None and np.abs(colours - before).sum() > colours.sum()  # more than half have moved
      before = colours
      progress.update()
      yield boxes, points
  size, before, cuts = np.ones(2), None, 0
  track = tracking.choose(tracking.link(times, detections()), face)
  places = zip(track.frames, zip(track.boxes / np.tile(size, 2), track.points / size)) if track else ()
  return dict(places), int(cuts)


def cut_face(image, place):
  """The aligned face of a picture as a PIL image, or None."""
  size = np.array(image.shape[1::-1])
  return None if place is None else Image.fromarray(detection.align(image, place[1] * size))


def predict(path, run, output=None, face='largest', crops=None, stride=None, overlay=False):
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
  return predict_with(make_runners(run), path, output, face, crops, stride, overlay)


def make_runners(run):
  """The Runners of one run or of several; InputError where two predict the same."""
  folders = [run] if isinstance(run, (str, pathlib.Path)) else list(run)
  if not folders:
    raise InputError('no run is given')
  runners = [Runner(folder) for folder in folders]
  targets = [target for runner in runners for target in runner.config.targets]
  if len(set(targets)) < len(targets):
    raise InputError(f'the runs predict {", ".join(targets)}: give one for each of valence and arousal')
  return runners


def predict_with(runners, path, output, face, crops, stride, overlay):
  """`predict` with runs that are loaded."""
  path, clock = pathlib.Path(path), Clock()
  longest = min(runner.config.data.length for runner in runners)
  if stride is not None and not 1 <= stride <= longest:
    raise InputError(f'a stride of {stride} frames leaves some out, or is none: it is 1 to {longest} for these runs')
  if face not in ('largest', 'left', 'right') and not (str(face).isascii() and str(face).isdigit() and int(face)):
    raise InputError(f'face {face} is none of largest, left, right and a number from 1')
  outputs = output_paths(path, output, overlay)
  for target in outputs.values():
    if target.exists():
      raise InputError(f'{target} is there already and is not overwritten; move it, or give another --output')
  timeline = video.read_timeline(path)
  twice = np.flatnonzero(np.diff(timeline.times) <= 0)
  if len(twice):
    raise InputError(f'{path}: frames {twice[0] + 1} and {twice[0] + 2} are shown at the same time; write it anew, with ffmpeg -i IN OUT')
  log_mel, starts, audio_present = audio.hear(timeline, video.SoundReader(path))
  n = len(timeline.times)
  for runner in runners:
    runner.begin(timeline.times, log_mel, starts, audio_present, stride, clock)
  boxes = np.full((n, 4), np.nan)
  with contextlib.ExitStack() as stack:
    stack.enter_context(film_errors(path))
    progress = stack.enter_context(tqdm(total=n * (2 - bool(crops) + overlay), desc=path.name, unit='frame', leave=False,
                                        disable=None))
    known = {k: crop for k, crop in faces.list_crops(affwild2.folder(crops)).items() if 1 <= k <= n} if crops else {}
    if crops and not known:
      raise InputError(f'{crops} holds no crop of frames 1 to {n}, such as 00001.jpg')
    person, cuts = ({}, 0) if crops else find_person(path, timeline.times, face, clock, progress)
    has_face, has_sound = np.array([bool(person or known)]), audio_present.any(keepdims=True)
    if not any(step.seen(runner.config, has_face, has_sound) for runner in runners):
      raise InputError(f'{path}: no face is found in it' + (' and it has no sound' if not has_sound else '')
                       + '; there is nothing to predict from')
    partial = stack.enter_context(partial_folder(output)) if output else None
    writer = stack.enter_context(ClipWriter(partial / 'clip.mp4', path, timeline, 640)) if output else None

    block = []
    for frame, image in enumerate(clock.each('decode', video.read_frames(path, CUT_FROM))):
      if frame == n:
        raise InputError(f'{path} has more frames than its {n} time stamps')
      if crops:
        block.append(faces.open_crop(known[frame + 1]) if frame + 1 in known else None)
      else:
        with clock('faces', 0):
          block.append(cut_face(image, person.get(frame)))
        if frame in person:
          boxes[frame] = person[frame][0]
      if writer:
        with clock('page', 1):
          writer.add(image)
      if len(block) == BLOCK or frame == n - 1:
        for runner in runners:
          runner.add(block)
        block = []
      progress.update()
    if any(runner.count < n for runner in runners):
      raise InputError(f'{path} is damaged: {runners[0].count + len(block)} of its {n} frames can be decoded')
    if writer:
      writer.close()
    result = gather(runners, timeline, boxes, cuts, clock)
    if output:
      if overlay:
        with ClipWriter(partial / 'overlay.mp4', path, timeline, 1280) as drawn:
          for frame, image in enumerate(video.read_frames(path, 1280)):
            drawn.add(draw(image, result, frame))
            progress.update()
      write(result, path, partial, outputs)
  return result


@contextlib.contextmanager
def film_errors(path):
  """Turns what FFmpeg raises into an InputError; what reading raises is one already."""
  try:
    yield
  except av.error.FFmpegError as error:
    raise InputError(f'the film of {path} cannot be written: {error.strerror}') from error


def gather(runners, timeline, boxes, cuts, clock):
  """The Prediction of what the runners have seen."""
  series = [runner.series() for runner in runners]
  first, notes = series[0], [f'{display(runner.folder.resolve())}: {runner.config.model.fusion.name}, {" and ".join(runner.config.targets)}'
                             for runner in runners]
  values, gates = dict.fromkeys(step.TARGETS), {}
  for runner, s in zip(runners, series):
    values |= {target: s.prediction[:, i] for i, target in enumerate(runner.config.targets)}
    prefix = f'{runner.config.targets[0]}/' if len(runners) > 1 else ''
    gates |= {f'{prefix}{name}': scores for name, scores in s.gates.items()}
  n = len(first.frames)
  if not first.face_present.all():
    notes.append(f'no face in {n - first.face_present.sum():,} of {n:,} frames')
  if not first.audio_present.all():
    notes.append('no sound' if not first.audio_present.any() else f'no sound in {n - first.audio_present.sum():,} of {n:,} frames')
  if cuts:
    notes.append(f'{cuts} {"cut" if cuts == 1 else "cuts"} of the film: whose face follows is told by its place and size alone')
  rate = (n - 1) / timeline.times[-1] if n > 1 else 25
  if not USUAL_RATES[0] <= rate <= USUAL_RATES[1]:
    notes.append(f'{rate:.0f} frames a second, unlike what the model was trained on')
  return Prediction(first.frames, timeline.times, values['valence'], values['arousal'], first.face_present, first.audio_present, boxes, gates,
                    notes, clock.speed())


# Files.

def display(path):
  """The name of a file as text for people, whatever bytes it has."""
  name = os.fsencode(pathlib.Path(path).name).decode('utf-8', 'replace')
  return ''.join(c if c.isprintable() else '?' for c in name)



def output_paths(path, output, overlay):
  """{kind: file to write}."""
  if not output:
    return {}
  names = {'csv': f'{path.stem}.csv', 'png': f'{path.stem}.png', 'html': f'{path.stem}.html'}
  names |= {'overlay': f'{path.stem}_overlay.mp4'} if overlay else {}
  if max(len(os.fsencode(name)) for name in names.values()) > 255:
    raise InputError(f'the name of {display(path)} is too long for files beside it')
  return {kind: pathlib.Path(output) / name for kind, name in names.items()}


@contextlib.contextmanager
def partial_folder(output):
  """A folder beside the files to be, which goes with whatever is left in it."""
  with errors.writing(output):
    pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    try:
      with tempfile.TemporaryDirectory(dir=output, prefix='.avjax-') as folder:
        yield pathlib.Path(folder)
    finally:
      with contextlib.suppress(OSError):  # it holds what was made
        pathlib.Path(output).rmdir()


def write(result, path, partial, outputs):
  """Writes the files under `partial`, then moves all of them into place."""
  write_csv(result, path, partial / 'csv')
  plots.clip(result, display(path), partial / 'clip.png')
  page.write(partial / 'html', display(path), partial / 'clip.mp4', result.frames, result.times, result.targets, result.values,
             result.face_found, result.audio_present, result.gates, result.notes)
  made = {'csv': partial / 'csv', 'png': partial / 'clip.png', 'html': partial / 'html', 'overlay': partial / 'overlay.mp4'}
  for kind, target in outputs.items():
    made[kind].replace(target)


def write_csv(result, path, target):
  """A row a frame, under comments with the units: pandas.read_csv(file, comment='#')."""
  with open(target, 'w', newline='', encoding='utf-8') as file:
    file.write(f'# avjax: {display(path)}; {"; ".join(result.notes)}\n'
               '# frame from 1; time in seconds; valence and arousal from -1 to 1, empty where nothing was seen; face_found and '
               'audio_present 0 or 1; gates: share of trust, 0 to 1\n')
    writer = csv.writer(file)
    columns = [(f'gate_{name.replace("/", "_")}_{k}', scores[:, k]) for name, scores in result.gates.items() for k in range(scores.shape[1])]
    writer.writerow(['frame', 'time', *result.targets, 'face_found', 'audio_present', *(name for name, _ in columns)])
    for i, frame in enumerate(result.frames):
      numbers = ['' if np.isnan(x[i]) else f'{x[i]:.6f}' for x in (*result.values.T, *(scores for _, scores in columns))]
      split = len(result.targets)
      writer.writerow([int(frame), f'{result.times[i]:.4f}', *numbers[:split], int(result.face_found[i]), int(result.audio_present[i]),
                       *numbers[split:]])


def summary(result, path, outputs):
  """Lines for the terminal."""
  lines = [f'{display(path)}: {len(result.frames):,} frames, {result.times[-1]:.1f} s']
  for target in result.targets:
    values = getattr(result, target)
    values = values[~np.isnan(values)]
    lines.append(f'{target:<10} mean {values.mean():+.3f}, from {values.min():+.3f} to {values.max():+.3f}' if len(values)
                 else f'{target:<10} nothing was seen that its run uses')
  lines += [*result.notes, 'frames a second: ' + ', '.join(f'{stage} {speed:,.0f}' for stage, speed in result.speed.items())]
  return '\n'.join([*lines, *(str(output.with_name(display(output))) for output in outputs.values())])


def main(argv):
  """Predicts valence and arousal of every frame of a video, or of all videos in a folder."""
  parser = argparse.ArgumentParser(prog='python -m avjax.predict', description=main.__doc__)
  parser.add_argument('videos', metavar='VIDEO', help='a video, or a folder of videos')
  parser.add_argument('--run', required=True, nargs='+', help='folder of a run or an exported model; or two, for valence and for arousal')
  parser.add_argument('--output', required=True, help='folder for the CSV, the picture and the page of each video')
  parser.add_argument('--face', default='largest', help='whose face, where there are several: largest, left, right, or N, the N-th largest')
  parser.add_argument('--crops', help='folder of aligned faces, 00001.jpg for frame 1, in place of finding them')
  parser.add_argument('--stride', type=int, help='frames from one window to the next, by default as in the run')
  parser.add_argument('--overlay', action='store_true', help='also a video with the face and the values drawn in')
  arguments = parser.parse_args(argv[1:])
  if not arguments.output:
    raise InputError('--output names no folder')
  where = pathlib.Path(arguments.videos)
  videos = sorted(path for path in where.iterdir() if path.suffix.lower() in ENDINGS) if where.is_dir() else [where]
  if not videos:
    raise InputError(f'{where} holds no videos')
  if arguments.crops and len(videos) > 1:
    raise InputError('--crops is of a single video')
  if not all(path.exists() for path in videos):
    raise InputError(f'{where} does not exist')
  stems = [path.stem for path in videos]
  twice = next((path for path in videos if stems.count(path.stem) > 1), None)
  if twice:
    raise InputError(f'{where} holds two videos called {twice.stem}: their files would have one name')
  signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C: what is half made goes
  runners, refused = make_runners(arguments.run), 0
  for path in videos:
    try:
      result = predict_with(runners, path, arguments.output, arguments.face, arguments.crops, arguments.stride,
                            arguments.overlay)
      print(summary(result, path, output_paths(path, arguments.output, arguments.overlay)))
    except InputError as error:  # the other videos are as good as before
      if len(videos) == 1:
        raise
      print('error:', ' '.join(str(error).split()), file=sys.stderr)
      refused += 1
    except KeyboardInterrupt:
      print(f'interrupted: nothing of {path} was kept', file=sys.stderr)
      return 130
  return 2 if refused else 0


class _Callable(types.ModuleType):
  """A module that is its own main function: avjax.predict(...)."""

  def __call__(self, *arguments, **keywords):
    return predict(*arguments, **keywords)


if __name__ == '__main__':
  errors.run(main, sys.argv)
else:
  sys.modules[__name__].__class__ = _Callable
