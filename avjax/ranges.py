"""Checks settings of a config against ranges, which each module declares for its own settings."""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from avjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Range:
  """Holds the values that a setting takes: `accepts` tests one, `wanted` describes them."""

  accepts: Callable[[Any], bool]
  wanted: str

  def check(self, key, value):
    """Raises InputError, naming the key of the config, unless the value is in the range."""
    if not self.accepts(value):
      raise InputError(f'config.{key} is out of range: it takes {self.wanted}')


MOST_SHOWN = 14  # names in the message of `OneOf`, which is one line


@dataclasses.dataclass(frozen=True)
class OneOf:
  """Holds the names that a setting takes. With `prefix`, also any name that begins with it."""

  names: tuple[str, ...]
  prefix: str | None = None

  def check(self, key, value):
    """Raises InputError, with the key of the config and the nearest name, for any other value."""
    if value not in self.names and not (self.prefix and value.startswith(self.prefix)):
      known = (*self.names, f'{self.prefix}NAME') if self.prefix else self.names
      shown = ', '.join(known[:MOST_SHOWN]) + ', ...' * (len(known) > MOST_SHOWN)
      raise InputError(f'config.{key} {value!r} is not one of {shown}{nearest(value, known)}')


def at_least(least):
  """Returns the range of the numbers that are at least `least`."""
  return Range(lambda value: value >= least, f'at least {least}')


def at_least_each(least):
  """Returns the range of the sequences, also empty ones, of numbers that are at least `least`."""
  return Range(lambda values: min(values, default=least) >= least, f'numbers of at least {least}')


def length(count):
  """Returns the range of the sequences of `count` numbers."""
  return Range(lambda values: len(values) == count, f'{count} numbers')


POSITIVE = Range(lambda value: value > 0, 'above 0')
NOT_NEGATIVE = Range(lambda value: value >= 0, '0 or more')
DROPOUT = Range(lambda value: 0 <= value < 1, '0 to below 1')


def check(section, settings, ranges):
  """Checks the settings of a section of the config; raises InputError for one out of its range.

  `ranges` is {setting: Range or OneOf}; a setting that the section does not have is skipped.
  """
  for name, allowed in ranges.items():
    if name in settings:
      allowed.check(f'{section}.{name}' if section else name, settings[name])


def nearest(name, names):
  """Returns '; did you mean x?' for the nearest of the names, or '' if none is near."""
  close = difflib.get_close_matches(name, list(names), 1, 0.5)
  return f'; did you mean {close[0]!r}?' if close else ''
