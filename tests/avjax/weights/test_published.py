"""Published weights give what PyTorch computes with them, under every naming they come in.

Files that are not what they should be are refused. tests/avjax/golden holds PyTorch's results on
made weights (python -m benchmarks.parity --golden); no test here needs torch.
"""

import re

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
from bucket_server import get, put

import avjax
from avjax import errors, pretrained
from avjax.errors import InputError
from avjax.weights import files as weight_files
from avjax.weights import name_maps
from avjax.weights.convert import (
  convert,
  format_names,
  shapes_of,
  shapes_of_model,
)
from benchmarks import parity_cases as cases


def made(case):
  """The made weights of a case under their published names: {name: array}."""
  return {
    name: cases.weight(case, name, tuple(shape)) if 'num_batches' not in name else np.array(0)
    for name, shape in cases.read_golden(case)['source'].items()
  }


@pytest.mark.slow
@pytest.mark.parametrize('case', (*cases.CASES, *cases.RAS))
def test_agrees_with_pytorch(case):
  """Outputs, the gradient of every parameter and running averages are those of PyTorch.

  This holds in evaluation and in training mode.

  Gradients are compared in float64: in float32 rounding decides on which side of a ReLU's kink an
  activation falls. Those of the towers in evaluation mode are left to `make parity`, for they take
  long.
  """
  golden, source = cases.read_golden(case), made(case)
  modes = ('eval', 'train') if case in cases.CONFIGS else ('train',)
  precise = cases.ours(case, source, 'float64', gradients=modes)
  assert precise.keys() == {
    name for name in golden['fingerprints'] if 'eval' in modes or not name.startswith('eval/')
  }
  for name, x in precise.items():
    mode, of_array, _ = name.partition('/')
    expected = np.array(golden['fingerprints'][name])
    size = max(expected[0], 1e-3 * golden['scales'].get(mode, 0) if of_array else 0)
    difference = np.abs(np.array(cases.fingerprint(name, x)) - expected).max()
    assert difference < 1e-6 * size, name
  single = cases.ours(case, source, 'float32', gradients=())
  for name, x in single.items():
    assert np.linalg.norm(x - precise[name]) < 1e-4 * np.linalg.norm(precise[name]), name
  for mode in ('eval', 'train'):
    np.testing.assert_allclose(
      single[mode].ravel()[:512], golden['outputs'][mode], rtol=0, atol=1e-4
    )


def write(path, arrays):
  safetensors.numpy.save_file({name: np.ascontiguousarray(x) for name, x in arrays.items()}, path)
  return path


def command(capsys, *arguments):
  """(exit code, stdout, stderr) of python -m avjax.pretrained."""
  with pytest.raises(SystemExit) as stopped:
    errors.run_command(pretrained.main, ['pretrained', *map(str, arguments)])
  return stopped.value.code or 0, *capsys.readouterr()


@pytest.fixture(scope='module')
def small_tower():
  """The shapes, map and arrays of only the first layers of IR-50: quick to convert."""
  shapes = {
    path: shape
    for path, shape in shapes_of('ir50').items()
    if re.match(r'\w+/(input|stage1/unit0)/', path)
  }
  return (
    shapes,
    name_maps.TOWERS['ir50'],
    {name: x for name, x in made('ir50').items() if re.match(r'(input_layer|body\.0)\.', name)},
  )


@pytest.mark.parametrize(
  'prefix', ['', 'backbone.', 'module.', 'module.backbone.', 'state_dict.spatial.visual.backbone.']
)
def test_prefixes(small_tower, prefix):
  shapes, published, source = small_tower
  plain = convert(source, shapes, published)
  elsewhere = {'optimizer.state': np.zeros(3, np.float32)} if prefix else {}
  found = convert({prefix + name: x for name, x in source.items()} | elsewhere, shapes, published)
  assert not found.mismatches and plain.arrays.keys() == found.arrays.keys() == shapes.keys()
  assert all((found.arrays[name] == x).all() for name, x in plain.arrays.items())
  assert set(elsewhere) <= set(found.left_out)
  assert all('num_batches_tracked' in name for name in set(found.left_out) - set(elsewhere))


