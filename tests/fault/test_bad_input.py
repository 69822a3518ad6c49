"""Tests that each malformed input is refused in one line that names the file, with exit code 2.

The line has at most 200 characters, and nothing is changed. The long form starts each as a command
of its own and measures its time and memory.
"""

import importlib
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from official_set import ANNOTATIONS, SIZES, make_official, write_video
from other_files import png
from PIL import Image

from avjax import errors
from fault.harness import ROOT, TINY, files, run

LABELS = f'source/{ANNOTATIONS}/Train_Set/102.txt'
CROP, VIDEO = 'source/cropped_aligned/102/00015.jpg', 'source/batch1/103.mp4'
TEST_LIST = (
  'source/test_set/names_of_videos_in_each_test_set/'
  'Valence_Arousal_Estimation_Challenge_test_set_release.txt'
)


def write(path, content=b''):
  return lambda: pathlib.Path(path).write_bytes(
    content if isinstance(content, bytes) else content.encode()
  )


def edit(path, change):
  return lambda: pathlib.Path(path).write_bytes(change(pathlib.Path(path).read_bytes()))


def row(number, text):
  """Replaces a line of an annotation file."""
  return edit(
    LABELS,
    lambda data: b'\n'.join(
      [*data.split(b'\n')[:number], text.encode(), *data.split(b'\n')[number + 1 :]]
    ),
  )


def no_picture():
  """A file with sound and no video."""
  write_video(pathlib.Path('sound.avi'), 5, np.zeros(8820))
  import av

  with av.open('sound.avi') as source, av.open(VIDEO, 'w') as target:
    stream = target.add_stream_from_template(source.streams.audio[0])
    for packet in source.demux(source.streams.audio[0]):
      if packet.dts is not None:
        packet.stream = stream
        target.mux(packet)


def sound_header(offset, content):
  """Overwrites a part of the format of an .avi's sound: 0 its codec, 4 its rate."""

  def change(data):
    start = data.index(b'strf', data.index(b'auds')) + 8 + offset
    return data[:start] + content + data[start + len(content) :]

  return edit('source/batch1/102.avi', change)


def json_of(path, change):
  def act():
    found = json.loads(pathlib.Path(path).read_text())
    pathlib.Path(path).write_text(json.dumps(change(found)))

  return act


def png_header(width, height):
  """Makes a PNG whose header claims a huge size."""
  return png((b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)))


BUILD = ('data_prep.build', ['--source', 'source', '--data_dir', 'new', '--workers', '1', *SIZES])
MAIN = ('avjax.main', [f'--config={TINY}', '--workdir=new', '--config.data.dir=records'])
AGAIN = (
  'avjax.main',
  [
    f'--config={TINY}',
    '--workdir=run',
    '--config.data.dir=records',
    '--config.schedule.max_epochs=1',
  ],
)
EVALUATE = ('avjax.evaluate', ['run'])
VERIFY = ('data_prep.verify', ['records'])
SHARD = 'records/affwild2/1.0.0/affwild2-chunk0.tfrecord-00000-of-00001'
MADE = 'records/affwild2/1.0.0/manifest.json'
with_flags = lambda *words: (MAIN[0], [*MAIN[1], *words])
config_file = lambda name: (MAIN[0], [f'--config={name}', *MAIN[1][1:]])
nothing = lambda: None

