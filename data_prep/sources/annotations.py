"""Finds and reads text files of valence and arousal.

They have a header line, then one `valence,arousal` line for every frame of the video.
"""

import math

import numpy as np

from avjax import files
from avjax.errors import InputError
from data_prep.sources.folders import LEVELS, folders_within, has_name, plain_name, subfolders

NOT_ANNOTATED = -5  # what the organisers write where there is no annotation

# Names of the two sets of annotations; releases before 2021 have the others.
SETS = {
  'train': ('Train_Set', 'Training_Set'),
  'validation': ('Validation_Set', 'Val_Set', 'Valid_Set'),
}


def find_annotations(folder):
  """Returns the folder with the sets of annotations of valence and arousal, at most LEVELS below.

  Releases have those of other tasks beside it. Its name then begins with VA.
  """
  candidates = [path for path in folders_within(folder, LEVELS) if find_sets(path)]
  candidates = [path for path in candidates if plain_name(path.name).startswith('va')] or candidates
  if len(candidates) > 1:
    raise InputError(
      f'{folder} holds several sets of annotations, {", ".join(map(str, candidates[:3]))}; '
      'name the one to use with --annotations'
    )
  if not candidates:
    raise InputError(
      f'{folder} holds no folders {" and ".join(names[0] for names in SETS.values())}, nor does a '
      f'folder up to {LEVELS} levels below it; name that of the annotations with --annotations'
    )
  for partition, names in SETS.items():
    if partition not in find_sets(candidates[0]):
      raise InputError(f'{candidates[0]} holds no folder {names[0]}; unpack the annotations again')
  return candidates[0]


def find_sets(folder):
  """Returns {partition: folder of its annotations} of the sets that are directly in a folder."""
  return {
    partition: path
    for path in subfolders(folder)
    for partition, names in SETS.items()
    if has_name(path, names) and not has_name(folder, names)
  }


def read_annotation(path, ignore_out_of_range=False):
  """Reads one annotation file.

  Args:
    path: the text file; line k + 1 belongs to frame k.
    ignore_out_of_range: whether values outside [-1, 1] other than -5 count as not annotated instead
      of being refused.

  Returns:
    labels (T,2) float32 in [-1, 1], 0 where not annotated; annotated (T,) bool, True where both
    values were given.

  Raises InputError naming file and line for anything else: another header, another number of
  columns, text, NaN.
  """
  header, *lines = files.read_text(path).rstrip().splitlines() or ['']
  if [word.strip().lower() for word in header.split(',')] != ['valence', 'arousal']:
    raise InputError(
      f"{path}, line 1: expected the header 'valence,arousal', found {header[:40]!r}"
    )
  values = np.zeros((len(lines), 2))
  for frame, line in enumerate(lines, 1):
    values[frame - 1] = parse(line, f'{path}, line {frame + 1} (frame {frame})')
  annotated = ((values >= -1) & (values <= 1)).all(axis=1)
  strange = ((values < -1) | (values > 1)) & (values != NOT_ANNOTATED)
  if strange.any() and not ignore_out_of_range:
    frame, column = np.argwhere(strange)[0]
    raise InputError(
      f'{path}, line {frame + 2} (frame {frame + 1}): {values[frame, column]:g} is outside [-1, 1] '
      'and not -5; to count such frames as not annotated, add --tolerate out_of_range'
    )
  return np.where(annotated[:, None], values, 0).astype(np.float32), annotated


def parse(line, where):
  """Returns the two numbers of a line.

  Raises InputError, beginning with `where`, if it holds anything else.
  """
  try:
    valence, arousal = map(float, line.split(','))
  except ValueError:
    raise InputError(f'{where}: expected two numbers, found {line[:40]!r}') from None
  if not (math.isfinite(valence) and math.isfinite(arousal)):
    raise InputError(f'{where}: {line[:40]!r} is not a finite number')
  return valence, arousal