def test_every_mismatch_is_reported_at_once(small_tower):
  shapes, published, source = small_tower
  source = dict(source)
  del source['body.0.res_layer.0.bias']
  source['body.0.res_layer.7.weight'] = np.zeros((2, 3), np.float32)
  source['input_layer.2.weight'] = np.zeros(65, np.float32)
  source['input_layer.1.bias'] = np.full(64, np.nan, np.float32)
  source['input_layer.1.running_var'] = np.full(64, -1, np.float32)
  source['input_layer.1.weight'] = np.zeros(64, np.int64)
  lines = convert(source, shapes, published).mismatches
  for words in (
    ['missing', 'body.0.res_layer.0.bias', '[64]'],
    ['unexpected', 'body.0.res_layer.7.weight', '[2, 3]'],
    ['shape', 'input_layer.2.weight', '[65]', '[64]'],
    ['value', 'input_layer.1.bias'],
    ['value', 'input_layer.1.running_var'],
    ['type', 'input_layer.1.weight', 'int64'],
  ):
    assert [line for line in lines if all(word in line for word in words)], words
  assert len(lines) == 6


def test_numbers_of_other_sizes(small_tower):
  """bfloat16 is read as what it stands for, and float64 beyond the range of float32 is refused."""
  shapes, published, source = small_tower
  halves = {
    name: x.astype(ml_dtypes.bfloat16) if x.dtype == np.float32 else x for name, x in source.items()
  }
  found = convert(halves, shapes, published)
  assert not found.mismatches
  np.testing.assert_array_equal(
    found.arrays['params/input/norm/bias'], halves['input_layer.1.bias'].astype(np.float32)
  )
  (line,) = convert(
    source | {'input_layer.1.bias': np.full(64, 1e300)}, shapes, published
  ).mismatches
  assert line.startswith('value') and 'input_layer.1.bias' in line


def test_names_from_a_file_are_all_listed_and_forge_nothing(small_tower):
  shapes, published, source = small_tower
  others = {f'decoder.{i}.weight': np.zeros(3, np.float32) for i in range(12)} | {
    'x\n\x1b[2J': np.zeros(1, np.float32)
  }
  left_out = convert(
    {f'backbone.{name}': x for name, x in source.items()} | others, shapes, published
  ).left_out
  lines = format_names(left_out)
  assert (
    len(lines) == 14
    and {repr(name) for name in others} < set(lines)
    and lines[-1] == '3 x num_batches_tracked'
  )
  (line,) = convert(source | {'x\n\x1b[2J': np.zeros(1, np.float32)}, shapes, published).mismatches
  assert line.startswith('unexpected') and line.isprintable()


def test_two_models_in_one_file(small_tower):
  shapes, published, source = small_tower
  both = {**source, **{f'ema.{name}': x for name, x in source.items()}}
  with pytest.raises(InputError, match="2 such models, under '', 'ema.'"):
    convert(both, shapes, published)


def test_weight_norm_in_both_of_its_names():
  source = made('lfan')
  published, shapes = (
    name_maps.of_model(cases.CONFIGS['lfan']),
    shapes_of_model(cases.CONFIGS['lfan']),
  )
  older = {
    name.replace('parametrizations.weight.original0', 'weight_g').replace(
      'parametrizations.weight.original1', 'weight_v'
    ): x
    for name, x in source.items()
  }
  assert older.keys() != source.keys()
  old, new = (convert(x, shapes, published) for x in (older, source))
  assert not old.mismatches + new.mismatches and all(
    (new.arrays[name] == x).all() for name, x in old.arrays.items()
  )


def test_the_predecessors_leftovers_are_told_apart():
  """What is left over in the predecessors' files is told apart from a mismatch.

  Convolutions listed a second time and an unused query_linear are left out; a third modality is a
  mismatch.
  """
  config = cases.CONFIGS['rjca_author']
  published, shapes, source = (
    name_maps.of_model(config),
    shapes_of_model(config),
    made('rjca_author'),
  )
  extra = {
    'coattn.dcn_layers.0.dense_coattn.query_linear.weight': np.zeros((4, 4), np.float32),
    'temporal.video.network.0.net.0.bias': source['temporal.video.network.0.conv1.bias'],
    'spatial.visual.logits.weight': np.zeros((8, 32), np.float32),
  }
  found = convert(source | extra, shapes, published)
  assert not found.mismatches and set(extra) <= set(found.left_out)
  text = {'temporal.bert.network.0.conv1.bias': np.zeros(4, np.float32)}
  assert 'temporal.bert' in convert(source | text, shapes, published).mismatches[0]
  with_fc = config.copy_and_resolve_references()
  with_fc.model.fusion.joint_fc = True
  lines = convert(source, shapes_of_model(with_fc), name_maps.of_model(with_fc)).mismatches
  assert len(lines) == 4 and all('query_linear' in line for line in lines)