# name: (what is done to the folder, the command, what the line must name)
CASES = {
  # Images
  'crop: empty': (write(CROP), BUILD, '102/00015.jpg'),
  'crop: cut': (edit(CROP, lambda data: data[: len(data) // 3]), BUILD, '102/00015.jpg'),
  'crop: text': (write(CROP, 'no image'), BUILD, '102/00015.jpg'),
  'crop: zeros': (write(CROP, bytes(4000)), BUILD, '102/00015.jpg'),
  'crop: too large': (lambda: Image.new('RGB', (5000, 10)).save(CROP), BUILD, '102/00015.jpg'),
  'crop: a header of 60000 x 60000': (
    write(CROP, png_header(60000, 60000)),
    BUILD,
    '102/00015.jpg',
  ),
  'crop: a folder': (lambda: (os.remove(CROP), os.mkdir(CROP)), BUILD, '102/00015.jpg'),
  'crops: none': (
    lambda: [path.unlink() for path in pathlib.Path('source/cropped_aligned/103').iterdir()],
    BUILD,
    '103',
  ),
  # Sound and video
  'video: empty': (write(VIDEO), BUILD, '103.mp4'),
  'video: text': (write(VIDEO, 'no video'), BUILD, '103.mp4'),
  'video: zeros': (write(VIDEO, bytes(100_000)), BUILD, '103.mp4'),
  'video: header alone': (edit(VIDEO, lambda data: data[:40]), BUILD, '103.mp4'),
  'video: cut': (edit(VIDEO, lambda data: data[: len(data) // 2]), BUILD, '103.mp4'),
  'video: sound alone': (no_picture, BUILD, '103.mp4'),
  'video: an image': (
    lambda: Image.new('RGB', (20, 20)).save('source/batch1/102.avi', 'JPEG'),
    BUILD,
    '102',
  ),
  'video: another one, shorter': (
    lambda: write_video(pathlib.Path('source/batch1/102.avi'), 3),
    BUILD,
    '102',
  ),
  'video: a broken .avi': (
    edit('source/batch1/102.avi', lambda data: data[:64] + bytes(len(data) - 64)),
    BUILD,
    '102.avi',
  ),
  'video: missing': (lambda: os.remove(VIDEO), BUILD, '103'),
  'video: there twice': (lambda: shutil.copy(VIDEO, 'source/new_vids/103.mp4'), BUILD, '103'),
  'sound: an unknown codec': (sound_header(0, b'\x77\x77'), BUILD, '102.avi'),
  'sound: no sample rate': (sound_header(4, bytes(4)), BUILD, '102.avi'),
  'sound: two thousand million samples a second': (
    sound_header(4, b'\xff\xff\xff\x7f'),
    BUILD,
    '102.avi',
  ),
  # Annotations
  'annotation: empty': (write(LABELS), BUILD, '102.txt'),
  'annotation: binary': (write(LABELS, bytes(range(256))), BUILD, '102.txt'),
  'annotation: UTF-16 without a mark': (
    edit(LABELS, lambda data: data.decode().encode('utf-16-le')),
    BUILD,
    '102.txt',
  ),
  'annotation: no header': (
    edit(LABELS, lambda data: data.split(b'\n', 1)[1]),
    BUILD,
    '102.txt, line 1',
  ),
  'annotation: header the other way round': (row(0, 'arousal,valence'), BUILD, '102.txt, line 1'),
  'annotation: one column': (row(4, '0.1'), BUILD, '102.txt, line 5'),
  'annotation: three columns': (row(4, '0.1,0.2,0.3'), BUILD, '102.txt, line 5'),
  'annotation: words': (row(4, 'happy,calm'), BUILD, '102.txt, line 5'),
  'annotation: NaN': (row(4, 'nan,0.1'), BUILD, '102.txt, line 5'),
  'annotation: infinite': (row(4, '0.1,inf'), BUILD, '102.txt, line 5'),
  'annotation: out of range': (row(4, '0.1,1.5'), BUILD, '102.txt, line 5'),
  'annotation: far longer than its video': (
    edit(LABELS, lambda data: data + b'0.1,0.1\n' * 500),
    BUILD,
    '102',
  ),
  # Lists and folders
  'list: a test clip without video': (write(TEST_LIST, '300\n999\n'), BUILD, '999'),
  'list: a clip twice': (write(TEST_LIST, '300\n102\n'), BUILD, '102'),
  'folder: crops of nobody': (
    lambda: shutil.copytree('source/cropped_aligned/103', 'source/cropped_aligned/555'),
    BUILD,
    '555',
  ),
  'folder: a video of nobody': (lambda: shutil.copy(VIDEO, 'source/batch1/555.mp4'), BUILD, '555'),
  'folder: no annotations': (lambda: shutil.rmtree('source/8th ABAW Annotations'), BUILD, 'source'),
  'folder: annotations twice': (
    lambda: shutil.copytree('source/8th ABAW Annotations', 'source/9th ABAW Annotations'),
    BUILD,
    'source',
  ),
  'folder: no videos': (
    lambda: [shutil.rmtree(f'source/{name}') for name in ('batch1', 'new_vids')],
    BUILD,
    'source',
  ),
  'folder: none': (nothing, (BUILD[0], ['--source', 'nowhere', *BUILD[1][2:]]), 'nowhere'),
  # Configs
  'config: missing': (nothing, config_file('nowhere.py'), 'nowhere.py'),
  'config: no Python': (write('bad.py', 'this is no Python'), config_file('bad.py'), 'bad.py'),
  'config: no get_config': (write('bad.py', 'x = 3'), config_file('bad.py'), 'get_config'),
  'config: unknown key': (nothing, with_flags('--config.batchsize=3'), 'batchsize'),
  'config: wrong type': (nothing, with_flags('--config.batch_size=many'), 'batch_size'),
  'config: out of range': (nothing, with_flags('--config.crop=900'), 'crop'),
  'config: an unknown fusion': (
    nothing,
    with_flags('--config.model.fusion.name=fission'),
    'fission',
  ),
  'config: an unknown warm-up': (
    nothing,
    with_flags('--config.schedule.warmup=slow'),
    'schedule.warmup',
  ),
  'config: a group that matches nothing': (
    nothing,
    with_flags("--config.unfreezing.common.group2=('nowhere/',)"),
    'nowhere/',
  ),
  'config: weights that are not there': (
    nothing,
    with_flags('--config.init.audio=vggish.safetensors'),
    'vggish.safetensors',
  ),
  'config: weights that are none': (
    write('w.safetensors', bytes(500)),
    with_flags('--config.init.visual=w.safetensors'),
    'w.safetensors',
  ),
  # Records, checkpoints, runs
  'records: none': (lambda: shutil.rmtree('records'), MAIN, 'records'),
  'records: manifest cut': (edit(MADE, lambda data: data[:100]), MAIN, 'manifest.json'),
  'records: a shard cut': (edit(SHARD, lambda data: data[:-9]), MAIN, 'chunk0'),
  'records: a shard missing': (lambda: os.remove(SHARD), MAIN, 'chunk0'),
  'records: a flipped bit': (
    edit(SHARD, lambda data: data[:90] + bytes([data[90] ^ 4]) + data[91:]),
    VERIFY,
    'chunk0',
  ),
  'records: of other sizes': (nothing, with_flags('--config.data.length=300'), 'length'),
  'run: config cut': (edit('run/config.json', lambda data: data[:50]), AGAIN, 'config.json'),
  'run: another config': (
    json_of('run/config.json', lambda found: found | {'seed': 9}),
    AGAIN,
    'seed',
  ),
  'run: versions gone': (lambda: os.remove('run/versions.json'), AGAIN, 'versions.json'),
  'run: a config that is none': (write('run/config.json', '[]'), EVALUATE, 'config.json'),
  'run: every checkpoint damaged': (
    lambda: [
      path.write_bytes(b'{') for path in pathlib.Path('run/checkpoints/best').rglob('metadata')
    ],
    EVALUATE,
    'checkpoints/best',
  ),
  'run: no checkpoint': (lambda: shutil.rmtree('run/checkpoints/best'), EVALUATE, 'run'),
  'run: a folder of something else': (write('new/thesis.tex', 'mine'), MAIN, 'new'),
}
assert len(CASES) >= 60
# Of resident memory. TensorFlow's libraries are 0.4 to 0.6 GB of it, as many of their pages as the
# system happens to map; what is allocated is 0.3 GB.
MOST_BYTES = 1.25e9


@pytest.fixture(scope='module')
def pristine(records, tmp_path_factory):
  """A folder with an Aff-Wild2 (source), its records and a run of one epoch."""
  folder = tmp_path_factory.mktemp('pristine')
  (folder / 'source').mkdir()
  make_official(folder / 'source')
  shutil.copytree(records, folder / 'records')
  done = run(*AGAIN[1], cwd=folder)
  assert done.returncode == 0, done.stderr
  return folder


def in_process(module, arguments, capsys):
  found = importlib.import_module(module)
  with pytest.raises(SystemExit) as ended:
    errors.run_command(
      found.main, [module, *arguments] if module.startswith('avjax') else arguments
    )
  return ended.value.code, capsys.readouterr().err, 0, 0


def as_command(module, arguments, capsys):
  """Runs the command in a process of its own; returns (exit code, stderr, seconds, bytes).

  The seconds are the processor's, and the bytes are the most that it used at once.
  """
  del capsys
  process = subprocess.Popen(
    [sys.executable, '-m', module, *arguments],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )
  with process.stderr as stream:
    err = stream.read()
  _, status, used = os.wait4(process.pid, 0)
  process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here, not by Popen
  return (
    process.returncode,
    err,
    used.ru_utime + used.ru_stime,
    used.ru_maxrss * 1024,
  )


# Of two config files of one name, one process sees the first alone.
QUICK = [
  name
  for i, name in enumerate(CASES)
  if (CASES[name][1] is not BUILD or i % 6 == 0) and name != 'config: no get_config'
]


@pytest.mark.slow
def test_bad_input(pristine, tmp_path, monkeypatch, capsys, full, record):
  """Every malformed input is refused as the head of this file says.

  The long form has all cases; the short form has those that need no process of their own and a
  sixth of the others.
  """
  good, slowest, largest, wrong = 0, 0, 0, {}
  for name in CASES if full else QUICK:
    act, (module, arguments), words = CASES[name]
    folder = tmp_path / str(good + len(wrong))
    shutil.copytree(pristine, folder)
    monkeypatch.chdir(folder)
    if name == 'run: a folder of something else':
      os.mkdir('new')
    act()
    before = files(folder)
    code, err, seconds, size = (as_command if full else in_process)(module, arguments, capsys)
    lines = [line for line in err.splitlines() if not line.startswith('clips: ')]  # progress
    fine = (
      code == 2
      and len(lines) == 1
      and lines[0].startswith('error: ')
      and len(lines[0]) <= 200
      and words in lines[0]
    )
    after = {
      path: data for path, data in files(folder).items() if not path.startswith('__pycache__')
    }
    if fine and after == before and size < MOST_BYTES:
      good += 1
    else:
      wrong[name] = (
        code,
        err[-600:],
        len(lines[-1]) if lines else 0,
        round(seconds, 1),
        size,
        sorted(after.keys() ^ before.keys()),
      )
    slowest, largest = max(slowest, seconds), max(largest, size)
    monkeypatch.undo()
    shutil.rmtree(folder)
  if full:
    record(
      'malformed inputs: inputs, refused in one line with nothing changed; '
      'most processor seconds; most MB',
      [len(CASES), good, round(slowest, 1), round(largest / 1e6)],
    )
  assert not wrong, '\n'.join(f'{name}: {what}' for name, what in wrong.items())
