"""Reads OMG-Emotion, whose utterances have one value of valence and arousal each.

    OMG/omg_TrainVideos.csv           link,start,end,video,utterance,arousal,valence,EmotionMaxVote
    OMG/omg_ValidationVideos.csv
    OMG/omg_TestVideos_WithLabels.csv
    OMG/VIDEO/utterance_1.mp4         as prepare_data.py of its organisers cuts them

An utterance is a clip, and its value holds for all of its frames: these are no continuous labels,
and a model learns from them no change within a clip. Arousal is in [0, 1] and mapped to [-1, 1],
valence in [-1, 1]. Utterances whose film cannot be had any more are left out, which is said.

Source of names and formats: README.md, prepare_data.py and the tables of
knowledgetechnologyuhh/OMGEmotionChallenge; the range of the arousal is that of the tables and of
public code for the challenge.
"""

import math
import pathlib

import numpy as np

from avjax import files
from avjax.data.splits import TEST
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.files.tables import read_table
from data_prep.labels import MOST_SECONDS
from data_prep.sources import Source, known, partition, register
from data_prep.sources.label_files import LabelFile

TABLES = {
  'train': 'omg_TrainVideos.csv',
  partition.VALIDATION: 'omg_ValidationVideos.csv',
  TEST: 'omg_TestVideos_WithLabels.csv',
}


@register('omg')
class Omg(Source):
  """OMG-Emotion as its prepare_data.py cuts it, with the tables omg_*Videos*.csv."""

  def add_options(self, parser):
    known.add_options(parser)
    parser.add_argument(
      '--videos',
      type=pathlib.Path,
      nargs='+',
      metavar='DIR',
      help='folders in which there is one for each VIDEO (default: SOURCE)',
    )

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    folders = [files.existing_folder(folder) for folder in args.videos or [source]]
    videos, written, assigned, missing = {}, {}, {}, []
    for split, table in TABLES.items():
      if split != TEST or (source / table).exists():
        for name, place, subject, labels in read_rows(source / table, mistakes):
          found = [path for folder in folders if (path := folder / place).exists()]
          if not found:
            missing.append(name)
            continue
          videos[name], written[name] = found[0], [labels]
          entry = partition.Assignment(split, subject, labels.where(0))
          partition.assign(assigned, name, entry, mistakes)
    mistakes.raise_if_any()
    if not videos:
      raise InputError(f'{folders[0]} holds no VIDEO/utterance_1.mp4; name folders with --videos')
    if missing:
      print(
        f'{len(missing)} of {len(missing) + len(videos)} utterances have no video and are left out'
      )
    return known.plan(videos, written, assigned, mistakes, args)


def read_rows(path: pathlib.Path, mistakes: Mistakes):
  """Yields (clip, VIDEO/UTTERANCE, subject, labels) of each utterance of a table."""
  table = read_table(path, mistakes)
  columns = [table.needed(name) for name in ('start', 'end', 'valence', 'arousal')]
  video, utterance = table.needed('video'), table.needed('utterance')
  for line, cells, (start, end, valence, arousal) in table.numbers(columns, mistakes):
    place = pathlib.PurePath(cells[video], cells[utterance])
    if len(place.parts) != 2 or '..' in place.parts:
      mistakes.add('rows have no usable names of a video and an utterance', table.where(line))
      continue
    if math.isnan(start + end + valence + arousal):
      mistakes.add('rows have no start, end, valence or arousal', table.where(line))
      continue
    if not 0 <= arousal <= 1:
      mistakes.add('arousals are outside [0, 1]', f'{table.where(line)} ({arousal:g})')
    if not start < end:
      mistakes.add('utterances have an end before the start', table.where(line))
      continue
    if end - start > MOST_SECONDS:
      mistakes.add(
        'utterances are longer than a day', table.where(line), '; start and end are in seconds'
      )
      continue
    # A row at each frame of 25 a second, so that they are joined whatever --label_gap is.
    places = np.linspace(0, end - start, int(np.ceil((end - start) * 25)) + 1)
    values = np.tile([valence, 2 * arousal - 1], (len(places), 1))
    labels = LabelFile(path, '', False, places, values, [line] * len(places))
    yield f'{cells[video]}_{place.stem}', place, cells[video], labels
