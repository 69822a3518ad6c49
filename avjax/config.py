"""Configs: their argument, their overrides, and how one is stored with a run."""

import itertools

from ml_collections import ConfigDict

from avjax.errors import InputError
from avjax.ranges import nearest
from avjax.targets import CHOICES

FOLDS = ('0', '1', '2', '3', '4', '5')

def parse_argument(argument):
  """The argument of a config file, 'mini,target=arousal,fold=3' -> {'mini': True, 'target': 'arousal', 'fold': 3, ...}.

  target is valence, arousal or joint (one model with both outputs, eq. 22); fold is 0 to 5; protocol is paper or author.
  Raises InputError for anything else.
  """
  parsed = {'mini': False, 'target': None, 'fold': '0', 'protocol': 'paper'}
  allowed = {'mini': [''], 'target': list(CHOICES), 'fold': list(FOLDS), 'protocol': ['paper', 'author']}
  for part in filter(None, (argument or '').split(',')):
    name, _, value = part.partition('=')
    if name not in parsed:
      raise InputError(f'unknown config argument {name!r}{nearest(name, parsed)}')
    if value not in allowed[name]:
      raise InputError(f'config argument {part!r}: {name} takes {", ".join(allowed[name]) or "no value"}')
    parsed[name] = True if name == 'mini' else value
  return parsed | {'fold': int(parsed['fold'])}


def expand(argument):
  """The arguments of the runs that one stands for: 'fold=0+3' -> ['fold=0', 'fold=3'].

  fold=all is folds 0 to 5 and fold=0+3 some of them; target=both is a run for valence and one for arousal.
  """
  several = {'fold': {'all': '+'.join(FOLDS)}, 'target': {'both': 'valence+arousal'}}
  parts = [part.partition('=') for part in (argument or '').split(',')]
  choices = [several.get(name, {}).get(value, value).split('+') if name in several else [value] for name, _, value in parts]
  return [','.join(name + equals + value for (name, equals, _), value in zip(parts, values)) for values in itertools.product(*choices)]


def flatten(config, prefix=''):
  """{'data.length': 300, ...}: the leaves of a ConfigDict or a nested dict, by the names that overrides use."""
  flat = {}
  for key, value in config.items():
    nested = isinstance(value, (dict, ConfigDict))
    flat.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
  return flat
