"""Measures the memory and speed of avjax.predict, and makes the figures of its docs.

python -m benchmarks.predict --run RUN --clip CLIP --picture CLIP2 --output FOLDER [--only PART ...]

Writes docs/predict.json, docs/predict_page.png, docs/predict_clip.png and the blocks `predict` in
README.md and docs/predict.md.

RUN is a finished run, such as the demo's. CLIP is a video with a face. It is also repeated, at 25
frames per second and 320 pixels wide, to last one minute and thirty minutes. The run of full size
has random weights, which take as much time as trained ones; it is measured with each engine, in
turn, twice each, and the faster of the two counts. OpenVINO must be installed. CLIP2 is the video
that the figures show, and on which the engines are compared.
"""

import argparse
import fractions
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import time

import av
import numpy as np

from avjax import errors
from avjax.inference.engines import ENGINES, check_engine
from avjax.inference.video import predict_video
from avjax.media import detection, video
from avjax.runs import checkpoint
from avjax.runs import folder as run_folder
from avjax.system import System
from benchmarks.pages import fill
from configs import grjca

ROOT = pathlib.Path(__file__).parents[1]
MINUTES, RATE = (1, 30), 25
PARTS = ('pictures', 'small', 'full', 'long')


def repeated(clip, path, minutes):
  """Writes a video that repeats the frames of a clip for some minutes, with a tone as its sound."""
  with av.open(str(path), 'w') as container:
    stream, track = (
      container.add_stream('libx264', rate=RATE, options={'preset': 'ultrafast'}),
      container.add_stream('aac', rate=16_000, layout='mono'),
    )
    images = list(video.read_frames(clip, 320))
    stream.height, stream.width = (side // 2 * 2 for side in images[0].shape[:2])
    stream.pix_fmt = 'yuv420p'
    tone = np.int16(8000 * np.sin(np.arange(16_000 // RATE) / 4))[None]
    for k in range(60 * RATE * minutes):
      container.mux(
        stream.encode(
          av.VideoFrame.from_ndarray(
            images[k % len(images)][: stream.height, : stream.width], format='rgb24'
          )
        )
      )
      sound = av.AudioFrame.from_ndarray(tone, format='s16', layout='mono')
      sound.sample_rate, sound.pts, sound.time_base = (
        16_000,
        k * tone.shape[1],
        fractions.Fraction(1, 16_000),
      )
      container.mux(track.encode(sound))
    container.mux(stream.encode())
    container.mux(track.encode())


def full_size(folder):
  """Makes a run of configs/grjca.py with random weights, unless it is there; returns its folder."""
  config = grjca.get_config()
  if not (folder / 'config.json').exists():
    run_folder.open_folder(config, folder, {}, {})
    checkpoints = checkpoint.Checkpoints(folder)
    checkpoints.save(
      checkpoints.best, 1, System.from_config(config).init(0), {'epoch': 0, 'ccc': 0.0}
    )
    checkpoints.close()
  return folder


def measure(clip, folder, output, engine='jax'):
  """Runs the command in a process of its own and measures it.

  engine: what runs the towers, `--engine`.

  Returns frames, seconds (of the video), wall_seconds, peak_mb, and frames_per_second by stage.
  """
  # VmHWM starts from zero in a new program; ru_maxrss would start from the peak of this process.
  code = (
    'import re, sys, time; from avjax.predict import main; '
    'start = time.perf_counter(); main(sys.argv); '
    'print("PEAK", int(re.search(r"VmHWM:\\s+(\\d+)", '
    'open("/proc/self/status").read())[1]) // 1024, '
    '"WALL", time.perf_counter() - start)'
  )
  arguments = [str(clip), '--run', str(folder), '--output', str(output), '--engine', engine]
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments],
    cwd=ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  frames, seconds = re.search(r': ([\d,]+) frames, ([\d.]+) s', done.stdout).groups()
  stages = re.search(r'frames a second: (.*)', done.stdout)[1].split(', ')
  peak, wall = re.search(r'PEAK (\d+) WALL ([\d.]+)', done.stdout).groups()
  for path in output.iterdir():
    path.unlink()
  return {
    'frames': int(frames.replace(',', '')),
    'seconds': float(seconds),
    'wall_seconds': round(float(wall), 1),
    'peak_mb': int(peak),
    'frames_per_second': {
      stage.rsplit(' ', 1)[0]: int(stage.rsplit(' ', 1)[1].replace(',', '')) for stage in stages
    },
  }


def measure_engines(clip, folder, output):
  """Measures the command with each engine, in turn, twice each: {engine: the faster of its two}."""
  found = [(engine, measure(clip, folder, output, engine)) for engine in 2 * tuple(ENGINES)]
  return {
    engine: min((row for name, row in found if name == engine), key=lambda row: row['wall_seconds'])
    for engine in ENGINES
  }


def differences(clip, folder):
  """Returns {engine: largest difference of a prediction from JAX's} for a clip."""
  found = {engine: predict_video(clip, folder, engine=engine) for engine in ENGINES}
  return {
    engine: max(
      float(np.nanmax(np.abs(values - found['jax'].predictions[target])))
      for target, values in prediction.predictions.items()
    )
    for engine, prediction in found.items()
    if engine != 'jax'
  }


def pictures(clip, folder, output):
  """Writes the figures of the docs: the plot of a clip, and a screenshot of its page."""
  sys.path.insert(0, str(ROOT / 'tests' / 'support'))
  import browser

  predict_video(clip, folder, output, stride=20)
  shutil.copy(output / f'{clip.stem}.png', ROOT / 'docs' / 'predict_clip.png')
  with browser.Browser(1200, 1000) as page:
    page.open(output / f'{clip.stem}.html')
    page.evaluate(
      'new Promise(done => { video.muted = true; video.currentTime = video.duration / 2; '
      'video.onseeked = done })'
    )
    time.sleep(3)  # until Chromium's own spinner has faded
    (ROOT / 'docs' / 'predict_page.png').write_bytes(page.screenshot())
  shutil.rmtree(output)


SUMMARY = """![Video, valence-arousal circle, curves and gates on the page of a clip]\
(docs/predict_page.png)

This page is from the demo's model, which has only seen drawn faces: its numbers mean nothing here.
(Clip: GRID corpus, Cooke et al. 2006, CC BY 4.0.) On {cores} CPU cores the whole command handles \
{demo}
frames per second with the demo's model, and {full} with a model of `configs/grjca.py`."""

DETAILS = """On {cores} CPU cores, with faces found by {detector}, in frames per second:

| model | finding the face | towers | fusion | decoding | writing the page's video | whole command |
|---|---|---|---|---|---|---|
{rows}

The video is {clip}, {frames} frames in {seconds:.0f} s. The column "whole
command" counts from the start of the command and includes the compilation of the model. The towers
of `configs/grjca.py` take {work:.1f} GFLOP per frame, so predicting in real time on two cores \
needs a
smaller model. With OpenVINO the command with full size needs {engine_mb} MB of memory, and \
{full_mb} without.
{differences}

At {rate} frames per second the demo's model needs at most {short} MB of memory for a
video of one minute, and {long} MB for one of thirty. `python -m benchmarks.predict` writes
[predict.json](predict.json) and this block.

This is the file `clip.png` of the clip in README.md (GRID corpus, Cooke et al. 2006, CC BY 4.0):

![Valence and arousal over time, and under them the gates](predict_clip.png)"""


def whole_command(row):
  """The frames per second of the whole command, from a measurement."""
  return f'{row["frames"] / row["wall_seconds"]:.0f}'


def summary(found):
  """Formats what README.md says, from docs/predict.json."""
  return SUMMARY.format(
    cores=found['cores'],
    demo=whole_command(found['small model']),
    full=whole_command(found['full size']),
  )


def differences_line(found):
  """Tells how far predictions by OpenVINO are from those by JAX."""
  models = {'demo': "the demo's model", 'full size': 'one of full size with random weights'}
  parts = [
    f'{difference:.1g} with {models[name]} and `{engine}`'
    for name, row in found.items()
    for engine, difference in row.items()
  ]
  return (
    'On the clip of the figure below predictions differ from those of JAX by at most '
    f'{", ".join(parts[:-1])}, and {parts[-1]}.'
  )


def details(found):
  """Formats what docs/predict.md says, from docs/predict.json and docs/systems.json."""
  rows = []
  titles = {
    'small model': 'demo',
    'full size': '`configs/grjca.py`',
    'full size, openvino': '`configs/grjca.py`, `--engine openvino`',
    'full size, openvino-bfloat16': '`configs/grjca.py`, `--engine openvino-bfloat16`',
  }
  for name, title in titles.items():
    row = found[name]
    speeds = [
      f'{row["frames_per_second"][stage]:,}'
      for stage in ('faces', 'towers', 'fusion', 'decode', 'page')
    ]
    rows.append(f'| {title} | ' + ' | '.join([*speeds, whole_command(row)]) + ' |')
  first = found['small model']
  full = json.loads((ROOT / 'docs' / 'systems.json').read_text())['grjca']
  work = (
    (full['whole']['flops'] - full['without_towers']['flops'])
    / grjca.get_config().data.length
    / 1e9
  )
  return DETAILS.format(
    cores=found['cores'],
    detector=found['detector'],
    rows='\n'.join(rows),
    clip=found['clip'],
    frames=first['frames'],
    seconds=first['seconds'],
    work=work,
    rate=RATE,
    short=found['1 min']['peak_mb'],
    long=found['30 min']['peak_mb'],
    full_mb=found['full size']['peak_mb'],
    engine_mb=found['full size, openvino']['peak_mb'],
    differences=differences_line(found['differences']),
  )


def main():
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.predict', description=__doc__.splitlines()[0]
  )
  for name in ('run', 'clip', 'picture', 'output'):
    parser.add_argument(f'--{name}', required=True, type=pathlib.Path)
  parser.add_argument('--only', nargs='+', choices=PARTS, default=PARTS)
  arguments = parser.parse_args()
  check_engine('openvino')
  output, figures = arguments.output, ROOT / 'docs' / 'predict.json'
  (output / 'out').mkdir(parents=True, exist_ok=True)
  found = json.loads(figures.read_text()) if figures.exists() else {}
  found |= {
    'cores': os.cpu_count(),
    'python': platform.python_version(),
    'clip': arguments.clip.name,
    'detector': detection.detector()[0],
  }
  if 'pictures' in arguments.only:
    pictures(arguments.picture, arguments.run, output / 'pictures')
  if 'small' in arguments.only:
    found['small model'] = measure(arguments.clip, arguments.run, output / 'out')
  if 'full' in arguments.only:
    engines = measure_engines(arguments.clip, full_size(output / 'full'), output / 'out')
    found['full size'] = engines.pop('jax')
    found |= {f'full size, {engine}': row for engine, row in engines.items()}
    folders = {'demo': arguments.run, 'full size': output / 'full'}
    found['differences'] = {
      name: differences(arguments.picture, folder) for name, folder in folders.items()
    }
  if 'long' in arguments.only:
    for minutes in MINUTES:
      long = output / f'{minutes}min.mp4'
      if not long.exists():
        repeated(arguments.clip, long, minutes)
      found[f'{minutes} min'] = measure(long, arguments.run, output / 'out')
    found['memory ratio'] = round(found['30 min']['peak_mb'] / found['1 min']['peak_mb'], 3)
  figures.write_text(json.dumps(found, indent=1) + '\n')
  for page, block in ((ROOT / 'README.md', summary), (ROOT / 'docs' / 'predict.md', details)):
    page.write_text(fill(page.read_text(), 'predict', block(found)))
  print(json.dumps(found, indent=1))


if __name__ == '__main__':
  errors.run_command(main)
