"""Trains a model, or continues a run that was stopped.

  python -m avjax.main --config=configs/grjca.py --workdir=RUN --config.data.dir=RECORDS

With fold=all (or 0+3) or target=both in the argument of the config it trains several runs one after
another, each in its own folder under RUN. To train with several processes, start the command in
each of them with --coordinator, --processes and --process, or with --distributed.
"""

import sys

from absl import logging

from avjax import command_line, errors, files
from avjax.training.stop import StopSignal

# What may be on a bucket, gs://BUCKET/NAME.
BUCKETS = (
  '--workdir',
  '--config.data.dir',
  '--config.resume',
  '--config.init.model',
  '--config.init.visual',
  '--config.init.audio',
)
NOT_FINITE = 3  # exit status if the loss or gradient of a run stays not finite


def main(argv):
  """Runs the command; returns its exit status."""
  if {'--help', '-h'} & set(argv):
    print(f'{__doc__}\n{command_line.flag_help()}')
    return 0
  # This silences only the libraries: avjax has its own log, and handles what they raise.
  logging.set_verbosity(logging.FATAL)
  values, configs = command_line.parse(argv)
  several = bool(values.distributed or values.coordinator)
  with StopSignal(several) as stop:
    return train_all(values, configs, stop)


def train_all(values, configs, stop):
  """Trains the runs {name: config} one after another; returns the exit status.

  If a run diverges, the others are still trained, and the status is NOT_FINITE, even if a later run
  is stopped. A stop that was asked for is not a failure.
  """
  # JAX and TensorFlow are imported only now that the command line has been accepted.
  cluster = (values.coordinator, values.processes, values.process) if stop.several else None
  command_line.start_jax(cluster)
  import jax

  from avjax.evaluation import results
  from avjax.runs import copies
  from avjax.system import sharding
  from avjax.training import loop, plan
  from avjax.training.state import Diverged

  with sharding.ending_at_once():
    workdirs = {name: files.below(values.workdir, name) for name in configs}
    if len(configs) > 1:  # an error in the last run shows before the first run begins
      for name, config in configs.items():
        plan.prepare(config, copies.here(workdirs[name], copies.SettingsCopy))
    diverged = []
    for name, config in configs.items():
      if name and sharding.is_primary():
        print(f'\n{workdirs[name]}', file=sys.stderr)
      try:
        with copies.trained(workdirs[name]) as workdir:
          found = loop.train(config, workdir, stop)
          summary = found and results.summarize_run(found, config.targets, workdir)
      except Diverged:
        diverged.append(name)
        continue
      if found is None:  # stopped
        break
      if sharding.is_primary():
        print(summary)
      jax.clear_caches()
      if name and stop.asked:
        break
    if diverged and len(configs) > 1:
      print(f'not finite: {", ".join(diverged)}', file=sys.stderr)
    return NOT_FINITE if diverged else 0


def run():
  """Runs the console command avjax-train."""
  errors.run_command(main, sys.argv, buckets=BUCKETS)


if __name__ == '__main__':
  run()