@pytest.mark.slow
def test_from_a_bucket_to_a_bucket(capsys, tmp_path, address):
  """The converted file has the same bytes as the one on this machine."""
  source = write(tmp_path / 'res50_ir_0.887.safetensors', made('ir50'))
  put(tmp_path, address)
  here, there = tmp_path / 'ir50.safetensors', f'{address}/ir50.safetensors'
  words = 'ir50', '--source'
  assert command(capsys, *words, source, '--output', here)[0] == 0
  code, out, err = command(capsys, *words, f'{address}/{source.name}', '--output', there)
  assert code == 0 and out.startswith(f'{there}: ir50, '), err
  assert get(address)['ir50.safetensors'] == here.read_bytes()
  code, _, err = command(capsys, *words, f'{address}/{source.name}', '--output', there)
  assert code == 2 and f'{there} exists; it is not overwritten' in err


@pytest.mark.slow
def test_the_command(capsys, tmp_path):
  source = write(
    tmp_path / 'res50_ir_0.887.safetensors',
    {f'backbone.{name}': x for name, x in made('ir50').items()}
    | {'logits.weight': np.zeros((8, 512), np.float32), 'logits.bias': np.zeros(8, np.float32)},
  )
  output = tmp_path / 'ir50.safetensors'
  code, out, _ = command(
    capsys, 'ir50', '--source', source, '--output', output, '--licence', 'mine'
  )
  assert code == 0 and '37,309,888 numbers' in out
  for name in ("'logits.bias'", "'logits.weight'", '54 x num_batches_tracked'):
    assert f'left out      {name}\n' in out
  arrays, metadata = weight_files.load(output)
  assert metadata == {
    'architecture': 'ir50',
    'source': source.name,
    'source_sha256': weight_files.sha256_of_source(source),
    'licence': 'mine',
    'avjax': avjax.__version__,
  }
  wanted = (
    made('ir50')['output_layer.3.weight']
    .reshape(512, 512, 5, 5)
    .transpose(2, 3, 1, 0)
    .reshape(12800, 512)
  )
  assert (arrays['params/output/dense/kernel'] == wanted).all()  # channel first -> channel last
  before = output.read_bytes()
  code, _, err = command(capsys, 'ir50', '--source', source, '--output', output)
  assert code == 2 and 'not overwritten' in err and output.read_bytes() == before

  code, _, err = command(capsys, 'vggish', '--source', source, '--output', tmp_path / 'x')
  assert code == 2 and 'does not hold vggish' in err and len(err.splitlines()) == 1
  broken = {name: x for name, x in made('ir50').items() if name != 'body.3.res_layer.0.bias'}
  broken['output_layer.3.weight'] = np.zeros((512, 25088), np.float32)  # of the 112-pixel ArcFace
  code, out, err = command(
    capsys,
    'ir50',
    '--source',
    write(tmp_path / 'broken.safetensors', broken),
    '--output',
    tmp_path / 'x',
  )
  assert code == 2 and len(err.splitlines()) == 1 and '1 missing, 1 shape' in err
  assert '[512, 25088], wanted [512, 12800]' in out and 'body.3.res_layer.0.bias' in out
  assert not (tmp_path / 'x').exists()
  for arguments, words in (
    (('model', '--source', source, '--output', tmp_path / 'x'), 'needs --config'),
    (
      ('model', '--config', 'configs/grjca.py', '--source', source, '--output', tmp_path / 'x'),
      'rjca_author, lfan',
    ),
    (('ir50', '--source', tmp_path / 'nothing.pth', '--output', tmp_path / 'x'), 'does not exist'),
    (('ir50', '--source', tmp_path, '--output', tmp_path / 'x'), 'is not a file'),
    (('ir50', '--source', __file__, '--output', tmp_path / 'x'), 'neither a PyTorch file'),
    (('ir50', '--source', output, '--output', tmp_path / 'x'), 'is already converted'),
    (('ir50', '--source', '', '--output', tmp_path / 'x'), 'is not a file'),
    (('ir50', '--source', '.', '--output', tmp_path / 'x'), 'is not a file'),
    (('ir50', '--source', '/', '--output', tmp_path / 'x'), 'is not a file'),
    (('ir50', '--source', 'n' * 300, '--output', tmp_path / 'x'), 'File name too long'),
    (('ir50', '--source', source, '--output', tmp_path / ('n' * 300)), 'File name too long'),
    (('ir50', '--source', source, '--output', '.'), 'not overwritten'),
    (
      ('ir50', '--source', source, '--output', tmp_path / 'x', '--licence', 'MIT.\n\n## Endorsed'),
      'unprintable',
    ),
    (
      ('ir50', '--source', source, '--output', tmp_path / 'x', '--config.seed=3'),
      "unexpected argument '--config.seed=3'",
    ),
    (
      (
        'model',
        '--config',
        'configs/lfan.py',
        '--config.sead=3',
        '--source',
        source,
        '--output',
        tmp_path / 'x',
      ),
      'sead',
    ),
    (
      (
        'model',
        '--config',
        'configs/lfan.py',
        'more',
        '--source',
        source,
        '--output',
        tmp_path / 'x',
      ),
      "argument 'more'",
    ),
    (
      ('model', '--config', 'configs/none.py', '--source', 'none.pth', '--output', tmp_path / 'x'),
      'the config file',
    ),
  ):
    code, _, err = command(capsys, *arguments)
    assert code == 2 and words in err and len(err.splitlines()) == 1, err
  assert {path.name for path in tmp_path.iterdir()} == {
    source.name,
    output.name,
    'broken.safetensors',
  }


