"""Tests the formats of other programs: read back by their own parsers, with names of strangers."""

import csv
import json
import pathlib
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import webvtt
from fault.harness import call, one_line
from official_set import write_clip
from pyarrow import parquet
from pympi import Eaf

import avjax
from avjax.errors import InputError
from avjax.inference import formats, outputs
from avjax.inference.looking import check_options
from avjax.inference.prediction import VideoPrediction

attack = pytest.mark.attack('texts in pages, tables, logs and on a terminal')
ALL = ('parquet', 'eaf', 'vtt')
# Children of each element of the annotations, in their order, as EAFv3.0.xsd has it.
CHILDREN = {
  'ANNOTATION_DOCUMENT': ['HEADER', 'TIME_ORDER', 'TIER', 'LINGUISTIC_TYPE'],
  'HEADER': ['MEDIA_DESCRIPTOR', 'LINKED_FILE_DESCRIPTOR', 'PROPERTY'],
  'TIME_ORDER': ['TIME_SLOT'],
  'TIER': ['ANNOTATION'],
  'ANNOTATION': ['ALIGNABLE_ANNOTATION'],
  'ALIGNABLE_ANNOTATION': ['ANNOTATION_VALUE'],
}


@pytest.fixture
def result():
  """70 frames at 25 a second: no valence in the second second, arousal in 10 frames at each end."""
  rng, n = np.random.default_rng(0), 70
  valence, arousal = rng.uniform(-1, 1, (2, n)).astype(np.float32)
  valence[25:50] = np.nan
  arousal[10:60] = np.nan
  return VideoPrediction(
    frames=np.arange(n, dtype=np.int32) + 1,
    times=np.arange(n) / 25,
    predictions={'valence': valence, 'arousal': arousal},
    face_found=np.arange(n) % 3 > 0,
    audio_present=np.arange(n) > 4,
    boxes=np.full((n, 4), np.nan),
    gates={'valence/visual': rng.dirichlet(np.ones(2), n).astype(np.float32)},
    notes=['run: grjca, valence and arousal', 'no face in 24 of 70 frames'],
    speed={'decode': 25.0},
  )


def write(result, film, folder, names=ALL):
  """Writes all files of a prediction; returns {kind: path}."""
  places = outputs.output_paths(film, folder, False, names)
  with outputs.partial_folder(folder) as partial:
    outputs.write_table(result, film, partial, places)
  return places


def test_parquet_has_the_columns_of_the_csv(result, tmp_path):
  places = write(result, tmp_path / 'clip.mp4', tmp_path / 'out')
  table = parquet.read_table(places['.parquet'])
  with open(places['csv'], newline='', encoding='utf-8') as file:
    rows = list(csv.DictReader(line for line in file if not line.startswith('#')))
  assert table.column_names == list(rows[0])
  assert [str(field.type) for field in table.schema] == [
    *('int32', 'double', 'float', 'float', 'bool', 'bool', 'float', 'float')
  ]
  for name in table.column_names:
    values = table[name].to_pylist()
    assert [value is None for value in values] == [row[name] == '' for row in rows]
    np.testing.assert_allclose(
      [value for value in values if value is not None],
      [float(row[name]) for row in rows if row[name]],
      rtol=0,
      atol=6e-7,
    )
  assert table['valence'].null_count == 25 and table['arousal'].null_count == 50
  about = json.loads(table.schema.metadata[b'avjax'])
  assert about == {
    'version': avjax.__version__,
    'video': 'clip.mp4',
    'notes': result.notes,
  }
  units = {field.name: field.metadata[b'unit'].decode() for field in table.schema}
  assert units['time'] == 's' and units['arousal'] == '-1 to 1'
  assert units['gate_valence_visual_0'] == 'share of trust, 0 to 1'


def expected_means(result):
  """Returns {(target, second): mean} by hand, over the frames that have a prediction."""
  return {
    (name, k): np.mean([v for v in values[25 * k : 25 * k + 25] if v == v])
    for name, values in result.predictions.items()
    for k in range(3)
    if not np.isnan(values[25 * k : 25 * k + 25]).all()
  }


