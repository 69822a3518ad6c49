"""Tests the way from folder to records: joined by frame id, the same bytes after a kill, damage
found.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from official_set import ANNOTATIONS, MISSING_CROPS, SIZES

from avjax.data import manifest, records
from avjax.errors import InputError
from avjax.media import audio, video
from data_prep import build, shards, verify
from data_prep.contents import decode
from data_prep.sources import affwild2

LAYOUT = records.Layout(12, 8, 16)
REPOSITORY = pathlib.Path(__file__).parents[2]


def read(data_dir):
  """Returns {(clip, window): record} of all splits."""
  import tensorflow_datasets as tfds

  found = {}
  builder = tfds.builder_from_directory(str(manifest.version_folder(data_dir)))
  for split in builder.info.splits:
    for record in builder.as_dataset(split=split, shuffle_files=False).as_numpy_iterator():
      found[record['clip'].decode(), int(record['window'])] = {**record, 'split': split}
  return found


def contents(data_dir):
  folder = manifest.version_folder(data_dir)
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def command(module, *args):
  environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY)}
  return [sys.executable, '-m', f'data_prep.{module}', *map(str, args)], {
    'env': environment,
    'cwd': REPOSITORY,
  }


def run(module, *args):
  line, options = command(module, *args)
  return subprocess.run(line, capture_output=True, text=True, **options)


@pytest.mark.slow
def test_every_field_of_a_frame_comes_from_the_same_frame(official, built):
  clips = {clip.name: clip for clip in affwild2.list_clips(affwild2.find_roots(official))}
  found = read(built)
  made = json.loads((built / 'affwild2/1.0.0/manifest.json').read_text())
  seen = {name: set() for name in clips}
  for (name, _), record in found.items():
    for field, (shape, dtype) in records.fields(LAYOUT).items():
      if dtype is not str:
        assert record[field].dtype == dtype and len(shape) == np.ndim(record[field]), field
    real = record['real']
    frames = record['frames'][real]
    seen[name] |= set(frames.tolist())
    missing = MISSING_CROPS.get(name, ())
    np.testing.assert_array_equal(record['face_present'][real], ~np.isin(frames, missing))
    grey = record['faces'][real].astype(int)
    expected = np.where(np.isin(frames, missing), 0, 5 * frames)
    assert np.abs(grey - expected[:, None, None, None]).max() <= 2
    np.testing.assert_allclose(record['times'][real], (frames - 1) / 25, atol=1e-6)
    if name != '300':
      np.testing.assert_array_equal(
        record['va'][real], np.stack([frames / 100, -frames / 100], 1).astype(np.float32)
      )
    np.testing.assert_array_equal(record['annotated'][real], np.full(len(frames), name != '300'))
    # The sound: bit-equal to windows of the whole spectrogram, and its tone names the frame.
    whole = audio.log_mel(video.read_sound(clips[name].video).samples).astype(np.float16)
    windows = record['log_mel'][record['starts'][real][:, None] + np.arange(96)]
    np.testing.assert_array_equal(windows, whole[4 * (frames - 1)[:, None] + np.arange(96)])
    if clips[name].video.suffix == '.avi':
      np.testing.assert_array_equal(windows[:, 0].argmax(axis=1), 17 + frames)
    assert record['audio_present'][real].all()
    assert len(record['log_mel']) <= made['max_rows']
    for field in (
      'frames',
      'times',
      'va',
      'annotated',
      'faces',
      'face_present',
      'starts',
      'audio_present',
    ):
      assert not record[field][~real].any(), field
  kept = {name: n for chunk in made['chunks'].values() for name, n in chunk['clips'].items()}
  assert kept == {name: len(frames) for name, frames in seen.items()}
  assert seen['102'] == {*range(3, 11), *range(14, 29), *range(35, 44)}
  assert seen['10-25-64x48_right'] == set(range(5, 41))
  assert seen['300'] == set(range(1, 26))
  assert max(len(record['log_mel']) for record in found.values()) == made['max_rows']


def test_manifest_counts_what_is_there(built):
  made = manifest.read_manifest(built)
  assert made['layout'] == {'length': 12, 'stride': 8, 'face': 16, 'features': {}}
  assert {split: list(chunk['clips']) for split, chunk in made['chunks'].items()} == {
    'chunk0': ['10-25-64x48_left', '10-25-64x48_right'],
    'chunk1': [],
    'chunk2': ['102', '103'],
    'chunk3': ['1035'],
    'chunk4': ['104', 'video7'],
    'chunk5': ['200'],
    'test': ['300'],
  }
  # Windows of 12 every 8: 40 frames give 5, 36 give 4, 32 give 4, 9 give 1, 20 give 2, 30 give 4,
  # 28 give 3, 25 give 3.
  assert {split: chunk['records'] for split, chunk in made['chunks'].items()} == {
    'chunk0': 9,
    'chunk1': 0,
    'chunk2': 5,
    'chunk3': 0,
    'chunk4': 6,
    'chunk5': 3,
    'test': 3,
  }
  assert made['masked'] == {
    'audio_absent': 0,
    'crops_unreadable': 0,
    'faces_missing': 5,
    'rows_beyond_video': 0,
  }
  assert sum(shard['records'] for shard in made['shards'].values()) == 26
  assert str(built) not in (built / 'affwild2/1.0.0/manifest.json').read_text()


@pytest.mark.slow
def test_a_killed_build_run_again_gives_the_same_bytes(official, built, tmp_path):
  moved = shutil.copytree(official, tmp_path / 'elsewhere')
  args = ['--source', moved, '--data_dir', tmp_path / 'records', '--workers', '1', *SIZES]
  line, options = command('build', *args)
  with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, **options) as process:
    assert process.stderr.readline() == 'clips: 1 of 8\n'
    process.send_signal(signal.SIGKILL)
  assert (tmp_path / 'records/affwild2.incomplete').is_dir()
  assert not (tmp_path / 'records/affwild2').exists()
  # In a process of its own: hashes, and orders that hang on them, differ.
  assert run('build', *args).returncode == 0
  assert contents(tmp_path / 'records') == contents(built)
  assert [path.name for path in (tmp_path / 'records').iterdir()] == ['affwild2']


def test_a_finished_set_is_kept_and_another_never_overwritten(official, built, broken, capsys):
  before = contents(built)
  assert build.main(['--source', str(official), '--data_dir', str(built), *SIZES]) == 0
  assert 'nothing to do' in capsys.readouterr().out
  with pytest.raises(
    InputError, match='a different layout; remove it or choose another --data_dir'
  ):
    build.main(['--source', str(official), '--data_dir', str(built), *SIZES[:-1], '24'])
  (broken / 'cropped_aligned/102/00003.jpg').unlink()
  with pytest.raises(InputError, match='a different source'):
    build.main(['--source', str(broken), '--data_dir', str(built), *SIZES])
  assert contents(built) == before


def build_again(source, data_dir, capfd):
  """Returns what a build into a folder of finished records prints, or the error's text."""
  try:
    assert build.main(['--source', str(source), '--data_dir', str(data_dir), *SIZES]) == 0
  except InputError as error:
    return str(error)
  return ''.join(capfd.readouterr())


