"""What avjax.predict writes of a video: a CSV, a picture, a page, all of them or none, and a summary for the terminal."""

import contextlib
import csv
import os
import pathlib
import tempfile

import numpy as np

from avjax import errors
from avjax.errors import InputError
from avjax.reports import clip_page, plots


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


def check_absent(outputs):
  """InputError where one of the files of `output_paths` is there."""
  for target in outputs.values():
    if target.exists():
      raise InputError(f'{target} is there already and is not overwritten; move it, or give another --output')


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
  clip_page.write(partial / 'html', display(path), partial / 'clip.mp4', result)
  made = {'csv': partial / 'csv', 'png': partial / 'clip.png', 'html': partial / 'html', 'overlay': partial / 'overlay.mp4'}
  check_absent(outputs)  # once more: the work takes long
  moved = []
  try:
    for kind, target in outputs.items():
      made[kind].replace(target)
      moved.append(target)
  except OSError:
    for target in moved:
      target.unlink()
    raise


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