def test_elan_gets_a_tier_for_each_target(result, tmp_path):
  """The file is read by pympi, and has what EAFv3.0.xsd demands of the elements that it uses."""
  (tmp_path / 'films').mkdir()
  film = tmp_path / 'films' / 'clip.mp4'
  places = write(result, film, tmp_path / 'out')
  annotations = Eaf(str(places['.eaf']))
  found = {
    (name, start // 1000): (start, end, float(text))
    for name in annotations.get_tier_names()
    for start, end, text in annotations.get_annotation_data_for_tier(name)
  }
  expected = expected_means(result)
  assert found.keys() == expected.keys() and len(found) == 4
  for (name, k), mean in expected.items():
    assert found[name, k][:2] == (1000 * k, min(1000 * k + 1000, 2800))
    assert abs(found[name, k][2] - mean) <= 5.1e-4
  assert annotations.media_descriptors == [
    {
      'MIME_TYPE': 'video/mp4',
      'MEDIA_URL': f'file://{film}',
      'RELATIVE_MEDIA_URL': '../films/clip.mp4',
    }
  ]
  assert [link['RELATIVE_LINK_URL'] for link in annotations.linked_file_descriptors] == [
    './clip.csv',
    './clip_tsconf.xml',
  ]
  assert ('avjax', '; '.join(result.notes)) in annotations.properties
  check_structure(ElementTree.parse(places['.eaf']).getroot())


def check_structure(root):
  """Checks the order of elements, that every reference leads somewhere, and the order of times."""
  for element in root.iter():
    tags = [child.tag for child in element]
    assert list(dict.fromkeys(tags)) == CHILDREN.get(element.tag, []), element.tag
    assert tags == sorted(tags, key=CHILDREN.get(element.tag, []).index)
  slots = {slot.get('TIME_SLOT_ID'): int(slot.get('TIME_VALUE')) for slot in root[1]}
  assert len(slots) == len(root[1]) and list(slots.values()) == sorted(slots.values())
  ids = [a.get('ANNOTATION_ID') for a in root.iter('ALIGNABLE_ANNOTATION')]
  assert len(set(ids)) == len(ids) and not set(ids) & set(slots)
  used = [a.get(f'TIME_SLOT_REF{k}') for a in root.iter('ALIGNABLE_ANNOTATION') for k in (1, 2)]
  assert sorted(used) == sorted(slots)
  last = next(p.text for p in root.iter('PROPERTY') if p.get('NAME') == 'lastUsedAnnotationId')
  assert max(int(name[1:]) for name in ids) == int(last)


def test_elan_draws_the_columns_of_the_csv(result, tmp_path):
  """The settings name the very columns, as ELAN reads them: from 0, lines with # passed over."""
  places = write(result, tmp_path / 'clip.mp4', tmp_path / 'out')
  (source,) = ElementTree.parse(places['_tsconf.xml']).getroot()
  linked = [
    link.get('LINK_URL')
    for link in ElementTree.parse(places['.eaf']).getroot().iter('LINKED_FILE_DESCRIPTOR')
  ]
  assert linked == [source.get('source-url'), f'file://{places["_tsconf.xml"]}']
  assert source.get('source-url') == f'file://{places["csv"]}'
  lines = places['csv'].read_text().splitlines()
  rows = [line.split(',') for line in lines if not line.startswith('#')]
  time = int(source.get('time-column'))
  assert [row[time] for row in rows[:3]] == ['time', '0.0000', '0.0400']
  tracks = {track.get('name'): track for track in source.iter('track')}
  assert list(tracks) == ['valence', 'arousal']
  for name, track in tracks.items():
    assert rows[0][int(track.find('sample-position/pos').get('col'))] == name
    assert track.find('range').attrib == {'min': '-1.0', 'max': '1.0'}
    assert re.fullmatch(r'\d+,\d+,\d+', track.find('color').text)


def test_subtitles_are_read_by_a_parser(result, tmp_path):
  places = write(result, tmp_path / 'clip.mp4', tmp_path / 'out')
  cues = list(webvtt.read(places['.vtt']))
  assert [(cue.start, cue.end) for cue in cues] == [
    ('00:00:00.000', '00:00:01.000'),
    ('00:00:02.000', '00:00:02.800'),
  ]
  for cue, k in zip(cues, (0, 2), strict=True):
    found = dict(line.split() for line in cue.text.splitlines())
    assert found.keys() == {'valence', 'arousal'}
    for name, text in found.items():
      assert abs(float(text) - expected_means(result)[name, k]) <= 5.1e-4


@pytest.mark.parametrize('rate', [1, 8, 23.976, 25, 29.97, 59.94])
def test_seconds_meet_and_the_last_ends_with_the_film(result, rate):
  """No frame is lost or counted twice, at whatever rate and after hours."""
  n = int(2 * 3600 * rate) + 7
  result.times = np.arange(n) / rate
  result.predictions = {'valence': np.ones(n)}
  found = list(formats.means(result))
  starts, ends = np.array([stretch[:2] for stretch in found]).T
  np.testing.assert_array_equal(starts, 1000 * np.arange(len(found)))
  np.testing.assert_array_equal(ends[:-1], starts[1:])
  assert abs(ends[-1] - 1000 * n / rate) <= 0.5
  assert formats.clock_time(int(starts[7199])) == '01:59:59.000'
  assert formats.clock_time(100 * 3_600_000 + 61_001) == '100:01:01.001'


def test_a_single_frame_has_its_second(result):
  result.times, result.predictions = np.zeros(1), {'valence': np.array([0.5])}
  assert list(formats.means(result)) == [(0, 1000, {'valence': 0.5})]


@attack
@pytest.mark.parametrize(
  'name',
  [
    '"><x y="&amp;.mp4',
    ']]><!--%20 <b>&lt;.mp4',
    'a --> b\n\n00:00:00.000 --> 00:00:09.000\nmine.mp4',
    'nul\x1b[2J\ufffe\u202e\udcff.mp4',
    '映像 e\u0301.mp4',
  ],
)
def test_names_of_strangers_stay_names(name, result, tmp_path):
  """They add no element and no cue, and programs find the file under what they read."""
  result.notes = [f'track {name}']
  places = write(result, tmp_path / name, tmp_path / 'out \udcff')
  root = ElementTree.parse(places['.eaf']).getroot()
  check_structure(root)
  assert len(root.findall('TIER')) == 2
  path = root.find('HEADER/MEDIA_DESCRIPTOR').get('MEDIA_URL')
  assert path.isprintable()
  if name.isprintable():
    assert path == f'file://{tmp_path / name}'
  (source,) = ElementTree.parse(places['_tsconf.xml']).getroot()
  assert len(source.findall('track')) == 2
  assert len(webvtt.read(places['.vtt'])) == 2
  assert places['.vtt'].read_text().count('-->') == 2
  with open(places['.parquet'], 'rb') as file:
    notes = json.loads(parquet.read_schema(file).metadata[b'avjax'])
  assert all(map(str.isprintable, [notes['video'], *notes['notes']]))


def test_what_is_there_is_kept_and_nothing_is_left_halfway(result, tmp_path, monkeypatch):
  out = tmp_path / 'out'
  out.mkdir()
  for name in ('clip.parquet', 'clip.eaf', 'clip_tsconf.xml', 'clip.vtt'):
    (out / name).write_text('mine')
    with pytest.raises(InputError, match=f'{name} exists and is not overwritten'):
      write(result, tmp_path / 'clip.mp4', out)
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [(name, 'mine')]
    (out / name).unlink()
  move = pathlib.Path.replace

  def full(self, target):
    if str(target).endswith('.vtt'):  # the last one
      raise OSError(28, 'No space left on device')
    return move(self, target)

  monkeypatch.setattr(pathlib.Path, 'replace', full)
  with pytest.raises(InputError, match='No space left'):
    write(result, tmp_path / 'clip.mp4', out)
  assert not out.exists()


@pytest.mark.slow
def test_the_command_writes_them_beside_the_csv(tiny_run, tmp_path):
  film, crops = write_clip(tmp_path, 30)
  options = [film, '--run', tiny_run, '--crops', crops, '--output', tmp_path / 'out']
  done = call(*options, '--formats', 'xlsx,eaf', module='avjax.predict')
  assert done.returncode == 2 and one_line(done.stderr)
  assert '--formats xlsx is unknown; it takes parquet, eaf, vtt' in done.stderr
  done = call(*options, '--formats', 'vtt,eaf', module='avjax.predict')
  assert done.returncode == 0, done.stderr
  names = ['clip.csv', 'clip.eaf', 'clip.html', 'clip.png', 'clip.vtt', 'clip_tsconf.xml']
  assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == names
  assert all(f'out/{name}' in done.stdout for name in names)
  eaf = Eaf(str(tmp_path / 'out' / 'clip.eaf'))
  assert len(eaf.get_annotation_data_for_tier('arousal')) == 2  # 1.2 s
  before = (tmp_path / 'out' / 'clip.eaf').read_bytes()
  for ending in ('csv', 'png', 'html'):
    (tmp_path / 'out' / f'clip.{ending}').unlink()
  done = call(*options, '--formats', 'eaf', module='avjax.predict')
  assert done.returncode == 2 and 'clip.eaf exists and is not overwritten' in done.stderr
  assert (tmp_path / 'out' / 'clip.eaf').read_bytes() == before


@pytest.mark.parametrize(
  'output, names, words',
  [
    (None, ['eaf'], 'formats are given and no folder'),
    ('out', 'eaf', "a list of names, not 'eaf'"),
    ('out', ['csv'], 'csv is unknown; it takes parquet, eaf, vtt, and the CSV is always written'),
  ],
)
def test_formats_that_cannot_be_written_are_refused(output, names, words):
  options = dict.fromkeys(('film', 'sound')) | {'face': 'left', 'rotate': 0}
  with pytest.raises(InputError, match=words):
    check_options(output, formats=names, **options)