def rewrite(path, change):
  """Changes the bytes of a file, but neither its name nor its size."""
  data = bytearray(path.read_bytes())
  change(data)
  path.write_bytes(data)


def test_a_file_of_equal_size_with_other_contents_is_noticed(official, built, tmp_path, capfd):
  made, whole = shutil.copytree(built, tmp_path / 'records'), contents(built)

  def swap_two(data):
    data[-600], data[-601] = data[-601] ^ 1, data[-600] ^ 1

  def another_label(data):
    at = data.index(b'0.03,-0.03')
    data[at : at + 10] = b'0.05,-0.05'

  for path, change, words in (
    ('batch1/104.avi', swap_two, '1 clip has other videos or crops than .* from: 104; remove it'),
    (
      'batch1/10-25-64x48.avi',
      swap_two,
      '2 clips have other videos .*: 10-25-64x48_left, .*; remove it or choose',
    ),
    ('cropped_aligned/300/00007.jpg', swap_two, '1 clip has other videos or crops .*: 300;'),
    (
      f'{ANNOTATIONS}/Train_Set/102.txt',
      another_label,
      'records with a different source .*labels.*; remove',
    ),
    ('batch1/1035.avi', swap_two, 'nothing to do'),  # no annotated frame: in no record
  ):
    source = pathlib.Path(shutil.copytree(official, tmp_path / 'source'))
    rewrite(source / path, change)
    assert re.search(words, build_again(source, made, capfd)), path
    shutil.rmtree(source)
    assert contents(made) == whole


