"""Evaluates a run, or gathers several: python -m avjax.evaluate RUN, or --runs RUNS"""

from __future__ import annotations

import argparse
import functools
import sys

from absl import logging

from avjax import command_line, errors, files

BUCKETS = ('', '--runs', '--template', '--data_dir')  # what may be on a bucket, gs://BUCKET/NAME


def main(argv: list[str]) -> None:
  """Evaluates the best checkpoint of a run, or gathers the runs of several folds and targets;
  writes the results into the folder.
  """
  parser = argparse.ArgumentParser(prog='python -m avjax.evaluate', description=main.__doc__)
  parser.add_argument(
    'run', metavar='RUN', nargs='?', help='folder of a run (the --workdir it was trained with)'
  )
  parser.add_argument(
    '--runs',
    help='instead: a folder of runs of one system; '
    'writes their table, ensemble and submission files',
  )
  parser.add_argument('--split', default='validation', choices=('validation', 'test'))
  parser.add_argument('--report', action='store_true', help='also write RUN/report.html')
  parser.add_argument(
    '--groups',
    metavar='FILE',
    help='CSV with a column name (of clips) or subject and columns of groups, such as sex or site: '
    'also CCC, bias and RMSE of each group',
  )
  parser.add_argument('--latex', metavar='FILE', help='also write the tables as LaTeX (booktabs)')
  parser.add_argument(
    '--template', help="with --runs: the organisers' sample submission, whose rows the new ones get"
  )
  parser.add_argument(
    '--data_dir',
    help='records; by default those the run was trained on, unless they are on a bucket',
  )
  arguments = parser.parse_args(argv[1:])
  logging.set_verbosity(logging.ERROR)
  of_one = arguments.report or arguments.groups or arguments.latex
  wrong = of_one if arguments.runs else arguments.template
  if bool(arguments.run) == bool(arguments.runs) or wrong:
    raise errors.InputError(
      'give RUN with or without --report, --groups FILE and --latex FILE, or --runs DIR with or '
      'without --template FILE'
    )
  # JAX is imported only now that the command line has been accepted.
  command_line.start_jax()
  from avjax.evaluation import protocol
  from avjax.evaluation.results import evaluate_run, summarize_run
  from avjax.reports import tables
  from avjax.runs import copies

  if arguments.runs:
    template = arguments.template and files.copy_of_file(arguments.template)
    evaluate_test = functools.partial(evaluate_run, split='test', data_dir=arguments.data_dir)
    with copies.evaluated(arguments.runs) as runs:
      lines = protocol.gather(runs, evaluate_test, template)
    print('\n'.join(lines))
    return
  if arguments.latex:
    tables.check_latex(arguments.latex)
  with copies.evaluated(arguments.run) as run:
    evaluated = evaluate_run(
      run, arguments.split, arguments.data_dir, arguments.report, arguments.groups
    )
  if evaluated is None:
    raise errors.InputError(
      f'the records of {arguments.run} have no clips of the {arguments.split} partition'
    )
  config, results = evaluated
  if arguments.latex:
    tables.write_latex(arguments.latex, results, config.targets)
  print(summarize_run(results, config.targets, run))


def run() -> None:
  """Runs the console command avjax-evaluate."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
