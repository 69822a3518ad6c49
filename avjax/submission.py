"""Checks a submission file: python -m avjax.submission FILE --template TEMPLATE

avjax/evaluation/submission.py describes the format.
"""

from __future__ import annotations

import argparse
import sys

from avjax import errors, files
from avjax.evaluation import submission

BUCKETS = ('', '--template')  # what may be on a bucket, gs://BUCKET/NAME


def main(argv: list[str]) -> None:
  """Checks a submission file against the organisers' template: every clip and frame is there,
  in order, with values between -1 and 1.
  """
  parser = argparse.ArgumentParser(prog='python -m avjax.submission', description=main.__doc__)
  parser.add_argument('file', help='the submission')
  parser.add_argument(
    '--template',
    required=True,
    help=("the organisers' sample file, such as CVPR_8th_ABAW_VA_test_set_sample.txt"),
  )
  arguments = parser.parse_args(argv[1:])
  template = submission.read_template(files.copy_of_file(arguments.template))
  rows, clips = submission.check(files.copy_of_file(arguments.file), template)
  print(f'{arguments.file} is valid: {rows:,} rows of {clips} clips')


def run() -> None:
  """Runs the console command avjax-submission."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
