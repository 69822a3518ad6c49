"""Reads the flags of avjax.main, builds the configs that they describe, and starts JAX.

--config=FILE:ARGUMENT is resolved first: the file is loaded once, and its argument is expanded into
one argument per run (fold=all, target=both). The overrides, --config.KEY=VALUE, then change each
config.
"""

import gc
import importlib.machinery
import os
import pathlib
import re
import sys
import types

from absl import flags
from ml_collections import ConfigDict, config_flags

from avjax.config import expand, flatten
from avjax.errors import InputError, as_input_error
from avjax.ranges import nearest

OVERRIDE = '--config.'
OVERRIDDEN_KEY = re.compile(r'--?(?:no)?config\.([^=]*)')  # --noconfig.KEY sets False


def parse(argv):
  """Returns (flags, {name of the run: config}).

  A single run has the name ''; several are named by target and fold. Raises InputError for a
  mistake in the command line.
  """
  values = define_flags()
  configs = read_configs(values, argv[1:])
  if not values.workdir:
    raise InputError('no --workdir; name the folder of the run')
  if not all(flatten(config).get('data.dir') for config in configs):
    raise InputError('no --config.data.dir; name the folder that python -m data_prep.build wrote')
  if not values.coordinator and (values.processes, values.process) != (None, None):
    raise InputError('--processes and --process need --coordinator, host:port of the first process')
  if len(configs) == 1:
    return values, {'': configs[0]}
  named = {run_name(config): config for config in configs}
  if len(named) < len(configs):
    raise InputError('the argument of the config names a fold or target twice')
  return values, named


def collect_garbage_less_often():
  """Makes Python look for cycles less often.

  JAX's imports and traces make a million objects that stay. Looking among them as often as Python
  does takes a tenth of a command's start.
  """
  gc.set_threshold(100_000, 20, 50)


def start_jax(cluster=None):
  """Starts JAX for a command whose command line has been accepted: see avjax/system/start.py.

  cluster: the arguments of `sharding.start` if this is one process of several, else None.
  """
  collect_garbage_less_often()
  with as_input_error('JAX does not start'):  # it reads its variables when it is imported
    from avjax.system import start
  start.start(cluster)


def define_flags():
  """Returns the absl flags of avjax.main."""
  values = define_config_flag()
  flags.DEFINE_string('workdir', None, 'Folder of the run; a run there is resumed.', values)
  cluster = 'Joins the processes that a cluster starts (TPU, Slurm, MPI).'
  flags.DEFINE_bool('distributed', False, cluster, values)
  first = 'Joins several processes: host:port of the first one.'
  flags.DEFINE_string('coordinator', None, first, values)
  flags.DEFINE_integer('processes', None, 'How many processes there are.', flag_values=values)
  flags.DEFINE_integer('process', None, 'Number of this process, from 0.', flag_values=values)
  return values


def flag_help():
  """Returns the flags of avjax.main with what they mean, a line each."""
  values = define_flags()
  lines = [f'  --{name:<18}{values[name].help}' for name in values]
  lines.append('  --config.KEY=VALUE  Changes a key of the config, such as --config.batch_size=6.')
  return '\n'.join(lines)


def load_config(words):
  """Returns the config that the words --config=FILE:ARGUMENT and --config.KEY=VALUE describe.

  Raises InputError if they describe several.
  """
  configs = read_configs(define_config_flag(), words)
  if len(configs) > 1:
    raise InputError(f'--config describes {len(configs)} runs; give one target and one fold')
  return configs[0]


def define_config_flag():
  """Returns a set of absl flags that has only --config."""
  values = flags.FlagValues()
  values.set_gnu_getopt()  # flags are read after an unknown word too
  help_text = 'Config file, with its argument after a colon.'
  flags.DEFINE_string('config', None, help_text, values, allow_overwrite=False)
  return values


def read_configs(values, words):
  """Reads the words of a command line into the flags `values`; returns the config of each run."""
  try:
    overrides = values(['', *words], known_only=True)[1:]
  except flags.Error as error:
    raise InputError(str(error)) from error
  for word in overrides:
    if word.startswith('-') and not OVERRIDDEN_KEY.match(word):
      name = word.split('=')[0].lstrip('-')
      raise InputError(f'unknown flag {word.split("=")[0]!r}{nearest(name, values)}')
  if not values.config:
    raise InputError('no --config; try --config=configs/grjca.py')
  name, colon, argument = values.config.partition(':')
  configs = run_config_file(find_config_file(name), expand(argument) if colon else None)
  return [apply_overrides(config, overrides, len(configs) > 1) for config in configs]


def find_config_file(name):
  """Returns the path of a config file; configs/NAME.py may be the one installed with avjax."""
  path = pathlib.Path(name)
  installed = pathlib.Path(__file__).parents[1] / path
  is_system = path.parts[:1] == ('configs',) and os.path.isfile(installed)
  return installed if is_system and not os.path.isfile(path) else path


def run_config_file(path, arguments):
  """Loads a config file and returns get_config(argument) for each argument.

  With arguments=None it returns [get_config()]. Whatever the file raises becomes an InputError that
  names the file.
  """
  if not os.path.isfile(path):  # Path.is_file raises where the name is too long
    problem = 'It is not a regular file' if os.path.exists(path) else 'No such file'
    raise InputError(f'the config file cannot be read: {path}: {problem}')
  loader = importlib.machinery.SourceFileLoader('config_file', str(path))
  module = types.ModuleType(loader.name)
  module.__file__ = str(path)
  sys.modules[loader.name] = module  # dataclasses look their module up there
  try:
    loader.exec_module(module)
    if arguments is None:
      configs = [module.get_config()]
    else:
      configs = [module.get_config(argument) for argument in arguments]
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  except Exception as error:  # the file is a program, which may raise anything
    message = f'the config file {path} does not run: {type(error).__name__}: {error}'
    raise InputError(message) from error
  for config in configs:
    if not isinstance(config, ConfigDict):
      raise InputError(f'{path}: get_config returns {type(config).__name__}, not ConfigDict')
  return configs


def apply_overrides(config, overrides, several):
  """Returns the config, locked, after the words --config.KEY=VALUE have changed it.

  A value must have the type of the one it replaces; it is read as a literal, never executed. With
  `several` runs, fold and targets cannot be overridden, because the argument gives them.
  """
  known = flatten(config)
  for key in (match[1] for word in overrides if (match := OVERRIDDEN_KEY.match(word))):
    if key not in known:
      raise InputError(f'the config has no key {key!r}{nearest(key, known)}')
    if several and key in ('fold', 'targets'):
      message = 'cannot be given where the argument of the config names several runs'
      raise InputError(f'--config.{key} {message}')
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict('config', config, flag_values=values, sys_argv=overrides)
    rest = values(['', *overrides])[1:]
  except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
    raise InputError(str(error)) from error
  if rest:
    raise InputError(f'unexpected argument {rest[0]!r}')
  return values.config


def run_name(config):
  """Returns the name of one of several runs, such as 'valence_fold3'; its folder has this name."""
  target = config.targets[0] if len(config.targets) == 1 else 'joint'
  return f'{target}_fold{config.fold}'
