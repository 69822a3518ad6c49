"""Reads SEWA as the challenges AVEC 2017, 2018 and 2019 distribute it.

    SEWA/video/Train_DE_01.avi       Devel_DE_01.avi, Test_DE_01.avi and so on; in 2017 Train_01.avi
    SEWA/labels/Train_DE_01.csv      name;timestamp;arousal;valence;liking, a row every 100 ms

In 2019 the labels have a header, in 2017 and 2018 they have none. Names are in single quotes, times
in seconds, values in [-1, 1]. Labels of the test partition are not distributed.

Source of names and formats: CES_data.py of AudioVisualEmotionChallenge/AVEC2018 and AVEC2019 with
its predictions, and the notebook on SEWA of end2you/end2you.
"""

import pathlib

from avjax import files
from avjax.files import tables
from avjax.files.mistakes import Mistakes
from data_prep.labels import DIMENSIONS
from data_prep.sources import Source, known, plain, register
from data_prep.sources.label_files import LabelFile

VIDEOS, LABELS = 'video', 'labels'
COLUMNS = ['name', 'timestamp', 'arousal', 'valence', 'liking']  # of files without a header
TIMES = 'timestamp', 'time', 'frametime'  # names of the time in the packages of the challenges


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
        if path.stem in written:
          mistakes.add('recordings have two files of labels', str(path), '; leave one of them')
        written[path.stem] = [read_labels(path, mistakes)]
    return known.plan(videos, written, assigned, mistakes, args)


def read_labels(path: pathlib.Path, mistakes: Mistakes) -> LabelFile:
  """Reads the labels of a clip."""
  rows = list(tables.cells_of(path, files.read_text(path).splitlines(), ';', quote="'"))
  header = COLUMNS
  if rows and rows[0][1][0] == COLUMNS[0]:
    header = rows.pop(0)[1]
  table = tables.make_table(path, header, rows, mistakes, decimal_comma=True)
  columns = [table.needed(*TIMES), *(table.needed(dimension) for dimension in DIMENSIONS)]
  name = table.needed(COLUMNS[0])
  for line, cells in table.rows:
    if cells[name] != path.stem:
      mistakes.add(
        'rows have the name of another recording', f'{table.where(line)} ({cells[name]!r})'
      )
  found = [(line, row) for line, _, row in table.numbers(columns, mistakes)]
  return known.in_time(path, '', found, mistakes)
