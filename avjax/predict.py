"""Predicts valence and arousal of videos: python -m avjax.predict clip.mp4 --run RUN --output out/

Writes clip.csv, clip.png and clip.html. From Python, avjax.predict_video('clip.mp4', 'RUN') returns
the same as arrays.
"""

import argparse
import pathlib
import signal
import sys

from avjax import command_line, errors, files
from avjax.errors import InputError
from avjax.inference.engines import ENGINES, check_engine
from avjax.inference.formats import FORMATS, check_formats

# fmt: off
ENDINGS = (
  '.mp4', '.avi', '.mov', '.mkv', '.webm', '.mpg', '.mpeg', '.m4v', '.wmv', '.flv', '.3gp', '.ts',
  '.mts', '.m2ts', '.vob', '.ogv',
)
# fmt: on
BUCKETS = ('--run',)  # what may be on a bucket, gs://BUCKET/NAME
INTERRUPTED = 130  # exit status after Ctrl-C, as in a shell


def make_parser():
  """Returns the parser of the command line."""
  parser = argparse.ArgumentParser(prog='python -m avjax.predict', description=main.__doc__)
  parser.add_argument('videos', metavar='VIDEO', help='a video, or a folder of videos')
  parser.add_argument(
    '--run',
    required=True,
    action='append',
    help='folder of a run or an exported model; give two, if valence and arousal have one each',
  )
  parser.add_argument(
    '--output', required=True, help='folder for the CSV, the figure and the page of each video'
  )
  parser.add_argument(
    '--face',
    default='largest',
    help='whose face, where there are several: largest, left, right, or N for the N-th largest',
  )
  parser.add_argument(
    '--crops', help='folder of aligned faces, 00001.jpg for frame 1; no faces are looked for'
  )
  parser.add_argument(
    '--stride', type=int, help='frames from one window to the next, by default as in the run'
  )
  parser.add_argument(
    '--overlay', action='store_true', help='also write a video with face and values drawn in'
  )
  parser.add_argument(
    '--formats',
    default='',
    metavar='NAME,...',
    help='what else to write than the CSV, separated by commas: '
    f'{", ".join(FORMATS)} (eaf is for ELAN, vtt are subtitles)',
  )
  parser.add_argument(
    '--film', type=int, metavar='N', help='which film track, from 1, where there are several'
  )
  parser.add_argument(
    '--sound', type=int, metavar='N', help='which sound track, from 1, where there are several'
  )
  parser.add_argument(
    '--rotate',
    default='auto',
    choices=('auto', '0', '90', '180', '270'),
    help='degrees by which the film is turned clockwise; auto turns it where faces are turned',
  )
  parser.add_argument(
    '--engine',
    default='jax',
    choices=ENGINES,
    help='what runs the towers; on a CPU openvino is faster, and openvino-bfloat16 faster still '
    'and less exact, see docs/predict.md',
  )
  return parser


def main(argv):
  """Predicts valence and arousal of every frame of a video, or of all videos in a folder."""
  arguments = make_parser().parse_args(argv[1:])
  videos = find_videos(pathlib.Path(arguments.videos))
  if arguments.crops and len(videos) > 1:
    raise InputError('--crops takes a single video')
  check_engine(arguments.engine)
  formats = arguments.formats = list(filter(None, arguments.formats.split(',')))
  check_formats(formats)
  # OpenCV, and then JAX, are imported only now that the command line has been accepted.
  from avjax.inference.looking import look_at_all
  from avjax.inference.outputs import display, output_paths, summary

  for name in ('SIGTERM', 'SIGHUP'):  # end like Ctrl-C, so that half-made files are removed
    if hasattr(signal, name):
      signal.signal(getattr(signal, name), signal.default_int_handler)
  options = vars(arguments).copy()
  runs = options.pop('run')
  del options['videos']
  path, refused = videos[0], 0
  try:
    stride, engine = options.pop('stride'), options.pop('engine')
    with look_at_all(videos, **options) as looks:
      command_line.start_jax()
      from avjax.inference.video import predict_videos

      found = predict_videos(runs, looks, stride, engine)
      for path in videos:
        prediction = next(found)
        if not isinstance(prediction, InputError):
          written = output_paths(path, arguments.output, arguments.overlay, formats)
          print(summary(prediction, path, written))
        elif len(videos) == 1:
          raise prediction
        else:  # the other videos are still predicted
          errors.print_error(prediction)
          refused += 1
  except KeyboardInterrupt:
    outputs = output_paths(path, arguments.output, arguments.overlay, formats).values()
    kept = ', '.join(display(output) for output in outputs if output.exists()) or 'nothing'
    print(f'interrupted: {kept} of {display(path)} was kept', file=sys.stderr)
    return INTERRUPTED
  return 2 if refused else 0


def find_videos(where):
  """Returns a list: the video, or the videos in a folder in order of name.

  Raises InputError if there are none, or if two have names that differ only in their ending.
  """
  videos = [where]
  if where.is_dir():
    videos = [path for path in files.visible(where) if path.suffix.lower() in ENDINGS]
  if not videos:
    raise InputError(f'{where} holds no videos')
  if not all(path.exists() for path in videos):
    raise InputError(f'{where} does not exist')
  stems = [path.stem for path in videos]
  twice = next((path for path in videos if stems.count(path.stem) > 1), None)
  if twice:
    raise InputError(
      f'{where} holds two videos called {twice.stem}: their files would have the same names'
    )
  return videos


def run():
  """Runs the console command avjax-predict."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
