"""Tests that names and metadata of films do nothing in what is written, and who may read it."""

import csv
import os
import pathlib
import re
import urllib.parse

import numpy as np
import pytest

from avjax.inference import outputs
from avjax.inference.prediction import VideoPrediction

attack = pytest.mark.attack('texts in pages, tables, logs and on a terminal')
FORMULA = '=+-@\t\r\uff1d\uff0b\uff0d\uff20'  # what a spreadsheet may take for one at the start


def make_prediction(notes=()):
  """Makes a prediction of three frames."""
  return VideoPrediction(
    frames=np.arange(3) + 1,
    times=np.arange(3) / 25,
    predictions={'valence': np.array([-0.5, np.nan, 0.5])},
    face_found=np.ones(3, bool),
    audio_present=np.ones(3, bool),
    boxes=np.full((3, 4), np.nan),
    gates={},
    notes=list(notes),
    speed={'decode': 25.0},
  )


@pytest.fixture
def usual_umask():
  before = os.umask(0o022)
  yield
  os.umask(before)


@attack
@pytest.mark.parametrize(
  'name',
  [
    '=1+1',
    'a,=HYPERLINK("http:||stranger.invalid","open")',
    "b;+cmd|' |C calc'!A0",
    'c, -2+3',
    "d,'@SUM(1)",
    'e,"=1+1',
    'f|=1',
    'g,\uff1d1',
    'h\n=1,2',
    'i\r\n,=1',
    'j,\t=1',
    'k,\u3000=1',
    '100%,%3D1',
  ],
)
def test_a_name_is_no_formula_and_no_row(name, tmp_path):
  """It may be that of the film, of the run, or that of a track in the film's metadata."""
  film, result = pathlib.Path(f'{name}.mp4'), make_prediction([f'{name}: grjca', f'track {name}'])
  outputs.write_csv(result, film, tmp_path / 'made.csv')
  text = (tmp_path / 'made.csv').read_bytes().decode()
  lines = text.split('\n')
  assert [line[:2] for line in lines] == ['# ', '# ', 'fr', '1,', '2,', '3,', '']
  assert text.replace('\n', '').isprintable()
  for separator in ',;|\t':
    for row in csv.reader(lines[:2], delimiter=separator):
      for cell in row:
        assert cell.strip(' \'"\\')[:1] not in set(FORMULA), cell
  # A reader gets the names back, characters that do not print as their escapes.
  shown = f'{name}.mp4; {name}: grjca; track {name}'
  shown = re.sub(r'[^\x20-\x7e\uff1d]', lambda c: ascii(c[0])[1:-1], shown)
  assert urllib.parse.unquote(lines[0]) == f'# avjax: {shown}'


def test_usual_names_stay_as_they_are(tmp_path):
  name = '10-25-64x48, part 2 - the (end) = 映像.mp4'
  outputs.write_csv(
    make_prediction(['no face in 2 of 3 frames']), pathlib.Path(name), tmp_path / 'x'
  )
  first = (tmp_path / 'x').read_text(encoding='utf-8').splitlines()[0]
  assert first == f'# avjax: {name}; no face in 2 of 3 frames'


@attack
def test_the_summary_has_its_lines_only_and_no_escapes():
  name = 'a\x1b[2K\r\nvalence    mean +1.000\u202e.mp4'
  result = make_prediction([f'track {name}'])
  text = outputs.summary(result, pathlib.Path(name), {'csv': pathlib.Path(f'out/{name}')})
  lines = text.split('\n')
  assert len(lines) == 5 and all(map(str.isprintable, lines))
  shown = r'a\x1b[2K\r\nvalence    mean +1.000\u202e.mp4'
  assert lines[0].startswith(f'{shown}: 3 frames') and lines[2] == f'track {shown}'
  assert lines[4] == f'out/{shown}'


@attack
def test_only_the_user_reads_the_page(tmp_path, usual_umask):
  film, out = pathlib.Path('a.mp4'), tmp_path / 'out'
  places = outputs.output_paths(film, out, overlay=False)
  with outputs.partial_folder(out) as partial:
    (partial / 'clip.mp4').write_bytes(b'a face')
    outputs.write_table(make_prediction(), film, partial, places)
    outputs.write_page(make_prediction(), film, partial, places)
  modes = {path.suffix: path.stat().st_mode & 0o777 for path in out.iterdir()}
  assert modes == {'.html': 0o600, '.csv': 0o644, '.png': 0o644}
