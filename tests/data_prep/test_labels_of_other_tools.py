"""Tests labels that were made in ELAN or stand in a file of OpenFace."""

import numpy as np
import pytest
from official_set import write_video
from pympi import Eaf

from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from avjax.inference import outputs
from avjax.inference.prediction import VideoPrediction
from data_prep import build
from data_prep.labels import TimedLabels, Trace
from data_prep.sources import elan, label_files, plain

TIMES = np.arange(100) / 25  # four seconds
EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2026-01-01T12:00:00+01:00" FORMAT="3.0" VERSION="3.0">
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///a.mp4" MIME_TYPE="video/mp4"/>
        <PROPERTY NAME="lastUsedAnnotationId">5</PROPERTY>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1000"/>
        <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="3500"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="Valence">
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
                <ANNOTATION_VALUE>-0.5</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
                <ANNOTATION_VALUE>0,25</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="words" TIER_ID="words">
        <ANNOTATION>
            <ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts3">
                <ANNOTATION_VALUE>a &amp; b</ANNOTATION_VALUE>
            </ALIGNABLE_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="dependent" PARENT_REF="Valence" TIER_ID="arousal">
        <ANNOTATION>
            <REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
                <ANNOTATION_VALUE>1</ANNOTATION_VALUE>
            </REF_ANNOTATION>
        </ANNOTATION>
        <ANNOTATION>
            <REF_ANNOTATION ANNOTATION_ID="a5" ANNOTATION_REF="a2">
                <ANNOTATION_VALUE></ANNOTATION_VALUE>
            </REF_ANNOTATION>
        </ANNOTATION>
    </TIER>
    <LINGUISTIC_TYPE LINGUISTIC_TYPE_ID="default-lt" TIME_ALIGNABLE="true"/>
</ANNOTATION_DOCUMENT>
"""
# Its first annotations are in no tier.
OUTSIDE = EAF.replace('<TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="Valence">', '{}').replace(
  '</TIER>', '', 1
)
# The same annotations as ELAN exports them, with a row for each and with a column for each tier.
BY_ROWS = """"#file:///a.mp4 -- offset: 0"

