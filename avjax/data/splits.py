"""Chooses for each fold which splits of the records train and which one validates."""

import re
from collections.abc import Iterable

from avjax.errors import InputError

FOLD_COUNT = 6
# chunk5 is the official validation partition.
CHUNKS = tuple(f'chunk{i}' for i in range(FOLD_COUNT))
TEST = 'test'


def fold_chunks(fold: int, splits: Iterable[str] = CHUNKS) -> tuple[tuple[str, ...], str]:
  """Returns (the training splits, the validation split) of a fold.

  Folds are counted from 0, and fold 0 is the official one. Fold k validates on the split that is
  k-th from the end, in order of name and counted from 0, and trains on the others. The test split
  takes no part.

  splits: names, such as those of a manifest; `Records.fold` passes them.
  Raises InputError for a fold that does not exist.
  """
  chunks = tuple(sorted((split for split in splits if split != TEST), key=_natural))
  if fold not in range(len(chunks)):
    raise InputError(
      f'fold {fold} does not exist: folds are 0 to {len(chunks) - 1}, and 0 is the official split'
    )
  held_out = chunks[len(chunks) - 1 - fold]
  return tuple(chunk for chunk in chunks if chunk != held_out), held_out


def _natural(name: str):
  """Returns a key that sorts part2 before part10."""
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]
