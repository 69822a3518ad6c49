"""Trains or goes on training: python -m avjax.main --config=configs/grjca.py --workdir=RUN --config.data.dir=RECORDS"""

import os
import sys

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')

from absl import flags
from absl import logging as absl_logging
from ml_collections import config_flags

from avjax.config import flatten, nearest
from data_prep import errors

CONFIG = config_flags.DEFINE_config_file('config', None, 'Config file, with its argument after a colon.', lock_config=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run; one that exists is resumed.')


def parse(argv):
  """Parses flags; any mistake in them is an InputError of one line."""
  if any(a in ('--help', '-h', '--helpshort', '--helpfull') for a in argv):
    print(f'{__doc__}\n\n{flags.FLAGS.main_module_help()}')
    sys.exit(0)
  path = next((a.split('=', 1)[1].split(':')[0] for a in argv if a.startswith('--config=')), None)
  if path is None:
    raise errors.InputError('no --config; try --config=configs/grjca.py')
  if not os.path.isfile(path):
    raise errors.InputError(f'config file {path} does not exist')
  try:
    rest = flags.FLAGS(argv)[1:]
  except errors.InputError:
    raise
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.InputError(explain(argv, error)) from error
  if rest:
    raise errors.InputError(f'unexpected argument {rest[0]!r}')
  if not WORKDIR.value:
    raise errors.InputError('no --workdir; name the folder of the run')
  if not CONFIG.value.data.dir:
    raise errors.InputError('no --config.data.dir; name the folder that python -m data_prep.build wrote')
  return CONFIG.value


def explain(argv, error):
  """Names the override that the config does not know, and the nearest that it does."""
  plain = [a for a in argv if not a.startswith('--config.')]
  try:
    flags.FLAGS.unparse_flags()
    flags.FLAGS(plain)
    known = flatten(CONFIG.value)
  except Exception:  # the config file itself is at fault: say what it said
    return str(error)
  for argument in argv:
    name = argument.removeprefix('--config.').split('=')[0]
    if argument.startswith('--config.') and name not in known:
      return f'the config has no key {name!r}{nearest(name, known)}'
  return str(error)


def main(argv):
  absl_logging.set_verbosity(absl_logging.WARNING)
  config = parse(argv)
  from avjax import evaluate, train  # TensorFlow and JAX start only once the flags are right
  results = train.train(config, WORKDIR.value)
  if results is not None:
    print(evaluate.summary(results, config.targets, WORKDIR.value))


if __name__ == '__main__':
  errors.run(main, sys.argv)
