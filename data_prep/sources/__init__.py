"""Registers data sources: each file of this folder may add one layout of a data set on disk.

A source is a subclass of `Source` under `@register('name')`; `python -m data_prep.build --layout
name` chooses it. Every file of this folder is imported here, so a new source is a new file and no
edit elsewhere.
"""

import abc
import argparse
import importlib
import pkgutil

from data_prep.clips import Job

SOURCES: dict[str, 'Source'] = {}


class Source(abc.ABC):
  """Finds the clips of a data set and their annotations.

  --help shows the first line of the docstring of a subclass.
  """

  @abc.abstractmethod
  def add_options(self, parser: argparse.ArgumentParser) -> None:
    """Adds the options that only this source has.

    --source, --features and --tolerate belong to every source.
    """

  @abc.abstractmethod
  def plan(self, args: argparse.Namespace) -> dict[str, list[Job]]:
    """Returns {split: jobs} after checking everything that can be checked without opening a video.

    Each split other than 'test' is one part of the cross-validation. In the order of their names,
    with part2 before part10, the last one is the official validation partition (see
    avjax/data/splits.py). Splits may be empty. Raises InputError for what does not fit.
    """


def register(name):
  """Decorates the subclass of Source that --layout chooses by this name."""

  def decorate(source):
    if name in SOURCES:
      raise ValueError(f'the source {name!r} is registered twice')
    SOURCES[name] = source()
    return source

  return decorate


for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f'{__name__}.{_module.name}')
