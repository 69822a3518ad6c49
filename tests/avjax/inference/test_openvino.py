"""Tests that towers run by OpenVINO are those of JAX, and that a prediction says so."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from fault.harness import call, one_line
from official_set import write_clip

import avjax
from avjax.errors import InputError
from avjax.inference import engines, openvino_engine
from avjax.inference.openvino_engine import Encoder, Translator, import_openvino, made_block
from avjax.inference.stream import StreamingPredictor
from avjax.system import System

ROOT = pathlib.Path(__file__).parents[3]
# Tests that only need its absence, or no engine at all, run without it.
needs_openvino = pytest.mark.skipif(
  engines.importlib.util.find_spec('openvino') is None,
  reason="OpenVINO is not installed: pip install 'avjax[cpu]'",
)


BATCHED = (((2,), (1,)), ((0,), (0,)))  # the axes of a product of matrices, one for each clip


def has_bfloat16():
  return 'BF16' in import_openvino().Core().get_property('CPU', 'OPTIMIZATION_CAPABILITIES')


@pytest.fixture
def clip(tmp_path):
  """A video of 19 frames with sound, and a folder of its faces: a full block, and three frames."""
  return write_clip(tmp_path, 19)


def random_model(config):
  """Returns (system, variables) with random numbers in place of the zeros and ones of norms."""
  system = System.from_config(config)
  leaves, tree = jax.tree.flatten(system.init(0))
  rng = np.random.default_rng(1)
  changed = [x * jnp.asarray(rng.uniform(0.8, 1.2, x.shape), x.dtype) + 0.01 for x in leaves]
  return system, jax.tree.unflatten(tree, changed)


@needs_openvino
@pytest.mark.parametrize('precision, bound', [('float32', 1e-5), ('bfloat16', 0.04)])
@pytest.mark.parametrize(
  'modality, tower', [('visual', 'ir50'), ('visual', 'resnet50'), ('audio', 'vggish')]
)
def test_a_tower_is_that_of_jax(modality, tower, precision, bound):
  """The bounds are shares of the largest feature."""
  if precision == 'bfloat16' and not has_bfloat16():
    pytest.skip('the processor has no bfloat16')
  config = tiny.get_config()
  config.model[modality].tower = tower
  other = {'visual': 'audio', 'audio': 'visual'}[modality]
  config.model[other].tower, config.model.fusion = 'none', {'name': modality}
  system, variables = random_model(config)
  batch = {
    'faces': np.zeros((1, 5, 16, 16, 3), np.uint8),
    'log_mel': np.zeros((1, 5 * 96, 64), np.float16),
    'starts': np.arange(5, dtype=np.int32)[None] * 96,
    'real': np.ones((1, 5), bool),
  }
  batch = made_block({name: batch[name] for name in system.inputs.fields})
  encoder = Encoder(system, variables, batch, precision, model='it')
  for found, wanted in zip(encoder(variables, batch), system.encode(variables, batch), strict=True):
    assert (found is None) == (wanted is None)
    if wanted is not None:
      assert found.shape == wanted.shape == (1, 5, 8)
      assert np.asarray(wanted).std(1).min() > 0  # the frames differ
      np.testing.assert_allclose(found, wanted, rtol=0, atol=bound * np.abs(wanted).max())


@needs_openvino
def test_operations_one_by_one():
  """Those of the towers in other shapes than theirs: axes that change places unseen otherwise."""
  conv = jax.lax.conv_general_dilated
  x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
  kernel = np.random.default_rng(1).normal(size=(2, 3, 3, 4)).astype(np.float32)
  layout = ('NHWC', 'HWIO', 'NHWC')
  for function in (
    lambda x: conv(x, kernel, (2, 1), ((0, 1), (2, 0)), dimension_numbers=layout),
    lambda x: conv(x, kernel, (1, 1), 'VALID', rhs_dilation=(2, 1), dimension_numbers=layout),
    lambda x: jax.lax.reduce_window(
      x, -np.inf, jax.lax.max, (1, 2, 3, 1), (1, 1, 2, 1), ((0, 0), (1, 0), (0, 2), (0, 0))
    ),
    lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (3, 0)), constant_values=7.0),
    lambda x: x[1:, 1:4:2, ::3, 1:],
    lambda x: x.sum((1, 3)),
    lambda x: x.reshape(2, 90)[:, 10:22].reshape(2, 3, 2, 2),
    lambda x: jnp.minimum(x, 0) / (jnp.sqrt(x * x) + 1) - jax.lax.rsqrt(jnp.maximum(x, 0.5)),
    lambda x: x[:, 0, 0] @ kernel[0, 0] + x[:, 1, 0, :1],
    lambda x: x * np.arange(6, dtype=np.float32)[None, None, :, None],
  ):
    program = Translator(import_openvino()).translate(jax.make_jaxpr(function)(x))
    settings = {'INFERENCE_PRECISION_HINT': 'f32'}
    found = import_openvino().Core().compile_model(program, 'CPU', settings)(x)[0]
    np.testing.assert_allclose(found, function(x), rtol=1e-5, atol=1e-5)


@needs_openvino
@pytest.mark.parametrize(
  'operation, function',
  [
    ('sin', jnp.sin),
    ('broadcast_in_dim to another size', lambda x: jnp.broadcast_to(x, (2, *x.shape))),
    ('dot_general of another kind', lambda x: jax.lax.dot_general(x[0], x[0], BATCHED)),
    ('pad of another kind', lambda x: jax.lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1)] * 2)),
    (
      'conv_general_dilated of another kind',
      lambda x: jax.lax.conv(x, x, (1, 1), 'VALID'),
    ),
    (
      'conv_general_dilated of another kind',
      lambda x: jax.lax.conv_general_dilated(
        x, np.ones((1, 1, 1, 2), np.float32), (1, 1), 'VALID', feature_group_count=2,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      ),
    ),
    (
      'reduce_window_max of another kind',
      lambda x: jax.lax.reduce_window(x, -np.inf, jax.lax.max, (1, 1, 1, 2), (1,) * 4, 'VALID'),
    ),
  ],
)  # fmt: skip
def test_what_has_no_rule_is_named(operation, function):
  closed = jax.make_jaxpr(function)(np.ones((2, 2, 2, 2), np.float32))
  with pytest.raises(InputError, match=f'how to do the operation {operation}; leave out'):
    Translator(import_openvino()).translate(closed)


@needs_openvino
@pytest.mark.parametrize('engine, bound', [('openvino', 1e-4), ('openvino-bfloat16', 0.03)])
def test_predictions_are_those_of_jax(clip, tiny_run, engine, bound):
  if engine == 'openvino-bfloat16' and not has_bfloat16():
    pytest.skip('the processor has no bfloat16')
  wanted = avjax.predict_video(clip[0], tiny_run, crops=clip[1])
  found = avjax.predict_video(clip[0], tiny_run, crops=clip[1], engine=engine)
  for target in ('valence', 'arousal'):
    difference = np.abs(getattr(found, target) - getattr(wanted, target))
    assert len(difference) == 19 and 0 < difference.max() < bound
  assert not any('OpenVINO' in note for note in wanted.notes)


@needs_openvino
def test_the_prediction_says_what_computed_it(clip, tiny_run, tmp_path):
  arguments = [clip[0], '--run', tiny_run, '--crops', clip[1], '--output', tmp_path / 'out']
  done = call(*arguments, '--engine', 'openvino', module='avjax.predict')
  assert done.returncode == 0 and not done.stderr, done.stderr
  note = f'towers by OpenVINO {import_openvino().get_version().split("-")[0]} in float32; '
  note += 'at the start, on made inputs, '
  assert note in done.stdout
  assert note in (tmp_path / 'out' / 'clip.csv').read_text().splitlines()[0]
  assert note in (tmp_path / 'out' / 'clip.html').read_text()


@needs_openvino
@pytest.mark.parametrize('wrong', [0.5, np.nan])
def test_towers_that_differ_are_refused(clip, tiny_run, tmp_path, wrong, monkeypatch):
  original = Encoder.__call__

  def different(self, variables, batch):
    visual, audio = original(self, variables, batch)
    return visual + wrong, audio

  monkeypatch.setattr(Encoder, '__call__', different)
  arguments = [clip[0], '--run', tiny_run, '--crops', clip[1], '--output', tmp_path / 'out']
  done = call(*arguments, '--engine', 'openvino', module='avjax.predict')
  assert done.returncode == 2 and one_line(done.stderr), done.stderr
  assert 'predictions by OpenVINO in' in done.stderr and 'leave out --engine' in done.stderr
  assert not (tmp_path / 'out').exists()


@needs_openvino
def test_a_tower_with_another_operation_is_refused(tiny_run, monkeypatch):
  monkeypatch.delitem(openvino_engine.RULES, 'rsqrt')
  with pytest.raises(InputError, match='how to do the operation rsqrt; leave out --engine'):
    StreamingPredictor(tiny_run, 'openvino')


@needs_openvino
def test_an_accelerator_has_no_use_for_it(tiny_run, monkeypatch):
  monkeypatch.setattr(openvino_engine.jax, 'default_backend', lambda: 'gpu')
  with pytest.raises(InputError, match='for a CPU, and JAX runs on a gpu here: leave it out'):
    Encoder(None, None, None, 'float32', model='it')


@needs_openvino
def test_a_processor_without_bfloat16_is_told_of_float32(tiny_run, monkeypatch):
  openvino = import_openvino()
  monkeypatch.setattr(openvino.Core, 'get_property', lambda *arguments: ['FP32'])
  with pytest.raises(InputError, match='does not compute in bfloat16 .*: give --engine openvino'):
    StreamingPredictor(tiny_run, 'openvino-bfloat16')


def test_an_openvino_that_does_not_start_is_one_line(monkeypatch):
  monkeypatch.setitem(sys.modules, 'openvino', None)
  with pytest.raises(InputError, match='OpenVINO does not start: .*; leave out --engine'):
    import_openvino()


@needs_openvino
def test_what_openvino_refuses_is_one_line(tiny_run, monkeypatch):
  openvino = import_openvino()

  def refuse(*arguments):
    raise RuntimeError('Exception from core.cpp:\nno such\ndevice')

  monkeypatch.setattr(openvino.Core, 'compile_model', refuse)
  with pytest.raises(InputError, match='tiny; leave out --engine: Exception from core.cpp: no'):
    StreamingPredictor(tiny_run, 'openvino')


def test_without_openvino_one_line_says_the_command(clip, tiny_run, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'openvino', None)
  arguments = [clip[0], '--run', tmp_path / 'no run', '--output', tmp_path / 'out']
  done = call(*arguments, '--engine', 'openvino', module='avjax.predict')
  assert (done.returncode, done.stderr) == (
    2,
    "error: --engine openvino needs OpenVINO: pip install 'avjax[cpu]'\n",
  )
  for function in (avjax.predict_video, lambda _, run, engine: StreamingPredictor(run, engine)):
    with pytest.raises(InputError, match='needs OpenVINO'):
      function(clip[0], tiny_run, engine='openvino')
    with pytest.raises(InputError, match="one of jax, openvino, openvino-bfloat16, not 'tpu'"):
      function(clip[0], tiny_run, engine='tpu')
  assert not (tmp_path / 'out').exists()


@needs_openvino
def test_openvino_reports_nothing_to_its_makers(tmp_path):
  """Its converter, which does, is not imported; afterwards a program may import it by itself."""
  code = """
import socket, sys
from avjax.inference.openvino_engine import import_openvino
def refuse(*_): raise SystemExit('a connection')
socket.socket.connect = socket.getaddrinfo = refuse
import_openvino().Core().available_devices
print(*[name for name in sys.modules if 'telemetry' in name or name.startswith('openvino.tools')])
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    env={**os.environ, 'HOME': str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '\n', '')
  assert not (tmp_path / 'intel').exists()
