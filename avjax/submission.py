"""Submission files of the ABAW challenge: python -m avjax.submission FILE --template TEMPLATE checks one.

The organisers' format: a header, then a row `<clip>/<00001>.jpg,valence,arousal` for every frame of every test clip, with or
without a face, in the order of their template, which has the same rows with nothing in the last two columns.
"""

import argparse
import sys

from avjax import errors
from avjax.evaluation import submission


def main(argv):
  """Checks a submission file against the organisers' template: every clip, every frame, in order, between -1 and 1."""
  parser = argparse.ArgumentParser(prog='python -m avjax.submission', description=main.__doc__)
  parser.add_argument('file', help='the submission')
  parser.add_argument('--template', required=True, help="the organisers' sample file, such as CVPR_8th_ABAW_VA_test_set_sample.txt")
  arguments = parser.parse_args(argv[1:])
  rows, clips = submission.check(arguments.file, submission.read_template(arguments.template))
  print(f'{arguments.file} is sound: {rows:,} rows of {clips} clips')


def run():
  """The console command avjax-submission."""
  errors.run_command(main, sys.argv)


if __name__ == '__main__':
  run()
