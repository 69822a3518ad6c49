"""Reads SEWA as the challenges AVEC 2017, 2018 and 2019 distribute it.

    SEWA/video/Train_DE_01.avi       Devel_DE_01.avi, Test_DE_01.avi and so on; in 2017 Train_01.avi
    SEWA/labels/Train_DE_01.csv      name;timestamp;arousal;valence;liking, a row every 100 ms

In 2019 the labels have a header, in 2017 and 2018 they have none. Names are in single quotes, times
in seconds, values in [-1, 1]. Labels of the test partition are not distributed.

Source of names and formats: CES_data.py of AudioVisualEmotionChallenge/AVEC2018 and AVEC2019 with
its predictions, and the notebook on SEWA of end2you/end2you.
"""

import csv
import pathlib

from avjax import files
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from data_prep.labels import DIMENSIONS
from data_prep.sources import Source, known, plain, register
from data_prep.sources.label_files import LabelFile

VIDEOS, LABELS = 'video', 'labels'
COLUMNS = ['name', 'timestamp', 'arousal', 'valence', 'liking']  # of files without a header
TIME = 1  # the column of the time, whatever its name


@register('sewa')
class Sewa(Source):
  """SEWA as AVEC 2017 to 2019 distribute it, with video/ and labels/."""

  def add_options(self, parser):
    known.add_options(parser)

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    videos = plain.list_videos(source / VIDEOS, mistakes)
    assigned = known.split_by_name(list(videos), source / VIDEOS, mistakes)
    written = {}
    for path in files.visible(files.existing_folder(source / LABELS)):
      if path.suffix.lower() != '.csv':
        mistakes.add('entries do not end as files of labels do', str(path), '; they end with .csv')
      else:
        written[path.stem] = [read_labels(path, mistakes)]
    return known.plan(videos, written, assigned, mistakes, args)


def read_labels(path: pathlib.Path, mistakes: Mistakes) -> LabelFile:
  """Reads the labels of a clip."""
  lines = files.read_text(path).splitlines()
  table = list(enumerate(csv.reader(lines, delimiter=';', quotechar="'"), 1))
  names = COLUMNS
  if table and table[0][1][:1] == COLUMNS[:1]:
    names = [cell.strip().lower() for cell in table.pop(0)[1]]
  if not set(DIMENSIONS) <= set(names):
    raise InputError(f'{path}, line 1: no columns arousal and valence')
  columns = [TIME, *map(names.index, DIMENSIONS)]
  rows = []
  for line, cells in table:
    try:
      if any(cells):
        rows.append((line, [float(cells[column]) for column in columns]))
    except (IndexError, ValueError):
      mistakes.add('cells of labels hold no number', f'{path}, line {line}')
  return known.in_time(path, '', rows, mistakes)
