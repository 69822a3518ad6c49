"""What a setting may be: each part of the code declares the ranges of its own settings, and one function checks them."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from avjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Range:
  """The values that a setting takes: `accepts` tells them apart, `wanted` says in words what they are."""

  accepts: Callable[[Any], bool]
  wanted: str

  def check(self, key, value):
    """Raises InputError, naming the key of the config, unless the value is in the range."""
    if not self.accepts(value):
      raise InputError(f'config.{key} is out of range: it takes {self.wanted}')


@dataclasses.dataclass(frozen=True)
class OneOf:
  """The names that a setting takes. With `prefix`, also any name that begins with it."""

  names: tuple[str, ...]
  prefix: str | None = None

  def check(self, key, value):
    """Raises InputError, naming the key of the config and the nearest name, unless the value is one of them."""
    if value not in self.names and not (self.prefix and value.startswith(self.prefix)):
      known = (*self.names, f'{self.prefix}NAME') if self.prefix else self.names
      raise InputError(f'config.{key} {value!r} is not one of {", ".join(known)}{nearest(value, known)}')


def at_least(least):
  """Numbers from `least` on."""
  return Range(lambda value: value >= least, f'at least {least}')


def at_least_each(least):
  """Sequences, which may be empty, of numbers from `least` on."""
  return Range(lambda values: min(values, default=least) >= least, f'numbers of at least {least}')


def length(count):
  """Sequences of so many numbers."""
  return Range(lambda values: len(values) == count, f'{count} numbers')


POSITIVE = Range(lambda value: value > 0, 'above 0')
NOT_NEGATIVE = Range(lambda value: value >= 0, '0 or more')
DROPOUT = Range(lambda value: 0 <= value < 1, '0 to below 1')


def check(section, settings, ranges):
  """Checks those settings of a section of the config that `ranges` {setting: Range or OneOf} names and that it has.

  Raises InputError for the first one that is out of its range.
  """
  for name, allowed in ranges.items():
    if name in settings:
      allowed.check(f'{section}.{name}' if section else name, settings[name])


def nearest(name, names):
  """'; did you mean x?' for the nearest of the names, or '' if none is near."""
  close = difflib.get_close_matches(name, list(names), 1, 0.5)
  return f'; did you mean {close[0]!r}?' if close else ''
