"""Tests the layouts of known data sets, each on a miniature that is written here as documented.

The real sets are under licences and are not here; nobody has tried these readers on them.
"""

import functools
import json
import pathlib
import re
import shutil
import tempfile

import numpy as np
import pytest
from official_set import SIZES, write_video

from avjax.errors import InputError
from avjax.files.mistakes import Mistakes
from data_prep import build
from data_prep.sources import SOURCES, muse, recola, sewa

FRAMES, RATE = 50, 25  # two seconds
TIMES = np.arange(FRAMES) / RATE


def plan(layout, source, *options):
  """Returns {clip: (split, Job)} that a layout plans."""
  where = ['--source', str(source), '--data_dir', str(source / 'records')]
  args = build.parse_args(['--layout', layout, *where, *options])
  return {
    job.clip.name: (split, job)
    for split, jobs in SOURCES[layout].plan(args).items()
    for job in jobs
  }


def labels_of(job):
  """Returns labels (n,2) of a Job at the frames of its film, NaN where it is not annotated."""
  labels, annotated = job.timed.on_frames(TIMES)
  return np.where(annotated[:, None], labels, np.nan)


@functools.cache
def film_bytes(ending):
  """Returns two seconds of film with sound."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / f'film{ending}'
    write_video(path, FRAMES, 0.3 * np.sin(np.arange(2 * 44_100) / 20))
    return path.read_bytes()


def film(path):
  """Writes two seconds of film with sound."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(film_bytes(path.suffix))


def dry_run(layout, source, capsys, *options):
  """Runs a build that writes nothing, which opens every film; returns what it prints."""
  where = ['--source', str(source), '--data_dir', str(source / 'records')]
  assert build.main(['--layout', layout, *where, '--dry-run', '--workers', '1', *options]) == 0
  return capsys.readouterr().out


def wave(k, rate):
  """Returns times (m,) of two seconds, and a smooth valence and arousal (m,) that differ by k."""
  times = np.arange(2 * rate + 1) / rate
  return times, 0.5 * np.sin(times + k), 0.8 * np.cos(2 * times + k)


# RECOLA.


def make_recola(root):
  """Writes a miniature RECOLA: three labelled recordings and one of the test partition."""
  for k, name in enumerate(('train_1', 'train_2', 'dev_1', 'test_1')):
    film(root / 'recordings_video' / f'{name}.mp4')
    if name == 'test_1':
      continue
    times, *both = wave(k, 25)
    for dimension, values in zip(('valence', 'arousal'), both, strict=True):
      gold = root / 'ratings_gold_standard' / dimension
      gold.mkdir(parents=True, exist_ok=True)
      attributes = ('Instance_name string', 'frameTime numeric', 'GoldStandard numeric')
      (gold / f'{name}.arff').write_text(
        '@relation GOLDSTANDARD\n\n'
        + '\n'.join(f'@attribute {attribute}' for attribute in attributes)
        + '\n\n\n@data\n\n'
        + '\n'.join(f"'{name}',{t:.2f},{v:.6f}" for t, v in zip(times, values, strict=True))
        + '\n'
      )
      raters = root / 'ratings_individual' / dimension
      raters.mkdir(parents=True, exist_ok=True)
      six = values[:, None] + np.array([0.15, 0.05, 0.1, -0.15, -0.05, -0.1])
      (raters / f'{name}.csv').write_text(
        'time;FM1;FM2;FM3;FF1;FF2;FF3\n'
        + '\n'.join(
          ';'.join([f'{t:.2f}', *(f'{v:.6f}' for v in row)])
          for t, row in zip(times, six, strict=True)
        )
      )


@pytest.mark.parametrize('ratings', recola.RATINGS)
def test_recola(tmp_path, ratings, capsys):
  make_recola(tmp_path)
  found = plan('recola', tmp_path, '--ratings', ratings)
  assert {name: split for name, (split, _) in found.items()} == {
    'train_1': 'train',
    'train_2': 'train',
    'dev_1': 'validation',
    'test_1': 'test',
  }
  for k, name in enumerate(('train_1', 'train_2', 'dev_1')):
    _, valence, arousal = wave(k, 25)
    expected = np.stack([valence, arousal], axis=1)[:FRAMES]
    np.testing.assert_allclose(labels_of(found[name][1]), expected, rtol=0, atol=2e-6)
  assert found['test_1'][1].timed is None
  raters = {trace.annotator for trace in found['dev_1'][1].timed.traces}
  assert len(raters) == (1 if ratings == 'gold_standard' else 6)
  printed = dry_run('recola', tmp_path, capsys, '--ratings', ratings)
  assert ('annotators agree' in printed) == (ratings == 'individual')


