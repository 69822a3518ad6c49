"""Valence and arousal of a video of one's own: python -m avjax.predict clip.mp4 --run RUN --output out/

Writes clip.csv, clip.png and clip.html. From Python: avjax.predict('clip.mp4', 'RUN') gives the same as arrays.
"""

import argparse
import pathlib
import signal
import sys

from avjax import errors
from avjax.errors import InputError
from avjax.inference.outputs import display, output_paths, summary
from avjax.inference.video import load_predictors, predict_with

ENDINGS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.m4v', '.wmv', '.flv', '.3gp', '.ts', '.mts', '.m2ts', '.vob', '.ogv')


def main(argv):
  """Predicts valence and arousal of every frame of a video, or of all videos in a folder."""
  parser = argparse.ArgumentParser(prog='python -m avjax.predict', description=main.__doc__)
  parser.add_argument('videos', metavar='VIDEO', help='a video, or a folder of videos')
  parser.add_argument('--run', required=True, action='append',
                      help='folder of a run or an exported model; given twice, for one of valence and one of arousal')
  parser.add_argument('--output', required=True, help='folder for the CSV, the picture and the page of each video')
  parser.add_argument('--face', default='largest', help='whose face, where there are several: largest, left, right, or N, the N-th largest')
  parser.add_argument('--crops', help='folder of aligned faces, 00001.jpg for frame 1, in place of finding them')
  parser.add_argument('--stride', type=int, help='frames from one window to the next, by default as in the run')
  parser.add_argument('--overlay', action='store_true', help='also a video with the face and the values drawn in')
  arguments = parser.parse_args(argv[1:])
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
  for name in ('SIGTERM', 'SIGHUP'):  # end like Ctrl-C: what is half made goes
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.default_int_handler)
  if hasattr(sys.stdout, 'reconfigure'):
    sys.stdout.reconfigure(errors='backslashreplace')  # names that the terminal cannot show
  path, refused = where, 0
  try:
    predictors = load_predictors(arguments.run)
    for path in videos:
      try:
        result = predict_with(predictors, path, arguments.output, arguments.face, arguments.crops, arguments.stride, arguments.overlay)
      except InputError as error:  # the other videos are as good as before
        if len(videos) == 1:
          raise
        errors.print_error(error)
        refused += 1
      else:
        print(summary(result, path, output_paths(path, arguments.output, arguments.overlay)))
  except KeyboardInterrupt:
    print(f'interrupted: nothing of {display(path)} was kept', file=sys.stderr)
    return 130
  return 2 if refused else 0


if __name__ == '__main__':
  errors.run_command(main, sys.argv)
