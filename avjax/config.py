"""Reads the argument of a config file, and flattens configs to the keys that overrides use."""

import itertools
from typing import Any

from ml_collections import ConfigDict

from avjax.errors import InputError
from avjax.ranges import nearest
from avjax.targets import CHOICES

# An ml_collections.ConfigDict. Its attributes are typed as a union of everything that they may
# hold, and no use of such a union passes a type checker. Ranges and golden files check configs
# instead.
Config = Any

FOLDS = ('0', '1', '2', '3', '4', '5')

# The values of each part of the argument of a config file; `mini` has none.
ARGUMENT = {
  'mini': ('',),
  'target': tuple(CHOICES),
  'fold': FOLDS,
  'protocol': ('paper', 'author'),
}
# Values that mean several runs, and the values of these runs.
SEVERAL = {'fold': {'all': '+'.join(FOLDS)}, 'target': {'both': 'valence+arousal'}}


def parse_argument(argument):
  """Parses the argument of a config file: 'mini,fold=3' -> {'mini': True, 'fold': 3, ...}.

  target is valence, arousal or joint (one model with both outputs, eq. 22), or None where it is not
  given; fold is 0 to 5; protocol is paper or author. Raises InputError for anything else.
  """
  parsed = {'mini': False, 'target': None, 'fold': '0', 'protocol': 'paper'}
  for part in filter(None, (argument or '').split(',')):
    name, _, value = part.partition('=')
    if name not in ARGUMENT:
      raise InputError(f'unknown config argument {name!r}{nearest(name, ARGUMENT)}')
    if value not in ARGUMENT[name]:
      takes = ', '.join(ARGUMENT[name]) or 'no value'
      raise InputError(f'config argument {part!r}: {name} takes {takes}')
    parsed[name] = True if name == 'mini' else value
  return parsed | {'fold': int(parsed['fold'])}


def expand(argument):
  """Returns the arguments of the runs that one argument describes.

  'fold=0+3' -> ['fold=0', 'fold=3']; fold=all is folds 0 to 5, and target=both is a run for valence
  and one for arousal.
  """
  choices = []
  for part in (argument or '').split(','):
    name, equals, value = part.partition('=')
    values = SEVERAL[name].get(value, value).split('+') if name in SEVERAL else [value]
    choices.append([name + equals + one for one in values])
  return [','.join(parts) for parts in itertools.product(*choices)]


def flatten(config, prefix=''):
  """Returns {'data.length': 300, ...}, the leaves of a ConfigDict or nested dict by dotted keys."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, dict | ConfigDict):
      flat.update(flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat
