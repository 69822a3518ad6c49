"""Trains, or goes on training: python -m avjax.main --config=configs/grjca.py --workdir=RUN --config.data.dir=RECORDS

With fold=all (or 0+3) and target=both in the argument of the config, one run after another, each in its own folder of RUN.
With --coordinator, --processes and --process, or --distributed where the cluster tells them, one of several processes.
"""

import pathlib
import sys

from absl import logging

from avjax import command_line, errors
from avjax.training.stop import StopSignal


def main(argv):
  if {'--help', '-h'} & set(argv):
    print(__doc__)
    return 0
  logging.set_verbosity(logging.FATAL)  # the libraries'; avjax has its own log, and what they raise is met
  values, configs = command_line.parse(argv)
  several = bool(values.distributed or values.coordinator)
  with StopSignal(several) as stop:
    return run_all(values, configs, stop)


def run_all(values, configs, stop):
  """Trains the runs one after another; the exit status."""
  import jax

  from avjax.evaluation.results import summarize_run
  from avjax.system import sharding
  from avjax.training import loop
  from avjax.training.plan import (
    prepare,  # JAX and TensorFlow start only once the flags are right
  )
  if stop.several:
    sharding.start(values.coordinator, values.processes, values.process)
  workdirs = {name: pathlib.Path(values.workdir, name) for name in configs}
  if len(configs) > 1:  # what is wrong with the last of twelve runs is said before the first begins
    for name, config in configs.items():
      prepare(config, workdirs[name])
  failed = []
  for name, config in configs.items():
    if name and sharding.is_primary():
      print(f'\n{workdirs[name]}', file=sys.stderr)
    try:
      results = loop.train(config, workdirs[name], stop)
    except SystemExit:  # not finite: the other runs are as good as before
      failed.append(name)
      continue
    if results is None:  # stopped
      return 0
    if sharding.is_primary():
      print(summarize_run(results, config.targets, workdirs[name]))
    jax.clear_caches()
    if name and stop.asked:
      return 0
  if failed and len(configs) > 1:
    print(f'not finite: {", ".join(failed)}', file=sys.stderr)
  return 3 if failed else 0


if __name__ == '__main__':
  errors.run_command(main, sys.argv)

