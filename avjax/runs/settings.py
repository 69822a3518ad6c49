"""Checks the types and sizes of a config that somebody else may have written.

The types are those of the defaults in configs/base.py. A config of JSON can hold anything in their
place: text where a page shows a number, or a length for which no machine has the memory.
"""

from __future__ import annotations

import functools
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from avjax.command_line import run_config_file
from avjax.errors import InputError, one_line

BASE = pathlib.Path(__file__).parents[2] / 'configs' / 'base.py'
# The largest whole numbers, by the last part of a key, and for all other keys. They are far above
# what any system of the field has, and far below what a computer of the field cannot hold.
LARGEST = {
  'seed': 2**31 - 1,
  'smooth': 10**6,
  'skip_most': 10**6,
  'max_epochs': 10**4,
  'max_stage_epochs': 10**4,
  'warmup_epochs': 10**6,
  'patience': 10**6,
  'stop_patience': 10**6,
  'length': 10_000,
  'stride': 10_000,
  'face': 1024,
  'crop': 1024,
  'units': 100,
  'layers': 100,
  'blocks': 100,
  'heads': 100,
  'recursions': 100,
}
LARGEST_OF_OTHERS = 2**14
MOST_NUMBERS, MOST_TEXTS = 64, 1000  # in one list
LONGEST_TEXT = 4096  # of a path, as Linux has it
DEEPEST = 5  # sections within sections
KEY = re.compile(r'[A-Za-z0-9_]\w{0,63}', re.ASCII)


@functools.cache
def defaults() -> ConfigDict:
  """Returns the config of configs/base.py, which is installed with avjax."""
  return run_config_file(BASE, [''])[0]


def check(config: ConfigDict | Mapping[str, Any]) -> None:
  """Raises InputError, naming the key, for a setting of another type, or beyond all sizes.

  A setting that configs/base.py lacks, such as an argument of a fusion, may be a number, a text, a
  truth value, a list of these, or a section.
  """
  check_section('', config, defaults(), DEEPEST)


def check_section(prefix: str, section: Any, known: Any, depth: int) -> None:
  """Checks the settings of a section against the same section of the defaults, or against {}."""
  for key, value in section.items():
    name = f'{prefix}{key}'
    if not isinstance(key, str) or not KEY.fullmatch(key):
      raise InputError(
        f'the config has a key {one_line(repr(name))}, which is no name of a setting'
      )
    default = known.get(key)
    if isinstance(value, Mapping | ConfigDict):
      if depth == 0 or (default is not None and not isinstance(default, ConfigDict)):
        raise InputError(f'config.{name} is a section, where there is none')
      check_section(f'{name}.', value, default or {}, depth - 1)
    elif isinstance(default, ConfigDict):
      raise InputError(f'config.{name} {shown(value)} is not a section')
    else:
      check_value(name, value, default)


def check_value(name: str, value: Any, default: Any) -> None:
  """Raises InputError unless a value has the type of the default, if there is one, and a size."""
  several = isinstance(value, list | tuple)
  if default is not None:
    wanted, fits = kind(default)
    # `smooth` is one number, or one for each target.
    if not all(fits(x) for x in (value if name == 'smooth' and several else [value])):
      raise InputError(f'config.{name} {shown(value)} is not {wanted}')
  texts = several and all(isinstance(x, str) for x in value)
  if several and len(value) > (MOST_TEXTS if texts else MOST_NUMBERS):
    raise InputError(f'config.{name} has {len(value)} values, more than any config')
  for x in value if several else [value]:
    for y in x if several and isinstance(x, list | tuple) and len(x) <= 2 else [x]:
      check_single(name, y)


def check_single(name: str, value: Any) -> None:
  """Raises InputError unless a value is a finite number, a text or a truth value of some size."""
  largest = LARGEST.get(name.split('.')[-1], LARGEST_OF_OTHERS)
  if isinstance(value, str):
    if len(value) > LONGEST_TEXT or not value.isprintable():
      raise InputError(f'config.{name} {shown(value)} is not a text of one line')
  elif isinstance(value, float):
    if not math.isfinite(value):
      raise InputError(f'config.{name} {value} is not a finite number')
  elif isinstance(value, int):
    if abs(value) > largest:
      raise InputError(f'config.{name} is out of range: it takes {largest} at most')
  else:
    raise InputError(f'config.{name} {shown(value)} is not a number, a text or a list of these')


def kind(default: Any) -> tuple[str, Any]:
  """Returns what the type of a default is called, and a function that tells it of a value."""
  if isinstance(default, bool):
    return 'true or false', lambda value: isinstance(value, bool)
  if isinstance(default, int):
    return 'a whole number', lambda value: type(value) is int
  if isinstance(default, float):
    return 'a number', lambda value: type(value) in (int, float)
  if isinstance(default, str):
    return 'a text', lambda value: isinstance(value, str)
  return 'a list', lambda value: isinstance(value, list | tuple)


def shown(value: Any) -> str:
  """Returns the beginning of a value, on one line."""
  return one_line(repr(value)[:40])