@pytest.mark.parametrize(
  'header, words',
  [
    ('time;FM1;FM1;', 'a.csv, line 1: the columns fm1 and fm1 say the same thing'),
    ('time;FM1;;FM2', 'a.csv, line 1: expected the names of the time and of each rater'),
    ('time;', 'a.csv, line 1: expected the names of the time and of each rater'),
    (';;', 'a.csv, line 1: expected a header'),
  ],
)
def test_each_rater_of_recola_has_a_name_of_their_own(tmp_path, header, words):
  (tmp_path / 'a.csv').write_text(f'{header}\n0;0.5;0.5;\n')
  with pytest.raises(InputError, match=words):
    recola.read_individual(tmp_path / 'a.csv', 'valence', Mistakes())


@pytest.mark.slow
def test_records_of_recola(tmp_path):
  """Records are built of a known layout, here with crops, so that no faces are looked for."""
  from PIL import Image

  make_recola(tmp_path)
  for name in ('train_1', 'train_2', 'dev_1', 'test_1'):
    folder = tmp_path / 'crops' / name
    folder.mkdir(parents=True)
    for k in range(1, FRAMES + 1):
      Image.new('RGB', (112, 112), (k, 2 * k, 90)).save(folder / f'{k:05d}.jpg')
  where = ['--source', str(tmp_path), '--data_dir', str(tmp_path / 'records')]
  assert build.main(['--layout', 'recola', *where, '--workers', '1', *SIZES]) == 0
  (manifest,) = (tmp_path / 'records').rglob('manifest.json')
  chunks = json.loads(manifest.read_text())['chunks']
  assert {split: chunk['clips'] for split, chunk in chunks.items()} == {
    'train': {'train_1': FRAMES, 'train_2': FRAMES},
    'validation': {'dev_1': FRAMES},
    'test': {'test_1': FRAMES},
  }


# SEWA.


@pytest.mark.slow
@pytest.mark.parametrize('header', [True, False])
def test_sewa(tmp_path, header, capsys):
  """Labels of 2019 have a header, those of 2017 and 2018 have none."""
  names = ('Train_DE_01', 'Train_HU_01', 'Devel_DE_01', 'Test_CN_01')
  (tmp_path / 'labels').mkdir()
  for k, name in enumerate(names):
    film(tmp_path / 'video' / f'{name}.avi')
    if name.startswith('Test'):
      continue
    rows = [f"'{name}';{t:.6f};{a:.6f};{v:.6f};0.9" for t, v, a in zip(*wave(k, 10), strict=True)]
    head = ['name;timestamp;arousal;valence;liking'] if header else []
    (tmp_path / 'labels' / f'{name}.csv').write_text('\n'.join([*head, *rows]) + '\n')
  found = plan('sewa', tmp_path)
  assert [found[name][0] for name in names] == ['train', 'train', 'validation', 'test']
  for k, name in enumerate(names[:3]):
    times, *both = wave(k, 10)
    expected = np.stack([np.interp(TIMES, times, values) for values in both], axis=1)
    np.testing.assert_allclose(labels_of(found[name][1]), expected, rtol=0, atol=2e-6)
  assert 'validation' in dry_run('sewa', tmp_path, capsys)


@pytest.mark.parametrize(
  'text, words',
  [
    ('name;arousal;valence;liking\n{0};0.1;0.2;0.9', 'line 1: no column is called timestamp'),
    ('{0};0.1;0.2;0.9', r'1 row has more or fewer cells .*Train_DE_01.csv, line 1 \(4 cells\)'),
    (
      "{0};0;0.1;0.2;0\n'Devel_DE_01';1;0.1;0.2;0",
      r"1 row has the name of another recording: .*Train_DE_01.csv, line 2 \('Devel_DE_01'\)$",
    ),
  ],
)
def test_labels_of_sewa_that_have_no_time_or_another_name_are_refused(tmp_path, text, words):
  path, mistakes = tmp_path / 'Train_DE_01.csv', Mistakes()
  path.write_text(text.format("'Train_DE_01'") + '\n')
  with mistakes.caught():
    sewa.read_labels(path, mistakes)
  (said,) = mistakes.lines()
  assert re.search(words, said), said