Valence\t\t00:00:00.000\t0.0\t00:00:01.000\t1.0\t00:00:01.000\t1.0\t-0.5
Valence\t\t00:00:01.000\t1.0\t00:00:03.500\t3.5\t00:00:02.500\t2.5\t0,25
words\tB\t00:00:00.000\t0.0\t00:00:03.500\t3.5\t00:00:03.500\t3.5\ta & b
arousal\t\t00:00:00.000\t0.0\t00:00:01.000\t1.0\t00:00:01.000\t1.0\t1
arousal\t\t00:00:01.000\t1.0\t00:00:03.500\t3.5\t00:00:02.500\t2.5\t
"""
BY_COLUMNS = """Begin Time - msec\tEnd Time - msec\tDuration - msec\tValence\twords\tarousal
0\t1000\t1000\t-0.5\t\t1
0\t3500\t3500\t\ta & b
1000\t3500\t2500\t0,25\t\t
"""
BY_COLUMNS_CSV = """"Begin Time - hh:mm:ss.ms","End Time - hh:mm:ss.ms","Valence","words","arousal"
00:00:00.000,00:00:01.000,"-0.5",,"1"
00:00:00.000,00:00:03.500,,"a, b",
00:00:01.000,00:00:03.500,"0,25",,
"""


def read(path):
  """Reads a file of labels; returns valence and arousal at TIMES (n,2), NaN for none."""
  mistakes = Mistakes()
  found = plain.read_labels(path, '', mistakes)
  mistakes.raise_if_any()
  rows = []
  for d in range(2):  # each dimension alone, since frames with one of them are not annotated
    values = np.repeat(found.values[:, d : d + 1], 2, axis=1)
    trace = Trace('', found.places, values)
    labels = TimedLabels((trace,), np.ones((1, 2)), found.by_frame, 0, 0.1)
    values, annotated = labels.on_frames(TIMES)
    rows.append(np.where(annotated, values[:, 0], np.nan))
  return np.stack(rows, axis=1)


def expected():
  """Returns what EAF says at TIMES; a frame at the very end of an annotation is outside."""
  valence = np.where(TIMES < 1, -0.5, np.where(TIMES < 3.5, 0.25, np.nan))
  return np.stack([valence, np.where(TIMES < 1, 1, np.nan)], axis=1)


@pytest.mark.parametrize(
  'name, text',
  [
    ('a.eaf', EAF),
    ('a.txt', BY_ROWS),
    ('b.txt', BY_COLUMNS),
    ('a.csv', BY_COLUMNS_CSV),
    ('c.txt', '\ufeff' + BY_ROWS.replace('\n', '\r\n')),
  ],
)
def test_annotations_hold_from_their_begin_to_their_end(name, text, tmp_path):
  """However ELAN writes them; an annotation of 2.5 s is joined where --label_gap is 0.1 s."""
  (tmp_path / name).write_bytes(text.encode())
  np.testing.assert_array_equal(read(tmp_path / name), expected())


@pytest.mark.parametrize('participant', [(), ('',), ('0',), ('12.5',)])
def test_columns_of_rows_are_taken_by_their_place(participant, tmp_path):
  """A participant who is a number is no time; durations in place of ends are refused."""
  rows = [('valence', 0, 1000, '-0.5'), ('valence', 1000, 3500, '0.25'), ('arousal', 0, 1000, '1')]

  def write(times):
    lines = ('\t'.join(map(str, (t, *participant, *times(b, e), v))) for t, b, e, v in rows)
    (tmp_path / 'a.txt').write_text('\n'.join(lines) + '\n')

  write(lambda begin, end: (begin, end, end - begin))
  np.testing.assert_array_equal(read(tmp_path / 'a.txt'), expected())
  for times in (lambda begin, end: (begin, end), lambda begin, end: (begin, end - begin)):
    write(times)
    with pytest.raises(InputError, match='no begin, end and duration of an annotation'):
      read(tmp_path / 'a.txt')


def test_frames_close_to_an_annotation_are_outside(tmp_path):
  """Those at 0.04 and 3.52 s, though labels of tables reach half a frame further."""
  text = EAF.replace('TIME_VALUE="0"', 'TIME_VALUE="50"').replace('3500', '3510')
  (tmp_path / 'a.eaf').write_text(text)
  given = np.isfinite(read(tmp_path / 'a.eaf')[:, 0])
  np.testing.assert_array_equal(given, (TIMES >= 0.05) & (TIMES < 3.51))


def test_an_annotation_may_say_that_there_is_no_value(tmp_path):
  """As a cell of a table may; numbers are what they are there, too."""
  (tmp_path / 'a.eaf').write_text(EAF.replace('>-0.5<', '>NA<').replace('>0,25<', '>2,5e-1<'))
  found = read(tmp_path / 'a.eaf')
  assert np.isnan(found[:25, 0]).all()
  np.testing.assert_array_equal(found[25:], expected()[25:])


@pytest.mark.parametrize('values, line', [(('5.5', '0', '0'), 1), (('0', '0', '5.5'), 3)])
def test_an_annotation_outside_the_scale_is_one_mistake(values, line, tmp_path):
  """It is named by its own line, whatever the other tier holds at the same time."""
  rows = 'valence\t0\t2000\t2000\t{}\narousal\t0\t500\t500\t{}\narousal\t500\t2000\t1500\t{}\n'
  (tmp_path / 'a.txt').write_text(rows.format(*values))
  mistakes = Mistakes()
  found = plain.read_labels(tmp_path / 'a.txt', '', mistakes)
  where = ['--source', str(tmp_path), '--data_dir', str(tmp_path / 'records')]
  with pytest.raises(InputError) as caught:
    label_files.join({'a': [found]}, build.parse_args(['--layout', 'plain', *where]), mistakes)
  said = f'1 label is outside [-1, 1]: {tmp_path}/a.txt, line {line} (5.5); '
  assert str(caught.value).startswith(said)


def test_a_file_that_another_program_writes(tmp_path):
  """pympi writes the .eaf; the two tiers have other times."""
  rng, eaf = np.random.default_rng(0), Eaf(author='')
  found = np.full((2, len(TIMES)), np.nan)
  for d, name in enumerate(('valence', 'arousal')):
    eaf.add_tier(name)
    cuts = np.sort(rng.choice(np.arange(1, 99), 8, replace=False))
    for begin, end in zip(cuts[::2], cuts[1::2], strict=True):
      value = round(float(rng.uniform(-1, 1)), 3)
      eaf.add_annotation(name, int(40 * begin), int(40 * end), str(value))
      found[d, begin:end] = value
  eaf.to_file(str(tmp_path / 'a.eaf'))
  np.testing.assert_allclose(read(tmp_path / 'a.eaf'), found.T, rtol=0, atol=1e-7)


def test_predictions_come_back_as_labels(tmp_path):
  """What avjax.predict writes for ELAN is read as labels: the means over each second."""
  rng, n = np.random.default_rng(0), len(TIMES)
  predictions = dict(zip(('valence', 'arousal'), rng.uniform(-1, 1, (2, n)), strict=True))
  for values in predictions.values():
    values[50:75] = np.nan
  result = VideoPrediction(
    frames=np.arange(n) + 1,
    times=TIMES,
    predictions=predictions,
    face_found=np.ones(n, bool),
    audio_present=np.ones(n, bool),
    boxes=np.full((n, 4), np.nan),
    gates={},
    notes=[],
    speed={},
  )
  places = outputs.output_paths(tmp_path / 'a.mp4', tmp_path / 'out', False, ('eaf',))
  with outputs.partial_folder(tmp_path / 'out') as partial:
    outputs.write_table(result, tmp_path / 'a.mp4', partial, places)
  found = read(places['.eaf'])
  for d, values in enumerate(predictions.values()):
    means = np.repeat(values.reshape(4, 25).mean(axis=1), 25)
    np.testing.assert_allclose(found[:, d], means, rtol=0, atol=5.1e-4)


def test_times_count_from_the_first_medium(tmp_path):
  """TIME_ORIGIN is where the begin of the document lies in the film."""
  text = EAF.replace('MIME_TYPE="video/mp4"', 'MIME_TYPE="video/mp4" TIME_ORIGIN="400"')
  (tmp_path / 'a.eaf').write_text(text)
  found = read(tmp_path / 'a.eaf')
  np.testing.assert_array_equal(found[10:], expected()[:-10])
  assert np.isnan(found[:10]).all()


@pytest.mark.parametrize(
  'name, text, before, after, words',
  [
    ('a.eaf', EAF, 'TIER_ID="arousal"', 'TIER_ID="Arousal 2"', 'no tier called arousal; its tiers'),
    (
      'a.eaf',
      EAF,
      '>-0.5<',
      '>low<',
      "1 cell of labels holds no number: .* 14 ('low' is no number)",
    ),
    ('a.eaf', EAF, '"a2" TIME_SLOT_REF1="ts2"', '"a2" TIME_SLOT_REF1="ts1"', 'valence overlap'),
    (
      'a.eaf',
      EAF,
      'TIME_VALUE="1000"',
      'TIME_VALUE="4000"',
      '1 annotation has an end before the begin',
    ),
    ('a.eaf', EAF, ' TIME_VALUE="1000"', '', 'the annotation a1 in line 14 has no times'),
    ('a.eaf', EAF, 'milliseconds', 'PAL-frames', 'its times are in PAL-frames'),
    ('a.eaf', EAF, '</TIER>', '', 'a.eaf is no file of ELAN: mismatched tag'),
    ('a.eaf', EAF, 'TIME_SLOT_ID="ts1"', '', 'a.eaf is no file of ELAN: .*TIME_SLOT_ID'),
    ('a.eaf', EAF, 'ANNOTATION_DOCUMENT AUTHOR', 'html AUTHOR', 'a.eaf is no file of ELAN'),
    (
      'a.txt',
      BY_ROWS,
      '\t\t00:00:00.000\t0.0\t00:00:01.000\t1.0\t00:00:01.000\t1.0\t-',
      '\t',
      'no begin, end and duration of an annotation',
    ),
    ('a.txt', BY_ROWS, '\t0,25', '\tmore\t0,25', '1 row has no begin, .*line 4; export tier names'),
    ('a.txt', BY_ROWS, '0:02.500\t2.5\t0,25', '0:02.600\t2.5\t0,25', 'no begin, .*a.txt, line 4'),
    ('a.txt', BY_ROWS, 'arousal', 'words', 'no annotation with a number in one of the tiers'),
    ('a.txt', BY_COLUMNS, 'End Time - msec', 'Ende', 'no column end time - msec'),
    ('a.csv', BY_COLUMNS_CSV, '"a, b"', '"a, b', 'a.csv, line 3: a quote is opened and not closed'),
    ('a.txt', BY_COLUMNS, '\n1000', f'\n{"9" * 5000}', 'row has no time: .*a.txt, line 4'),
    ('a.txt', BY_COLUMNS, '\n1000', '\nx', 'row has no time: .*a.txt, line 4'),
  ],
)
def test_what_does_not_fit_is_said_in_one_line(name, text, before, after, words, tmp_path):
  assert before in text
  (tmp_path / name).write_text(text.replace(before, after, 1))
  with pytest.raises(InputError, match=words.replace('(', r'\(').replace(')', r'\)')) as caught:
    read(tmp_path / name)
  assert '\n' not in str(caught.value)


@pytest.mark.attack('sources of records: crops, lists, features')
@pytest.mark.parametrize(
  'text, words',
  [
    (
      f'<!DOCTYPE a [<!ENTITY a "{"a" * 99}"><!ENTITY b "{"&a;" * 99}">]>{EAF[39:]}',
      'it declares a document type',
    ),
    (EAF.replace('ANNOTATION_REF="a1"', 'ANNOTATION_REF="a4"'), 'a4 in line 33 has no times'),
    (EAF.replace('TIME_VALUE="0"', f'TIME_VALUE="{"9" * 5000}"'), 'is no file of ELAN'),
    (EAF.replace('TIME_VALUE="0"', f'TIME_VALUE="{"9" * 400}"'), 'is no file of ELAN'),
    (OUTSIDE.format(''), 'the annotation in line 14 is in no tier'),
    (OUTSIDE.format('<TIER TIER_ID="Valence"/>'), 'the annotation in line 14 is in no tier'),
    ('<a>' * 100_000, 'is no file of ELAN'),
    (
      EAF.replace('TIME_VALUE="3500"', 'TIME_VALUE="999999999999"'),
      'more than a day from',
    ),
  ],
)
def test_files_of_strangers(text, words, tmp_path):
  (tmp_path / 'a.eaf').write_text(text)
  with pytest.raises(InputError, match=words):
    read(tmp_path / 'a.eaf')


@pytest.mark.slow
def test_the_plain_layout_takes_them_side_by_side(tmp_path, capsys):
  """One annotator may have worked in ELAN and another may have written a table."""
  (tmp_path / 'videos').mkdir()
  for name in 'abc':
    write_video(tmp_path / 'videos' / f'{name}.mp4', 100)
  (tmp_path / 'labels/b').mkdir(parents=True)
  (tmp_path / 'labels/a.eaf').write_text(EAF)
  (tmp_path / 'labels/b/anna.txt').write_text(BY_ROWS)
  (tmp_path / 'labels/b/bert.csv').write_text('time,valence,arousal\n0,0.5,0.5\n0.5,0.5,0.5\n')
  (tmp_path / 'labels/c.csv').write_text(OPENFACE)
  where = ['--source', str(tmp_path), '--data_dir', str(tmp_path / 'records')]
  options = ['--layout', 'plain', *where, '--workers', '1', '--dry-run']
  assert build.main(options) == 0
  printed = capsys.readouterr().out
  (row,) = [line.split() for line in printed.splitlines() if line.startswith('all ')]
  # a: until 1 s, where arousal ends; b: both until 0.5 s, then anna alone; c: three frames.
  assert row == ['all', '3', '-', '300', '12', f'{1 + 1 + 3 / 25:.1f}']


# OpenFace.

OPENFACE = """frame, face_id, timestamp, confidence, success, gaze_0_x, AU01_r, valence, arousal
1, 0, 0.000, 0.98, 1, 0.1, 0.00, 0.10, -0.20
2, 0, 0.040, 0.98, 1, 0.1, 0.00, 0.20, -0.30
3, 0, 0.080, 0.03, 0, 0.0, 0.00, 0.90, 0.90
4, 0, 0.120, 0.98, 1, 0.1, 0.00, 0.40, -0.50
"""


@pytest.mark.parametrize('confidence', ['confidence', 'other'])
def test_openface_with_labels(confidence, tmp_path):
  """Names have blanks before them; where the face was lost, there is no label.

  So it is where a person has left only some of OpenFace's columns.
  """
  (tmp_path / 'a.csv').write_text(OPENFACE.replace('confidence', confidence))
  found = read(tmp_path / 'a.csv')
  assert np.isnan(found[2]).all() and np.isnan(found[4:]).all()
  np.testing.assert_allclose(found[[0, 1, 3]], [[0.1, -0.2], [0.2, -0.3], [0.4, -0.5]], atol=1e-7)


@pytest.mark.parametrize(
  'before, after, words',
  [
    (', valence, arousal', ', AU02_r, AU04_r', 'no column is called valence'),
    ('\n2, 0,', '\n1, 1,', '1 row is of a second face: .*line 3 (face_id 1)'),
    ('0.03, 0,', '0.03, no,', "1 cell of labels holds no number: .*line 4 ('no' is no number)"),
  ],
)
def test_openface_that_does_not_fit(before, after, words, tmp_path):
  assert before in OPENFACE
  (tmp_path / 'a.csv').write_text(OPENFACE.replace(before, after, 1))
  with pytest.raises(InputError, match=words.replace('(', r'\(').replace(')', r'\)')):
    read(tmp_path / 'a.csv')


def test_a_table_of_labels_is_no_export_of_elan(tmp_path):
  (tmp_path / 'a.csv').write_text('time,valence,arousal\n0,0.5,0.25\n')
  assert not elan.is_export(tmp_path / 'a.csv')


def test_mistakes_of_one_file_of_elan_do_not_hide_those_of_the_next(tmp_path):
  """In the first a value is no number, and in the second one is out of range."""
  for folder in ('videos', 'labels'):
    (tmp_path / folder).mkdir()
  for name, value in (('a', 'x'), ('b', '5.5')):
    (tmp_path / 'videos' / f'{name}.avi').write_text('no film')
    (tmp_path / 'labels' / f'{name}.eaf').write_text(EAF.replace('>-0.5<', f'>{value}<'))
  where = ['--source', str(tmp_path), '--data_dir', str(tmp_path / 'records')]
  with pytest.raises(InputError) as error:
    plain.Plain().plan(build.parse_args(['--layout', 'plain', *where]))
  first, second = error.value.args
  assert 'a.eaf, line' in first and "'x' is no number" in first
  assert 'outside [-1, 1]' in second and 'b.eaf, line' in second
