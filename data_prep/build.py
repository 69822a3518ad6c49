"""Makes TFRecord files and their manifest from videos, crops and annotations.

The same input gives the same bytes, with any number of workers and however often the command was
interrupted.
"""

import argparse
import collections
import contextlib
import functools
import itertools
import shutil
import sys

from avjax import errors, files
from avjax.data import manifest, records
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from data_prep import (
  clips,
  cluster,
  contact_sheet,
  contents,
  features,
  found_faces,
  parallel,
  places,
  shards,
  survey,
)
from data_prep.sources import SOURCES

# What else is meant by the source of records.
MADE_FROM = ' (they were made from other files, labels or options of the layout)'
TOLERABLE = {
  'unlisted': 'videos and crops that belong to no clip',
  'out_of_range': 'annotations outside [-1, 1], which then count as missing',
  'subjects': 'subjects and videos that are in several splits',
  'length': f'annotations and videos that differ by more than {clips.MAX_LENGTH_DIFFERENCE} frames',
}


def parse_args(argv=None):
  """Parses the options, including those of the source that --layout chooses.

  Raises InputError if they cannot be used.
  """
  parser = argparse.ArgumentParser(
    prog='python -m data_prep.build',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add_options(parser)
  # The layout decides which other options there are, so it is read first.
  first = argparse.ArgumentParser(prog=parser.prog, add_help=False)
  add_layout(first)
  layout = first.parse_known_args(argv)[0].layout
  SOURCES[layout].add_options(
    parser.add_argument_group(
      f'options of --layout {layout}', description=type(SOURCES[layout]).__doc__.splitlines()[0]
    )
  )
  args = parser.parse_args(argv)
  args.tolerate = sorted(filter(None, args.tolerate.split(',')))
  for option in args.tolerate:
    if option not in TOLERABLE:
      raise InputError(f'--tolerate {option} is unknown; it takes {", ".join(TOLERABLE)}')
  sizes = args.length, args.stride, args.face, args.workers, args.max_shard_mib
  if min(sizes) < 1 or args.stride > args.length:
    raise InputError(
      '--length, --stride, --face, --workers and --max_shard_mib must be at least 1, '
      'and --stride at most --length so that no frame is left out'
    )
  if args.dry_run and args.contact_sheet:
    raise InputError('--dry-run looks at no pictures: leave out --contact_sheet')
  return args


def add_layout(parser):
  parser.add_argument(
    '--layout',
    choices=SOURCES,
    default='affwild2',
    help='how the data set is laid out on disk; it decides the last group of options below '
    '(default: affwild2)',
  )


def add_options(parser):
  """Adds the options that do not depend on the layout of the data set."""
  parser.add_argument(
    '--source',
    required=True,
    type=places.path,
    help='folder of the data set, or gs://BUCKET/FOLDER',
  )
  parser.add_argument(
    '--data_dir',
    required=True,
    type=places.path,
    help='folder to which the records are written, or gs://BUCKET/FOLDER',
  )
  add_layout(parser)
  parser.add_argument('--length', type=int, default=300, help='frames per window (default: 300)')
  parser.add_argument(
    '--stride',
    type=int,
    default=200,
    help='frames from the start of one window to the next (default: 200)',
  )
  parser.add_argument('--face', type=int, default=48, help='side of a face in pixels (default: 48)')
  parser.add_argument(
    '--workers',
    type=int,
    default=parallel.core_count(),
    help='processes that decode clips (default: one per core)',
  )
  parser.add_argument(
    '--scheduler',
    metavar='HOST:PORT',
    help='Dask scheduler whose workers decode the clips in place of processes of this machine; '
    'they need --source and --data_dir under the same paths (docs/launch.md)',
  )
  parser.add_argument(
    '--max_shard_mib', type=int, default=150, help='largest size of one file, in MiB (default: 150)'
  )
  tolerable = ', '.join(f'{name} ({meaning})' for name, meaning in TOLERABLE.items())
  parser.add_argument(
    '--tolerate',
    default='',
    metavar='NAME,...',
    help=f'what to accept that is otherwise refused, separated by commas: {tolerable}',
  )
  parser.add_argument(
    '--features',
    nargs='+',
    action='extend',
    default=[],
    metavar='NAME=DIR',
    help='features of other backbones: folders with one .npy file per clip, row k - 1 for frame k',
  )
  parser.add_argument(
    '--contact_sheet',
    action='store_true',
    help=f'also write a picture of each clip into DATA_DIR/{contact_sheet.FOLDER}: its face at '
    'every second',
  )
  parser.add_argument(
    '--dry-run',
    action='store_true',
    help='read all but the pictures, print what would be built, and write nothing',
  )


def main(argv=None):
  args = parse_args(argv)
  try:
    with places.here(args) as check:
      return build(args, check)
  except KeyboardInterrupt:
    print('interrupted; the same command starts again', file=sys.stderr)
    return 130


def build(args, check):
  """Builds records in a folder; check: function of the folder of finished ones, see places.py."""
  splits = SOURCES[args.layout].plan(args)
  if not any(splits.values()):
    raise InputError(f'{args.source} holds no clips')
  layout = records.Layout(
    args.length, args.stride, args.face, features.widths(itertools.chain(*splits.values()))
  )
  records.check_layout(vars(layout), 'the layout of the records')
  jobs = shards.recorded(splits)
  check_places(jobs, args)
  if args.dry_run:
    print(survey.describe(splits, args.workers))
    return 0
  target = args.data_dir / manifest.NAME / manifest.VERSION
  staging = args.data_dir / f'{manifest.NAME}.incomplete'
  for folder in (target, staging):
    manifest.check_inside(args.data_dir, folder)
  known = contents.read(target.parent)
  source, seen = contents.fingerprint(splits, args.tolerate, known)
  wanted = {'layout': vars(layout), 'source': source, 'max_shard_mib': args.max_shard_mib}
  with files.locked(args.data_dir, busy=f'another build is writing to {args.data_dir}'):
    if target.exists():
      check_same(target, wanted, check)
      keep(target, splits, known, seen, args.workers)
      draw_contact_sheets(jobs, args)
      return 0
    shutil.rmtree(staging, ignore_errors=True)  # left by a build that was killed
    try:
      with (
        cluster.connected(args.scheduler) if args.scheduler else contextlib.nullcontext() as client
      ):
        check_inputs(jobs, args.workers)
        made, clips_seen = shards.write(
          splits,
          layout,
          staging,
          workers=args.workers,
          client=client,
          max_shard_mib=args.max_shard_mib,
        )
      manifest.write_manifest(staging / manifest.NAME / manifest.VERSION, made | wanted)
      target.parent.mkdir(exist_ok=True)
      contents.write(target.parent, seen | clips_seen)
      (staging / manifest.NAME / manifest.VERSION).rename(target)
    finally:
      shutil.rmtree(staging, ignore_errors=True)
    draw_contact_sheets(jobs, args)
  print('\n'.join([*summary(made, target), *survey.remarks(jobs)]))
  return 0


def check_places(jobs, args):
  """Raises InputError, before the first video is decoded, where nothing can be written later.

  That is where --data_dir or the folder of found faces is a file, where no detector of faces is
  installed, and where other crops are in the place of the faces that are to be found.
  """
  mistakes = Mistakes()
  cached = [job.clip.crops for job in jobs if job.face]
  for folder in {args.data_dir, *(crops.parent for crops in cached)}:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with mistakes.caught():
      if not there.is_dir():
        raise InputError(f'{there} is no folder; choose another --data_dir or --crops_cache')
  if cached:
    found_faces.programs()
  for crops in cached:
    with mistakes.caught():
      found_faces.read_made_from(crops)
  mistakes.raise_if_any()


def check_same(target, wanted, check):
  """Raises InputError unless the records that are there have these entries in their manifest."""
  if not (target / manifest.MANIFEST).is_file():
    raise InputError(
      f'{target} exists but has no {manifest.MANIFEST}, so it was not made by this program; '
      'remove it'
    )
  found = check(target)
  differing = [key for key, value in wanted.items() if found.get(key) != value]
  if differing:
    raise InputError(
      f'{target} holds records with a different {" and ".join(differing)}'
      f'{MADE_FROM if "source" in differing else ""}; remove it or choose another --data_dir'
    )


def keep(target, splits, known, seen, workers):
  """Keeps records that are there already, if videos and crops still are what they were made from.

  Args:
    target: folder of the records.
    splits: {split: jobs} of their source.
    known: contents of the source's files when they were made.
    seen: contents of the feature files now.
    workers: processes that read files whose times have changed.

  Raises InputError for clips that have changed.
  """
  jobs = shards.recorded(splits)
  if any(job.clip.name not in known for job in jobs):
    print(f'no {contents.NAME} in {target.parent}: changes within videos and crops are not noticed')
  clips_seen, changed = contents.compare(jobs, known, workers)
  mistakes = Mistakes()
  for name in changed:
    mistakes.add(
      f'clips have other videos or crops than {target} was made from',
      name,
      '; remove it or choose another --data_dir',
    )
  mistakes.raise_if_any()
  if known != (known := known | seen | clips_seen):
    with contextlib.suppress(OSError):  # it only saves time, and others may share these records
      contents.write(target.parent, known)
  print(f'{target} is complete and made from the same source with the same settings: nothing to do')


def check_inputs(jobs, workers):
  """Checks labels in time and features, in seconds, before any video is decoded, in hours.

  Raises InputError for all that do not fit.
  """
  jobs = [job for job in jobs if job.features or job.timed is not None]
  if jobs:
    parallel.ordered_or_mistakes(clips.check_inputs, jobs, workers, 'checked clip')


def draw_contact_sheets(jobs, args):
  """Draws the contact sheets of clips, if they are asked for."""
  if args.contact_sheet:
    draw = functools.partial(contact_sheet.draw, folder=args.data_dir / contact_sheet.FOLDER)
    with parallel.ordered(draw, jobs, args.workers, 'contact sheet') as drawn:
      collections.deque(drawn, maxlen=0)


def summary(made, target):
  """Returns the lines that are printed at the end: the size of each split, and what is masked."""
  counts = [
    (split, len(chunk['clips']), sum(chunk['clips'].values()), chunk['records'])
    for split, chunk in made['chunks'].items()
  ]
  total = ('all', *map(sum, list(zip(*counts, strict=True))[1:]))
  lines = [f'{"split":8}{"clips":>7}{"frames":>11}{"records":>9}']
  lines += [
    f'{split:8}{n:7,}{frames:11,}{windows:9,}' for split, n, frames, windows in [*counts, total]
  ]
  size = sum(shard['bytes'] for shard in made['shards'].values())
  windowed = total[3] * made['layout']['length']
  masked = ', '.join(f'{name.replace("_", " ")} {n:,}' for name, n in made['masked'].items())
  lines += [
    f'features: {name}, {width} numbers a frame'
    for name, width in made['layout']['features'].items()
  ]
  return [
    *lines,
    f'{len(made["shards"])} shards, {size / 1e6:,.1f} MB; masked frames: {masked}',
    f'log-mel: {made["log_mel_bytes"] / max(windowed, 1):.0f} bytes a frame '
    '(a stored window of 96 x 64 would take 12,288)',
    f'records: {target}',
  ]


def run():
  """Runs the console command avjax-prepare."""
  errors.run_command(main, buckets=('--source', '--data_dir'), others=('--scheduler',))


if __name__ == '__main__':
  run()
