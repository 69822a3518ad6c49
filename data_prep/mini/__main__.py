"""Writes a small synthetic Aff-Wild2 in the official layout: python -m data_prep.mini --output DIR.

Drawn faces and synthesised voices show valence and arousal, so a small model can learn to predict
them. Everything that is awkward in the real set occurs here too. Scores on this set say nothing
about Aff-Wild2. DIR also holds _truth/<clip>.npz (what each person feels, what face and voice show
of it, and when one of the two misleads), unreadable.txt (the broken crop) and mini.json (the
settings).
"""

import argparse
import pathlib

from avjax import errors
from data_prep import mini
from data_prep.mini.latents import PRESETS, Dials


def main(argv=None):
  parser = argparse.ArgumentParser(
    prog='python -m data_prep.mini',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument('--output', required=True, help='folder to write, new or empty')
  parser.add_argument(
    '--layout',
    choices=mini.LAYOUTS,
    default=mini.OFFICIAL,
    help='official: as Aff-Wild2 is distributed; plain: the same videos, crops and labels as a '
    'folder of your own that data_prep.build --layout plain reads (default: official)',
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--videos', type=int, default=40, help=f'how many, at least {len(mini.AWKWARD)} (default: 40)'
  )
  parser.add_argument(
    '--seconds', type=float, default=16.0, help='length of each, 6 to 300 (default: 16)'
  )
  parser.add_argument(
    '--rate',
    type=float,
    default=mini.PLAIN_RATE,
    help='frames per second of the plain videos, 5 to 60 (default: 15)',
  )
  parser.add_argument(
    '--preset',
    choices=PRESETS,
    default='natural',
    help='natural: the face shows valence better, the voice arousal; balanced: both are noisy '
    '(default: natural)',
  )
  parser.add_argument(
    '--rho',
    type=float,
    default=0.1,
    help='share of the time in which face or voice misleads (default: 0.1)',
  )
  parser.add_argument(
    '--anti',
    type=float,
    default=0.5,
    help='what it then shows: 1 the opposite, 0 something unrelated (default: 0.5)',
  )
  parser.add_argument(
    '--kappa',
    type=float,
    default=0.5,
    help='how much it then shows that it misleads: a blurred, dark face or a noisy voice '
    '(default: 0.5)',
  )
  parser.add_argument(
    '--workers',
    type=int,
    help='processes (default: one per core); their number does not change the files',
  )
  args = parser.parse_args(argv)
  complete = (pathlib.Path(args.output) / mini.DONE).exists()
  dials = Dials(args.preset, args.rho, args.anti, args.kappa)
  counts = mini.generate(
    args.output,
    args.seed,
    args.videos,
    seconds=args.seconds,
    rate=args.rate,
    dials=dials,
    workers=args.workers,
    layout=args.layout,
  )
  print(
    f'{args.output}: {counts["videos"]} videos, {counts["clips"]} clips, {counts["frames"]} frames'
    + (', complete already' if complete else '')
  )
  return 0


if __name__ == '__main__':
  errors.run_command(main)
