"""Trains, or goes on training: python -m avjax.main --config=configs/grjca.py --workdir=RUN --config.data.dir=RECORDS

With fold=all (or 0+3) and target=both in the argument of the config, one run after another, each in its own folder of RUN.
With --coordinator, --processes and --process, or --distributed where the cluster tells them, one of several processes.
"""

from absl import flags
from ml_collections import config_flags

from avjax.config import expand, flatten
from avjax.ranges import nearest
from avjax.errors import InputError

OVERRIDE = '--config.'


def parse(argv):
  """Returns (flags, {name of the run: config}) from the command line; any mistake in it is an InputError of one line.

  A single run has the name ''; of several, each is named by its target and fold.
  """
  configs, runs = {}, one_run_each(argv)
  for one in runs:
    _, known, _ = read_flags([argument for argument in one if not argument.startswith(OVERRIDE)])
    for argument in one:
      key = argument.removeprefix(OVERRIDE).split('=')[0]
      if argument.startswith(OVERRIDE) and key not in known:
        raise InputError(f'the config has no key {key!r}{nearest(key, known)}')
      if argument.startswith(OVERRIDE) and len(runs) > 1 and key in ('fold', 'targets'):
        raise InputError(f'--config.{key} cannot be given where the argument of the config names several runs')
    values, known, rest = read_flags(one)
    if rest:
      raise InputError(f'unexpected argument {rest[0]!r}')
    if not values.workdir:
      raise InputError('no --workdir; name the folder of the run')
    if not known['data.dir']:
      raise InputError('no --config.data.dir; name the folder that python -m data_prep.build wrote')
    if not values.coordinator and (values.processes, values.process) != (None, None):
      raise InputError('--processes and --process need --coordinator, host:port of the first process')
    name = f'{values.config.targets[0] if len(values.config.targets) == 1 else "joint"}_fold{values.config.fold}'
    configs[name if len(runs) > 1 else ''] = values.config
  if len(configs) < len(runs):
    raise InputError('the argument of the config names a fold or target twice')
  return values, configs


def one_run_each(argv):
  """The command line of each run that the argument of --config stands for."""
  for i, word in enumerate(argv):
    if word in ('--config', '-config') and i + 1 < len(argv):
      return one_run_each([*argv[:i], f'--config={argv[i + 1]}', *argv[i + 2:]])
    if word.startswith('--config=') and ':' in word:
      file, argument = word.split(':', 1)
      return [[*argv[:i], f'{file}:{one}', *argv[i + 1:]] for one in expand(argument)]
  return [argv]


def read_flags(argv):
  """Parses the flags. Returns (their values, the flattened config, what is left of argv)."""
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', None, 'Config file, with its argument after a colon.', values, sys_argv=argv)
  flags.DEFINE_string('workdir', None, 'Folder of the run; a run that is there is resumed.', values)
  flags.DEFINE_bool('distributed', False, 'One of several processes, as the cluster says (TPU slice, Slurm, Open MPI).', values)
  flags.DEFINE_string('coordinator', None, 'One of several processes: host:port of the first.', values)
  flags.DEFINE_integer('processes', None, 'One of several processes: how many.', flag_values=values)
  flags.DEFINE_integer('process', None, 'One of several processes: which one, from 0.', flag_values=values)
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
    # What get_config raises comes wrapped, with its traceback as text.
    raise InputError(str(error).split('InputError: ')[-1]) from error
  except Exception as error:  # the file is a person's own program, and may raise anything
    file = next(word for word in argv if word.startswith('--config=')).removeprefix('--config=')
    raise InputError(f'the config file {file} does not run: {type(error).__name__}: {error}') from error