def test_sizes_of_a_whole_model_can_be_overridden(capsys, tmp_path):
  """The query_linear of repositories that use joint_fc is wanted where the config says so."""
  source = write(
    tmp_path / 'source.safetensors',
    {'temporal.video.network.0.conv1.weight_v': np.zeros((2, 2, 2), np.float32)},
  )
  for override, wanted in (
    ('--config.model.fusion.joint_fc=False', False),
    ('--config.model.fusion.joint_fc=True', True),
  ):
    code, out, err = command(
      capsys,
      'model',
      '--config',
      'configs/rjca_author.py:mini',
      override,
      '--source',
      source,
      '--output',
      tmp_path / 'x',
    )
    assert code == 2 and 'does not hold model' in err and ('query_linear' in out) == wanted


@pytest.mark.slow
def test_vggish_from_tensorflow_s_checkpoint(capsys, tmp_path):
  """VGGish from TensorFlow's checkpoint gives the same file as VGGish from PyTorch's.

  The same weights have TensorFlow's names and layout there. The checkpoint that is published is of
  the older kind, one file.
  """
  shapes = shapes_of('vggish')
  entries = [
    (name_maps.TOWERS['vggish'].entry(path.split('/', 1)[1], shape), path.split('/', 1)[1], shape)
    for path, shape in shapes.items()
  ]
  torch_like = {
    entry.name: cases.weight('vggish', entry.name, entry.shape) for entry, _, _ in entries
  }
  tensors = {
    name_maps.TOWERS['vggish_tensorflow'].entry(path, shape).name: entry.ours(
      torch_like[entry.name]
    )
    for entry, path, shape in entries
  }
  assert {
    'vggish/conv1/weights',
    'vggish/conv3/conv3_1/biases',
    'vggish/fc1/fc1_2/weights',
    'vggish/fc2/biases',
  } <= tensors.keys()
  more = {
    'global_step': np.int64(7),
    'beta1_power': np.float32(1),
    'vggish/conv1/weights/Adam': np.zeros(3, np.float32),
    '_CHECKPOINTABLE_OBJECT_GRAPH': tf.constant(b'no numbers'),
  }
  names, values = [*tensors, *more], [*tensors.values(), *more.values()]
  tf.raw_ops.SaveV2(
    prefix=str(tmp_path / 'vggish_model.ckpt'),
    tensor_names=names,
    shape_and_slices=[''] * len(names),
    tensors=values,
  )
  tf.raw_ops.Save(filename=str(tmp_path / 'older.ckpt'), tensor_names=names, data=values)
  source = tmp_path / 'vggish_model.ckpt'
  code, out, err = command(
    capsys, 'vggish', '--source', source, '--output', tmp_path / 'tf.safetensors'
  )
  assert (
    code == 0
    and '72,141,184 numbers' in out
    and all(f"left out      '{name}'" in out for name in more)
  ), err
  arrays, metadata = weight_files.load(tmp_path / 'tf.safetensors')
  expected = convert(torch_like, shapes, name_maps.TOWERS['vggish']).arrays
  assert arrays.keys() == expected.keys() and all(
    (arrays[name] == x).all() for name, x in expected.items()
  )
  (tmp_path / 'vggish_model.ckpt.notes').write_text('a neighbour that is no part of it')
  assert metadata['source_sha256'] == weight_files.sha256_of_source(source)
  read, older = (
    weight_files.read_published(source),
    weight_files.read_published(tmp_path / 'older.ckpt'),
  )
  assert read.keys() == older.keys() == set(names) and all(
    (older[name] == x).all() for name, x in read.items()
  )
