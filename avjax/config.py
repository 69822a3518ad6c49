"""Configs: their argument, their overrides, and how one is stored with a run."""

import difflib

from ml_collections import ConfigDict

from data_prep.errors import InputError

TARGETS = {'valence': ('valence',), 'arousal': ('arousal',), 'joint': ('valence', 'arousal')}


def parse_argument(argument):
  """The argument of a config file, 'mini,target=arousal,fold=3' -> {'mini': True, 'target': 'arousal', 'fold': 3}.

  target is valence, arousal or joint (one model with both outputs, eq. 22); fold is 0 to 5. Raises InputError otherwise.
  """
  parsed = {'mini': False, 'target': None, 'fold': 0}
  allowed = {'mini': [''], 'target': list(TARGETS), 'fold': [str(k) for k in range(6)]}
  for part in filter(None, (argument or '').split(',')):
    name, _, value = part.partition('=')
    if name not in parsed:
      raise InputError(f'unknown config argument {name!r}{nearest(name, parsed)}')
    if value not in allowed[name]:
      raise InputError(f'config argument {part!r}: {name} takes {", ".join(allowed[name]) or "no value"}')
    parsed[name] = {'mini': True, 'fold': int(value) if value.isdigit() else value}.get(name, value)
  return parsed


def nearest(name, names):
  """'; did you mean x?' or nothing."""
  close = difflib.get_close_matches(name, list(names), 1, 0.5)
  return f'; did you mean {close[0]!r}?' if close else ''


def flatten(config, prefix=''):
  """{'data.length': 300, ...}: the leaves of a ConfigDict or a nested dict, by the names that overrides use."""
  flat = {}
  for key, value in config.items():
    nested = isinstance(value, (dict, ConfigDict))
    flat.update(flatten(value, f'{prefix}{key}.') if nested else {f'{prefix}{key}': value})
  return flat