def test_sewa_refuses_two_files_of_labels_for_a_recording(tmp_path):
  for name in ('video/Train_01.avi', 'labels/Train_01.csv', 'labels/Train_01.CSV'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("'Train_01';0;0.1;0.2;0\n")
  with pytest.raises(
    InputError, match='1 recording has two files of labels: .*Train_01.csv; leave'
  ):
    plan('sewa', tmp_path)


# MuSe.


def make_muse(root, arousal='arousal'):
  """Writes a miniature task of MuSe: two segments with a pause, labels of the test are empty."""
  for k, (name, part) in enumerate((('1', 'train'), ('2', 'devel'), ('13', 'test'))):
    film(root / 'raw_data/video' / f'{name}.mp4')
    times, *both = wave(k, 4)
    for folder, values in zip(('valence', arousal), both, strict=True):
      (root / 'label_segments' / folder).mkdir(parents=True, exist_ok=True)
      rows = ['timestamp,value,segment_id']
      for t, value in zip(times, values, strict=True):
        if t <= 0.5 or t >= 1.5:
          text = '' if part == 'test' else f'{value:.6f}'
          rows.append(f'{round(1000 * t)},{text},{1 if t <= 0.5 else 2}')
      (root / 'label_segments' / folder / f'{name}.csv').write_text('\n'.join(rows) + '\n')
  (root / 'metadata').mkdir()
  (root / 'metadata/partition.csv').write_text('Id,Proposal\n1,train\n2,devel\n13,test\n')


@pytest.mark.parametrize('arousal', ['arousal', 'physio-arousal'])
def test_muse(tmp_path, arousal, capsys):
  make_muse(tmp_path, arousal)
  found = plan('muse', tmp_path, '--label_gap', '0.25')
  splits = {name: split for name, (split, _) in found.items()}
  assert splits == {'1': 'train', '2': 'validation', '13': 'test'}
  for k, name in enumerate(('1', '2')):
    times, *both = wave(k, 4)
    # A frame less than half a frame after a label has its value.
    moments = np.where(TIMES < 1, np.minimum(TIMES, 0.5), np.maximum(TIMES, 1.5))
    expected = np.stack([np.interp(moments, times, values) for values in both], axis=1)
    expected[(TIMES > 0.53) & (TIMES < 1.47)] = np.nan
    np.testing.assert_allclose(labels_of(found[name][1]), expected, rtol=0, atol=2e-6)
  assert found['13'][1].timed is None
  dry_run('muse', tmp_path, capsys, '--label_gap', '0.25')


@pytest.mark.parametrize('text', ['timestamp,value,segment_id\n', 'timestamp,value\n0,\n250,\n'])
def test_labels_of_the_test_partition_of_muse_may_be_empty(tmp_path, text):
  make_muse(tmp_path)
  for dimension in ('valence', 'arousal'):
    (tmp_path / f'label_segments/{dimension}/13.csv').write_text(text)
  split, job = plan('muse', tmp_path)['13']
  assert split == 'test' and job.timed is None


def test_muse_with_two_arousals_asks_which(tmp_path):
  make_muse(tmp_path)
  (tmp_path / 'label_segments/physio-arousal').mkdir()
  with pytest.raises(InputError, match='holds arousal and physio-arousal; name one with --arousal'):
    plan('muse', tmp_path)
  assert plan('muse', tmp_path, '--arousal', 'arousal')


# AFEW-VA.


def make_afew(root):
  """Writes three clips of two actors, with values that are the numbers of their frames."""
  for name, actor in (('001', 'A. Actor'), ('002', 'B. Other'), ('003', 'A. Actor')):
    film(root / 'videos' / f'{name}.mp4')
    (root / name).mkdir()
    frames = {
      f'{k:05d}': {
        'landmarks': [[1.0, 2.0]] * 68,
        'valence': float(k % 21 - 10),
        'arousal': float(10 - k % 21),
      }
      for k in range(FRAMES)
    }
    content = {'video_id': name, 'actor': actor, 'frames': frames}
    (root / name / f'{name}.json').write_text(json.dumps(content))


def test_afew_va(tmp_path, capsys):
  make_afew(tmp_path)
  found = plan('afew-va', tmp_path)
  assert found['001'][0] == found['003'][0] != found['002'][0]  # no actor is in two folds
  valence = (np.arange(FRAMES) % 21 - 10) / 10
  for _, job in found.values():
    np.testing.assert_allclose(labels_of(job), np.stack([valence, -valence], 1), rtol=0, atol=1e-6)
  dry_run('afew-va', tmp_path, capsys)


# OMG-Emotion.


def make_omg(root, gone=()):
  """Writes the tables of OMG-Emotion and its utterances, without those of videos in `gone`."""
  for table, videos in (('Train', 'ab'), ('Validation', 'c')):
    rows = ['link,start,end,video,utterance,arousal,valence,EmotionMaxVote']
    for k, video in enumerate(videos):
      for n in (1, 2):
        row = f'https://video.invalid/{video},{n},{n + 2},{video}1f_1,utterance_{n}.mp4'
        rows.append(f'{row},{0.25 * n},{-0.3 * k - 0.1},4')
        if video not in gone:
          film(root / f'{video}1f_1' / f'utterance_{n}.mp4')
    (root / f'omg_{table}Videos.csv').write_text('\n'.join(rows) + '\n')


def test_omg(tmp_path, capsys):
  """The value of an utterance holds for each of its frames, whatever may be joined."""
  make_omg(tmp_path, gone='b')
  found = plan('omg', tmp_path, '--label_gap', '0')
  assert '2 of 6 utterances have no video and are left out' in capsys.readouterr().out
  assert {name: (split, job.subject) for name, (split, job) in found.items()} == {
    'a1f_1_utterance_1': ('train', 'a1f_1'),
    'a1f_1_utterance_2': ('train', 'a1f_1'),
    'c1f_1_utterance_1': ('validation', 'c1f_1'),
    'c1f_1_utterance_2': ('validation', 'c1f_1'),
  }
  for n in (1, 2):
    labels = labels_of(found[f'a1f_1_utterance_{n}'][1])
    np.testing.assert_allclose(labels, np.tile([-0.1, 0.5 * n - 1], (FRAMES, 1)), atol=1e-6)
  dry_run('omg', tmp_path, capsys)


# What does not fit.


def replace(path, before, after):
  text = path.read_text()
  assert before in text
  path.write_text(text.replace(before, after, 1))


@pytest.mark.parametrize(
  'layout, make, damage, words',
  [
    ('recola', make_recola, lambda r: (r / 'recordings_video/dev_1.mp4').unlink(), 'no video'),
    (
      'recola',
      make_recola,
      lambda r: (r / 'ratings_gold_standard/arousal/dev_1.arff').unlink(),
      r'no labels in one dimension: dev_1 \(arousal\)',
    ),
    (
      'recola',
      make_recola,
      lambda r: replace(r / 'ratings_gold_standard/arousal/dev_1.arff', ',0.04,', ',x,'),
      r"1 cell of labels holds no number: .*dev_1.arff, line 11 \('x' is no number\)",
    ),
    (
      'recola',
      make_recola,
      lambda r: replace(r / 'ratings_gold_standard/valence/dev_1.arff', 'frameTime', 'other'),
      'no attributes frameTime and GoldStandard',
    ),
    (
      'recola',
      make_recola,
      lambda r: film(r / 'recordings_video/P16.mp4'),
      '1 name begins with no partition: P16',
    ),
    (
      'muse',
      make_muse,
      lambda r: replace(r / 'metadata/partition.csv', 'devel', 'later'),
      '1 row has no partition',
    ),
    (
      'muse',
      make_muse,
      lambda r: (r / 'label_segments/valence/1.csv').write_text('timestamp,value,segment_id\n'),
      r'1 file holds no labels: .*valence/1.csv$',
    ),
    (
      'muse',
      make_muse,
      lambda r: replace(r / 'metadata/partition.csv', '2,devel', '2,train\n2,devel'),
      r'1 clip is named twice: .*partition.csv, line 4 \(2\)$',
    ),
    (
      'muse',
      make_muse,
      lambda r: replace(r / 'metadata/partition.csv', '2,devel', '2,devel\n7,test'),
      r'1 row has no video: .*partition.csv, line 4 \(7\)$',
    ),
    (
      'muse',
      make_muse,
      lambda r: replace(r / 'label_segments/valence/1.csv', '\n250,', '\n0,'),
      r'come after the row before in time: .*valence/1.csv, line 3',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: replace(r / '002/002.json', '"valence": -10.0', '"valence": -11.0'),
      r'outside \[-10, 10\]: .*002.json, frame 0 \(-11\); count them',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: (r / 'videos/002.mp4').unlink(),
      '1 clip has no video: .*002; docs/data.md says',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: (r / '002/002.json').write_text('{"frames": {}}'),
      'holds no frames',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: (r / '002/002.json').write_text('{"frames": {"a": 1}}'),
      'no annotation of AFEW-VA',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', ',0.25,', ',1.25,'),
      r'1 arousal is outside \[0, 1\]: .*line 2 \(1.25\)',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: replace(r / '002/002.json', '"arousal": 10.0', '"arousal": null'),
      '002.json, frame 00000: its arousal is no number',
    ),
    (
      'afew-va',
      make_afew,
      lambda r: replace(r / '002/002.json', '"00001"', '"0"'),
      '002.json holds the frame 0 twice',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', ',0.25,', ',,'),
      '1 row has no start, end, valence or arousal: .*line 2$',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', ',1,3,', ',,3,'),
      '1 row has no start, end, valence or arousal: .*line 2$',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', ',-0.1,', ',-1.1,'),
      r'1 label is outside \[-1, 1\]: .*line 2 \(-1.1\)',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', ',1,3,', ',1,17000000000000,'),
      '1 utterance is longer than a day: .*line 2; start and end are in seconds',
    ),
    (
      'omg',
      make_omg,
      lambda r: shutil.copy(r / 'omg_TrainVideos.csv', r / 'omg_ValidationVideos.csv'),
      r'4 clips are named twice: .*ValidationVideos.csv, line 2 \(a1f_1_utterance_1\), ',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', 'utterance_2.mp4', 'utterance_1.mp4'),
      r'1 clip is named twice: .*TrainVideos.csv, line 3 \(a1f_1_utterance_1\)$',
    ),
    (
      'omg',
      make_omg,
      lambda r: replace(r / 'omg_TrainVideos.csv', 'utterance_1.mp4', '../secret.mp4'),
      'no usable names',
    ),
  ],
)
def test_what_does_not_fit_is_said_in_one_line(tmp_path, layout, make, damage, words):
  make(tmp_path)
  damage(tmp_path)
  with pytest.raises(InputError, match=words) as caught:
    plan(layout, tmp_path)
  assert '\n' not in str(caught.value)


ARFF = (
  '@attribute name string\n@attribute frameTime numeric\n@attribute GoldStandard numeric\n@data\n'
)
FORMATS = {
  'recola_gold': (ARFF, "'train_1',{},{}", lambda *given: recola.read_gold(*given)[0]),
  'recola_raters': ('time;FM1\n', '{};{}', lambda *given: recola.read_individual(*given)[0]),
  'muse': ('timestamp,value,segment_id\n', '{},{},1', muse.read_labels),
  'sewa': ('name;timestamp;arousal;valence\n', "'a';{};0.5;{}", None),
  'sewa_without_header': ('', "'a';{};0.5;{};0", None),
}


@pytest.mark.parametrize('name', FORMATS)
def test_every_set_has_its_numbers_read_in_one_way(tmp_path, name):
  """An empty cell is no value; what is no number is said with its line, and so is a long row."""
  header, row, read = FORMATS[name]
  read = read or (lambda path, _, mistakes: sewa.read_labels(path, mistakes))
  path, first = tmp_path / 'a', header.count('\n') + 1

  def found(*rows):
    path.write_text(header + '\n'.join(rows) + '\n')
    mistakes = Mistakes()
    return read(path, 'valence', mistakes), mistakes.lines()

  labels, said = found(
    *(row.format(*each) for each in ((0, 0.25), (40, ''), (80, 'NaN'), (90, -1)))
  )
  np.testing.assert_array_equal(labels.values[:, 0], [0.25, np.nan, np.nan, -1])
  assert labels.lines == [first, first + 1, first + 2, first + 3] and not said
  for cell in ('x', '0_1', 'inf'):
    _, (said,) = found(row.format(0, 0), row.format(40, cell))
    where = f'{path}, line {first + 1} ({cell!r} is no number)'
    assert said == f'1 cell of labels holds no number: {where}'
  _, said = found(row.format(0, 0), row.format(40, 0) + row[row.index('{}') + 2] + '7')
  start = f'1 row has more or fewer cells than there are columns: {path}, line {first + 1} ('
  assert said[0].startswith(start) and len(said) == 1