def test_a_copied_source_is_the_same_and_read_once(official, built, tmp_path, capfd, monkeypatch):
  made = shutil.copytree(built, tmp_path / 'records')
  moved = shutil.copytree(official, tmp_path / 'copy', copy_function=shutil.copyfile)
  for path in moved.rglob('*'):
    os.utime(path, (1e9, 1e9))
  for read_again in ('compared clips: 8 of 8', ''):
    printed = build_again(moved, made, capfd)
    assert 'nothing to do' in printed
    assert ('compared clips' in printed) == bool(read_again) and read_again in printed
  before = (made / 'affwild2/source.json').read_bytes()
  monkeypatch.setattr('avjax.files.write_json', lambda *_: (_ for _ in ()).throw(PermissionError()))
  assert 'nothing to do' in build_again(official, made, capfd)  # of records that others share
  assert (made / 'affwild2/source.json').read_bytes() == before


def test_files_that_cannot_be_read_are_left_to_decoding(broken):
  """A crop may be a folder or a dangling link; it is named there, or masked if it is listed."""
  crops = broken / 'cropped_aligned/104'
  for name, make in (
    ('00007.jpg', pathlib.Path.mkdir),
    ('00008.jpg', lambda path: path.symlink_to('nowhere')),
  ):
    (crops / name).unlink()
    make(crops / name)
    args = build.parse_args(['--source', str(broken), '--data_dir', 'unused'])
    (job,) = (
      job for job in shards.recorded(affwild2.AffWild2().plan(args)) if job.clip.name == '104'
    )
    with pytest.raises(InputError, match=f'104/{name} cannot be read as an image'):
      decode(job, LAYOUT)
    with (broken / 'unreadable.txt').open('a') as file:
      file.write(f'104/{name}\n')
  (job,) = (
    job for job in shards.recorded(affwild2.AffWild2().plan(args)) if job.clip.name == '104'
  )
  clip, _ = decode(job, LAYOUT)
  assert np.flatnonzero(~clip.face_present).tolist() == [6, 7]


def test_records_without_a_list_of_contents_are_kept(official, built, tmp_path, capfd):
  made = shutil.copytree(built, tmp_path / 'records')
  (made / 'affwild2/source.json').unlink()
  printed = build_again(official, made, capfd)
  assert 'no source.json in' in printed and 'nothing to do' in printed
  (made / 'affwild2/source.json').write_text('[')
  assert re.search('source.json is damaged: .*; remove it$', build_again(official, made, capfd))


def test_records_are_found_one_or_two_levels_down_or_the_option_is_named(built, monkeypatch):
  for folder in (built, built / 'affwild2', built / 'affwild2/1.0.0'):
    assert manifest.version_folder(folder) == built / 'affwild2/1.0.0'
  monkeypatch.chdir(built.parent)
  for option in ('--config.data.dir', '--data_dir'):
    with pytest.raises(
      InputError,
      match='^gone holds no finished records, seen from this folder; name their folder with '
      f'{option}, or make them: python -m data_prep.build --source AFFWILD2 --data_dir gone$',
    ):
      manifest.check_sizes('gone', option)
  with pytest.raises(InputError, match=f'^{built.parent}/gone holds no finished records; name'):
    manifest.check_sizes(built.parent / 'gone')


