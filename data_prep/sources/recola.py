"""Reads RECOLA as the challenges AVEC 2016 and AVEC 2018 distribute it.

    RECOLA/recordings_video/train_1.mp4                 dev_1.mp4, test_1.mp4 and so on
    RECOLA/ratings_gold_standard/arousal/train_1.arff   and valence
    RECOLA/ratings_individual/arousal/train_1.csv       and valence

An .arff has the attributes Instance_name, frameTime in seconds and GoldStandard, a row every 40 ms;
a .csv of the ratings has semicolons, a header, the time and a column for each of six raters. Values
are in [-1, 1]. Ratings of the test partition are not distributed.

Source of names and formats: the notebook on RECOLA of end2you/end2you, and scripts_GES of
AudioVisualEmotionChallenge/AVEC2018 (templateGS.arff, GSCreation.py).
"""

import pathlib
import re

from avjax import files
from avjax.errors import InputError
from avjax.files import tables
from avjax.files.mistakes import Mistakes
from data_prep.labels import DIMENSIONS
from data_prep.sources import Source, known, plain, register
from data_prep.sources.label_files import LabelFile

VIDEOS = 'recordings_video'
RATINGS = {'gold_standard': '.arff', 'individual': '.csv'}
ATTRIBUTE = re.compile(r'@attribute\s+(\S+)', re.IGNORECASE)
TIME, GOLD = 'frametime', 'goldstandard'


@register('recola')
class Recola(Source):
  """RECOLA as AVEC 2016 and 2018 distribute it, with recordings_video/ and ratings_*/."""

  def add_options(self, parser):
    known.add_options(parser)
    parser.add_argument(
      '--ratings',
      choices=RATINGS,
      default='gold_standard',
      help='gold_standard, or the six individual raters, joined as --annotators says (default: '
      'gold_standard)',
    )

  def plan(self, args):
    source, mistakes = files.existing_folder(args.source), Mistakes()
    videos = plain.list_videos(source / VIDEOS, mistakes)
    assigned = known.split_by_name(list(videos), source / VIDEOS, mistakes)
    written: dict[str, list[LabelFile]] = {}
    for dimension in DIMENSIONS:
      folder = files.existing_folder(source / f'ratings_{args.ratings}' / dimension)
      for path in files.visible(folder):
        if path.suffix.lower() == RATINGS[args.ratings]:
          read = read_gold if args.ratings == 'gold_standard' else read_individual
          written.setdefault(path.stem, []).extend(read(path, dimension, mistakes))
        else:
          mistakes.add(
            'entries do not end as ratings do',
            str(path),
            f'; they end with {RATINGS[args.ratings]}',
          )
    return known.plan(videos, written, assigned, mistakes, args)


def read_gold(path: pathlib.Path, dimension: str, mistakes: Mistakes) -> list[LabelFile]:
  """Reads a gold standard (.arff)."""
  lines = [line.strip() for line in files.read_text(path).splitlines()]
  lines = ['' if line.startswith('%') else line for line in lines]  # comments
  begin = next((k for k, line in enumerate(lines) if line.lower() == '@data'), len(lines))
  attributes = filter(None, map(ATTRIBUTE.match, lines[:begin]))
  names = [found[1].strip('\'"').lower() for found in attributes]
  if not {TIME, GOLD} <= set(names):
    raise InputError(f'{path}: no attributes frameTime and GoldStandard')
  data = [''] * (begin + 1) + lines[begin + 1 :]  # lines keep their numbers
  rows = tables.cells_of(path, data, ',', quote="'")
  table = tables.make_table(path, names, rows, mistakes, decimal_comma=False)
  columns = [table.needed(TIME), table.needed(GOLD)]
  found = [(line, row) for line, _, row in table.numbers(columns, mistakes)]
  return [known.one_dimension(path, '', dimension, found, mistakes)]


def read_individual(path: pathlib.Path, dimension: str, mistakes: Mistakes) -> list[LabelFile]:
  """Reads the ratings of each rater (.csv): the first column is the time.

  Raises InputError where a rater has no name, or the name of another.
  """
  table, found = tables.read_table(path, mistakes), []
  raters = table.names[1:]
  if not raters or '' in raters:
    raise InputError(f'{path}, line 1: expected the names of the time and of each rater')
  for rater in raters:
    rows = [(line, row) for line, _, row in table.numbers([0, table.needed(rater)], mistakes)]
    found.append(known.one_dimension(path, rater, dimension, rows, mistakes))
  return found
