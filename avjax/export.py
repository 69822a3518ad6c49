"""Exports a trained model: python -m avjax.export RUN --output MODEL, or --check MODEL

The folder can be used without avjax; avjax/weights/exported.py lists its files.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from absl import logging

from avjax import command_line, errors, files
from avjax.errors import InputError

BUCKETS = ('', '--output', '--check')  # what may be on a bucket, gs://BUCKET/NAME


def main(argv: list[str]) -> None:
  """Writes the best checkpoint of a run as a folder that other programs can load, or checks such a
  folder on this machine.
  """
  parser = argparse.ArgumentParser(prog='python -m avjax.export', description=main.__doc__)
  parser.add_argument(
    'run', metavar='RUN', nargs='?', help='folder of a run (the --workdir it was trained with)'
  )
  parser.add_argument('--output', help='folder to write; it must be new or empty')
  parser.add_argument('--check', metavar='MODEL', help='instead of RUN: an exported folder')
  parser.add_argument(
    '--tolerance',
    type=float,
    help='largest difference that --check accepts, in the unit of the predictions',
  )
  arguments = parser.parse_args(argv[1:])
  logging.set_verbosity(logging.ERROR)
  if bool(arguments.check) == bool(arguments.run) or bool(arguments.run) != bool(arguments.output):
    raise InputError('give RUN and --output MODEL to export, or only --check MODEL')
  # JAX is imported only now that the command line has been accepted.
  if arguments.run:
    command_line.start_jax()
  import jax
  from tqdm import tqdm

  from avjax.runs import copies
  from avjax.weights.exported import DESCRIPTION, check_in_child, export_run

  model = arguments.check or arguments.output
  doing = f'{"checking" if arguments.check else "exporting to"} {model} ...'
  with tqdm(total=0, desc=doing, bar_format='{desc}', leave=False, disable=None):
    if arguments.check:
      folder = pathlib.Path(copies.here(model))
      difference, platform = check_in_child(folder, arguments.tolerance)
    else:
      with files.new_folder(model, last=DESCRIPTION) as folder:
        difference = export_run(copies.here(arguments.run), folder)
      platform = jax.default_backend()
  if arguments.run:
    for path in sorted(folder.iterdir()):
      print(f'{path!s:<40}{path.stat().st_size:>14,} bytes')
  print(
    f'{folder} runs here, on {platform}: '
    f"its predictions differ from the run's by at most {difference:.1e}"
  )


def run() -> None:
  """Runs the console command avjax-export."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