def test_verify_names_the_damaged_shard(built, tmp_path):
  shard = 'affwild2-chunk2.tfrecord-00000-of-00001'
  assert verify.verify(built) == verify.verify(built / 'affwild2/1.0.0')
  assert verify.verify(built).startswith('OK: 5 shards, 26 records, ')

  def damaged(name, change):
    copy = pathlib.Path(shutil.copytree(built, tmp_path / name))
    change(copy / 'affwild2/1.0.0')
    with pytest.raises(InputError) as error:
      verify.verify(copy)
    return str(error.value)

  def cut(folder):
    os.truncate(folder / shard, (folder / shard).stat().st_size - 100)

  def flip(folder):
    data = bytearray((folder / shard).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / shard).write_bytes(data)

  def recount(folder):
    made = json.loads((folder / 'manifest.json').read_text())
    made['shards'][shard]['records'] += 1
    made['chunks']['chunk2']['records'] += 1
    (folder / 'manifest.json').write_text(json.dumps(made))

  for name, change, words in (
    ('cut', cut, f'{shard} has'),
    ('flip', flip, f'{shard} is damaged'),
    ('recount', recount, f'{shard} does not hold'),
    ('missing', lambda folder: (folder / shard).unlink(), f'{shard} is missing'),
    (
      'extra',
      lambda folder: (folder / 'affwild2-chunk9.tfrecord').touch(),
      'affwild2-chunk9.tfrecord is not in',
    ),
    (
      'features',
      lambda folder: (folder / 'features.json').write_text('{}'),
      'features.json is missing or changed',
    ),
    (
      'manifest',
      lambda folder: (folder / 'manifest.json').write_text('{'),
      'manifest.json is damaged',
    ),
    (
      'none',
      lambda folder: (folder / 'manifest.json').unlink(),
      'python -m data_prep.build --source',
    ),
  ):
    assert words in damaged(name, change), name
  with pytest.raises(InputError, match=f'{shard} is missing'):
    manifest.check_sizes(tmp_path / 'missing')


def test_neither_tensorflow_nor_jax_is_needed_to_read_clips_and_manifests():
  modules = (
    'avjax.data.dataset',
    'avjax.data.manifest',
    'avjax.data.records',
    'avjax.data.windows',
    'avjax.media.audio',
    'avjax.media.faces',
    'avjax.media.video',
    'data_prep.build',
    'data_prep.clips',
    'data_prep.features',
    'data_prep.mini',
    'data_prep.sources.affwild2',
    'data_prep.sources.annotations',
    'data_prep.verify',
  )
  line, options = command('build', '--help')
  code = (
    f'import sys, {", ".join(modules)}; print({{"tensorflow", "jax", "avjax"}} & set(sys.modules))'
  )
  imported = subprocess.run([line[0], '-c', code], capture_output=True, text=True, **options)
  assert imported.stdout == "{'avjax'}\n", imported.stderr


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_code_2(broken, tmp_path):
  for result in (
    run('verify', tmp_path / 'nothing'),
    run('build', '--source', tmp_path / 'nothing', '--data_dir', tmp_path / 'records'),
  ):
    assert result.returncode == 2 and result.stdout == ''
    assert result.stderr.startswith('error: ') and result.stderr.count('\n') == 1
  assert not (tmp_path / 'records').exists()
  os.truncate(broken / 'batch1/102.avi', 5000)
  result = run(
    'build', '--source', broken, '--data_dir', tmp_path / 'records', '--workers', '1', *SIZES
  )
  assert result.returncode == 2 and result.stderr.splitlines()[-1].startswith('error: ')
  assert '102.avi' in result.stderr.splitlines()[-1]
  assert list((tmp_path / 'records').iterdir()) == []
