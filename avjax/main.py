"""Trains, or goes on training: python -m avjax.main --config=configs/grjca.py --workdir=RUN --config.data.dir=RECORDS"""

import sys

from absl import flags
from absl import logging
from ml_collections import config_flags

from avjax.config import flatten, nearest
from data_prep import errors
from data_prep.errors import InputError

OVERRIDE = '--config.'


def parse(argv):
  """Returns (config, workdir) from the command line; any mistake in it is an InputError of one line."""
  _, known, _ = read_flags([argument for argument in argv if not argument.startswith(OVERRIDE)])
  for argument in argv:
    name = argument.removeprefix(OVERRIDE).split('=')[0]
    if argument.startswith(OVERRIDE) and name not in known:
      raise InputError(f'the config has no key {name!r}{nearest(name, known)}')
  values, known, rest = read_flags(argv)
  if rest:
    raise InputError(f'unexpected argument {rest[0]!r}')
  if not values.workdir:
    raise InputError('no --workdir; name the folder of the run')
  if not known['data.dir']:
    raise InputError('no --config.data.dir; name the folder that python -m data_prep.build wrote')
  return values.config, values.workdir


def read_flags(argv):
  """Parses --config, --config.KEY and --workdir. Returns (their values, the flattened config, what is left of argv)."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', None, 'Config file, with its argument after a colon.', values, sys_argv=argv)
  flags.DEFINE_string('workdir', None, 'Folder of the run; a run that is there is resumed.', values)
  try:
    rest = values(argv)[1:]
    if values.config is None:
      raise InputError('no --config; try --config=configs/grjca.py')
    return values, flatten(values.config), rest
  except InputError:
    raise
  except OSError as error:
    raise InputError(f'the config file cannot be read: {" ".join(str(error).split()).split("Attempted ")[-1]}') from error
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    # What a config file raises comes wrapped, with its traceback as text.
    raise InputError(str(error).split('InputError: ')[-1]) from error


def main(argv):
  if {'--help', '-h'} & set(argv):
    print(__doc__)
    return 0
  logging.set_verbosity(logging.ERROR)  # the libraries'; avjax has its own log
  config, workdir = parse(argv)
  from avjax import evaluate, train  # TensorFlow and JAX start only once the flags are right
  results = train.train(config, workdir)
  if results is not None:
    print(evaluate.summary(results, config.targets, workdir))
  return 0


if __name__ == '__main__':
  errors.run(main, sys.argv)
