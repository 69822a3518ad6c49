"""The splits of a data set and its folds: which parts of the records train and which one validates."""

from avjax.errors import InputError

FOLD_COUNT = 6
CHUNKS = tuple(f'chunk{i}' for i in range(FOLD_COUNT))  # chunk5 is the official validation partition
TEST = 'test'


def fold_chunks(fold, splits=CHUNKS):
  """Returns (the training splits, the validation split) of a fold, counted from 0; fold 0 is the official one.

  splits: names of the splits of the records, such as the manifest's; the test split takes no part. Fold k validates on
  the k-th last of the others, in order of name, and trains on the rest.
  """
  chunks = tuple(sorted(split for split in splits if split != TEST))
  if fold not in range(len(chunks)):
    raise InputError(f'fold {fold} does not exist: folds are 0 to {len(chunks) - 1}, and 0 is the official split')
  held_out = chunks[len(chunks) - 1 - fold]
  return tuple(chunk for chunk in chunks if chunk != held_out), held_out
