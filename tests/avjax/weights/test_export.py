"""Tests that an exported model predicts without avjax what the run predicts.

The model card and damaged or hostile files are tested too.
"""

import dataclasses
import importlib
import json
import os
import random
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tiny
from fault.harness import call, made_run
from fault.harness import run as run_command
from flax import traverse_util

import avjax.weights.exported as export
from avjax import bounded, files
from avjax.errors import InputError
from avjax.runs.load import load_best
from avjax.system import System, compilation
from avjax.weights import files as weight_files
from avjax.weights import stablehlo_check
from avjax.weights.exported import (
  SAME_CPU,
  ExportedModel,
  export_program,
  export_run,
)
from avjax.weights.initialize import describe_origins, initialize
from avjax.weights.model_card import model_card

# The older emitters, which the other tests are compiled with, order sums otherwise in a program
# that was exported.
EMITTERS = '--xla_cpu_use_fusion_emitters=false'
USUAL = {**os.environ, 'XLA_FLAGS': os.environ['XLA_FLAGS'].replace(EMITTERS, '')}
ALONE = """
import pathlib, sys
sys.modules['avjax'] = None  # an import of it would fail
import jax.export
import numpy as np
import safetensors.numpy
model = jax.export.deserialize(bytearray(pathlib.Path('model.stablehlo').read_bytes()))
weights = safetensors.numpy.load_file('weights.safetensors')
inputs = np.load(sys.argv[1])
output = model.call(weights, *(inputs[name] for name in ('faces', 'log_mel', 'starts', 'real')))
np.savez(sys.argv[2], prediction=output['prediction'], **output['gates'])
print(model.platforms, [
  name for name in sys.modules if name.startswith(('flax', 'tensorflow', 'data_prep'))
])
"""


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """The folder of a run as training leaves it, with drawn parameters in its best checkpoint."""
  folder, config = tmp_path_factory.mktemp('run') / 'grjca_fold0', tiny.get_config()
  origin = {
    'architecture': 'ir50',
    'source': 'made.pth',
    'source_sha256': '12345678' * 8,
    'licence': 'unknown',
  }
  made_run(folder, config, origins={'visual': origin}, meta={'epoch': 7, 'ccc': 0.4321})
  scores = {'ccc': 0.4567, 'pcc': 0.5678, 'rmse': 0.2345}
  files.write_json(
    folder / 'results_validation.json',
    {
      'partition': 'validation',
      'fold': 0,
      'best_epoch': 7,
      'frames': 1234,
      'clips': 9,
      'valence': scores,
      'arousal': scores,
    },
  )
  return folder


@pytest.fixture(scope='module')
def model(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported') / 'model'
  done = run_command(workdir, '--output', folder, module='avjax.export', env=USUAL)
  assert done.returncode == 0, done.stderr
  return folder


def inputs(config, clips, rows, seed):
  rng, length, face = np.random.default_rng(seed), config.data.length, config.data.face
  return {
    'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
    'log_mel': rng.normal(size=(clips, rows, 64)).astype(np.float16),
    'starts': rng.integers(0, rows - 95, (clips, length), np.int32),
    'real': rng.random((clips, length)) < 0.8,
  }


@pytest.mark.slow
def test_identical_predictions_without_avjax(workdir, model, tmp_path):
  """In a process without avjax it gives the run's predictions and gates.

  This holds for other numbers of clips and log-mel rows, too. The two programs are compiled each by
  itself, and XLA may sum the products of VGGish's first convolution in another order.
  """
  config, system, variables, _ = load_best(workdir)
  predict = compilation.jit(system.predict)
  for clips, rows in ((1, 130), (3, 200)):
    batch = inputs(config, clips, rows, clips)
    np.savez(tmp_path / 'inputs.npz', **batch)
    done = subprocess.run(
      [sys.executable, '-c', ALONE, str(tmp_path / 'inputs.npz'), str(tmp_path / 'outputs.npz')],
      cwd=model,
      capture_output=True,
      text=True,
      env=USUAL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('cpu', 'cuda', 'tpu') []"
    usual = {'xla_cpu_use_fusion_emitters': True} if EMITTERS in os.environ['XLA_FLAGS'] else {}
    compiled = predict.lower(variables, batch).compile(compiler_options=usual)
    found, expected = np.load(tmp_path / 'outputs.npz'), compiled(variables, batch)
    np.testing.assert_allclose(found['prediction'], expected['prediction'], rtol=0, atol=2e-6)
    assert (
      found['prediction'].shape == (clips, config.data.length, 2)
      and np.ptp(found['prediction']) > 1e-3
    )
    assert set(found.files) == {'prediction', *expected['gates']}
    for name, scores in expected['gates'].items():
      np.testing.assert_allclose(found[name], scores, rtol=0, atol=2e-6)


def test_what_the_folder_says(workdir, model):
  description, card = (
    json.loads((model / 'model.json').read_text()),
    (model / 'README.md').read_text(),
  )
  assert description['targets'] == ['valence', 'arousal'] and description['best_epoch'] == 7
  assert description['config'] == json.loads((workdir / 'config.json').read_text())
  arrays, metadata = weight_files.load(model / 'weights.safetensors')
  assert (
    metadata['targets'] == 'valence,arousal'
    and json.loads(metadata['config']) == description['config']
  )
  assert 'params/fusion/gate_audio/kernel' in arrays
  for words in (
    '| valence | 0.457 | 0.568 | 0.234 |',
    '1,234 annotated frames of 9 clips',
    'best epoch (8)',
    'visual: ir50 from made.pth',
    'licence: unknown',
    'to these weights. That of Aff-Wild2, for one, allows research only.',
    'recursions 3',
    'valence and arousal, fold 0',
    'uint8 (clips, 12, 16, 16, 3)',
  ):
    assert words in card, words


@pytest.mark.slow
def test_the_command_and_its_check(workdir, model, tmp_path):
  def command(*arguments):
    return call(*arguments, module='avjax.export')

  done = run_command(workdir, '--output', tmp_path / 'model', module='avjax.export', env=USUAL)
  assert done.returncode == 0, done.stderr
  assert float(re.search(r"differ from the run's by at most (\S+)", done.stdout)[1]) < 2e-6
  for name in ('model.json', 'model.stablehlo', 'weights.safetensors', 'README.md'):
    assert (tmp_path / 'model' / name).read_bytes() == (model / name).read_bytes(), name
  assert command('--check', tmp_path / 'model').returncode == 0
  change(
    tmp_path / 'model' / 'model.json',
    lambda description: description['example'][0][0].__setitem__(0, 0.25),
  )
  assert command('--check', tmp_path / 'model', '--tolerance', 2).returncode == 0
  before = sorted(tmp_path.iterdir())
  for arguments, words in (
    (('--check', tmp_path / 'model'), 'more than 0.001'),
    ((workdir, '--output', tmp_path / 'model'), 'not overwritten'),
    ((workdir,), 'give RUN and --output'),
    ((tmp_path, '--output', tmp_path / 'new'), 'config.json'),
    (('--check', workdir), 'no model.json'),
    (('--check', 'n' * 300), 'no model.json'),
  ):
    done = command(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, (
      done.stderr
    )
  assert sorted(tmp_path.iterdir()) == before


def change(path, how):
  """Changes what a JSON file holds."""
  value = json.loads(path.read_text())
  how(value)
  path.write_text(json.dumps(value))


def test_the_check_fails_where_predictions_are_other_ones(model, tmp_path):
  shutil.copytree(model, tmp_path / 'model')
  exported, kept = (
    ExportedModel(tmp_path / 'model'),
    np.array(json.loads((model / 'model.json').read_text())['example']),
  )
  assert exported.check(SAME_CPU) < SAME_CPU
  nan = kept.copy()
  nan[0, 0, 0] = np.nan
  for wanted, words in (
    (kept + 2e-3, 'differ by 2.0e-03, more than 0.001'),
    (nan, 'differ by nan'),
    (kept[:, :3], 'predicts'),
    (kept[..., :1], 'predicts'),
    (kept[:0], 'predicts'),
    ('x', 'does not run'),
  ):
    exported.description['example'] = np.asarray(wanted).tolist()
    with pytest.raises(InputError, match=words):
      exported.check()
  exported.description['example'] = (kept + 5e-4).tolist()
  assert 4e-4 < exported.check() < 6e-4


@pytest.mark.parametrize(
  'towers, platform, limit',
  [
    ('float32', 'gpu', 1e-2),
    ('float32', 'tpu', 3e-2),
    ('bfloat16', 'cpu', 3e-2),
    ('bfloat16', 'gpu', 3e-2),
    ('bfloat16', 'tpu', 3e-2),
  ],
)
def test_how_far_predictions_may_be_elsewhere(model, monkeypatch, towers, platform, limit):
  """By platform and type; the numbers that it predicts here stand for those of the other device."""
  exported = ExportedModel(model)
  windows = list(exported.run_example())
  inexact = exported.system.model.clone(tower_type=towers)
  exported.system = dataclasses.replace(exported.system, model=inexact)
  monkeypatch.setattr(export.jax, 'default_backend', lambda: platform)
  for share in (0.9, 1.1):
    exported.description['example'] = (np.concatenate(windows) + share * limit).tolist()
    if share < 1:
      assert exported.compare(windows, None) <= limit
    else:
      with pytest.raises(InputError, match=f'more than {limit:g}'):
        exported.compare(windows, None)


@pytest.mark.slow
def test_a_model_that_is_not_the_run_s_is_not_published(workdir, tmp_path, monkeypatch):
  """Nothing of it is left, and the user's files in the same folder are not touched."""
  (tmp_path / 'model.partial').mkdir()
  (tmp_path / 'model.partial' / 'mine').write_text('mine')

  def hotter(system, variables):
    settings = dict(system.model.settings)
    settings['fusion'] = {**settings['fusion'], 'temperature': 9.0}
    changed = dataclasses.replace(system, model=system.model.clone(settings=settings))
    return export_program(changed, variables)

  with monkeypatch.context() as patched:
    patched.setattr(export, 'export_program', hotter)
    with pytest.raises(InputError, match='does not predict what its run predicted'):
      export_run(workdir, tmp_path / 'deeper' / 'model')
  assert [path.name for path in tmp_path.iterdir()] == ['model.partial']
  export_run(workdir, tmp_path / 'model')
  assert (tmp_path / 'model.partial' / 'mine').read_text() == 'mine'
  assert {path.name for path in tmp_path.iterdir()} == {'model', 'model.partial'}


@pytest.mark.parametrize(
  'name, text, words',
  [
    ('config.json', '{}', 'config.json is not a config'),
    ('config.json', '[]', 'config.json is damaged'),
    ('config.json', '{"model": {"x": {}}}', 'config.json is not a valid config'),
    ('config.json', '[' * 100_000, 'config.json is damaged'),
    ('versions.json', '{}', 'no valid versions.json'),
    ('versions.json', '[]', 'versions.json is damaged'),
    ('results_validation.json', '[]', 'results_validation.json is damaged'),
    (
      'results_validation.json',
      '{"best_epoch": 7, "fold": 0, "frames": 3}',
      'no valid versions.json or results',
    ),
    ('versions.json', '{"init": {"visual": {"licence": "MIT.\\n\\n## Endorsed"}}}', 'unprintable'),
  ],
)
def test_a_run_whose_files_are_not_what_they_should_be(workdir, tmp_path, name, text, words):
  shutil.copytree(workdir, tmp_path / 'run')
  (tmp_path / 'run' / name).write_text(text)
  with pytest.raises(InputError, match=words) as refused:
    export_run(tmp_path / 'run', tmp_path / 'model')
  assert str(refused.value).isprintable() and [path.name for path in tmp_path.iterdir()] == ['run']


@pytest.mark.parametrize('results', [{'best_epoch': 6}, {'fold': 1}, {'frames': 0}])
def test_the_card_tells_no_other_state_s_results(workdir, model, tmp_path, results):
  shutil.copy(workdir / 'results_validation.json', tmp_path)
  change(tmp_path / 'results_validation.json', lambda found: found.update(results))
  card = model_card(tmp_path, json.loads((model / 'model.json').read_text()))
  assert '0.457' not in card and 'while training: 0.432, epoch 8' in card


@pytest.mark.parametrize('name', ['ustc', 'ctyunai', 'aiwell', 'baseline', 'meng', ''])
def test_the_card_names_the_system(model, tmp_path, name):
  """It says which system this is, and what it means where that is a reconstruction."""
  description = json.loads((model / 'model.json').read_text())
  if name:
    system = importlib.import_module(f'configs.{name}').get_config().system
    description['config']['system'] = system
  else:  # a run of version 0.2.0
    del description['config']['system']
  card = model_card(tmp_path, description)
  assert card.count('- System: ') == bool(name) and (not name or f'- System: {system}.' in card)
  is_reconstruction = name in ('ustc', 'ctyunai', 'aiwell', 'baseline')
  assert ('a reconstruction' in card) == is_reconstruction
  assert ('no code. Its sizes are guesses, and its results are not theirs' in card) == (
    is_reconstruction
  )


@pytest.mark.parametrize(
  'smooth, words',
  [
    (1, None),
    ([1, 1], None),
    (101, 'averaged over 101 frames, which'),
    ([20, 50], 'averaged over 20 frames (valence), 50 frames (arousal), which'),
    ([1, 50], 'averaged over 1 frame (valence), 50 frames (arousal), which'),
  ],
)
def test_the_card_tells_of_smoothing(workdir, model, tmp_path, smooth, words):
  shutil.copy(workdir / 'results_validation.json', tmp_path)
  description = json.loads((model / 'model.json').read_text())
  description['config']['smooth'] = smooth
  card = model_card(tmp_path, description)
  assert words in card if words else 'averaged' not in card


def test_the_current_folder_is_not_written_over(workdir, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for output in ('.', 'n' * 300):
    with pytest.raises(InputError, match='not overwritten|File name too long'):
      export_run(workdir, output)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', ['weights.safetensors', ''])
def test_an_exported_model_is_a_start_for_a_run(workdir, model, name):
  """config.init.model takes its file of weights, or its folder."""
  config, _, variables, _ = load_best(workdir)
  config.init.model = str(model / name)
  fresh = System.from_config(config).init(9)
  found, origins = initialize(config, fresh)
  flat = traverse_util.flatten_dict
  assert all((x == flat(variables)[name]).all() for name, x in flat(found).items())
  assert next(iter(describe_origins(config, origins))).startswith(
    'whole model: model from grjca_fold0'
  )


def test_hostile_folders(model, tmp_path):
  """Each of 200 damaged files of an exported model is refused, in one line, before it is run."""
  bad, rng = tmp_path / 'model', random.Random(1)
  shutil.copytree(model, bad)
  for name in ('model.stablehlo', 'weights.safetensors'):
    data = (model / name).read_bytes()
    for i in range(100):
      content = bytearray(data)
      if i % 2:
        content[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
      else:
        del content[rng.randrange(len(data)) :]
      (bad / name).write_bytes(content)
      with pytest.raises(InputError) as refused:
        ExportedModel(bad)
      assert name in str(refused.value) and '\n' not in str(refused.value)
    (bad / name).write_bytes(data)
  ExportedModel(bad)
  for text, words in (
    ('{', 'damaged'),
    ('{}', 'lacks'),
    ('{"sha256": {}}', 'lacks'),
    ('{"sha256": 3}', 'not of an exported model'),
    ('[]', 'damaged'),
    ('[' * 100_000, 'damaged'),
  ):
    (bad / 'model.json').write_text(text)
    with pytest.raises(InputError, match=words):
      ExportedModel(bad)


@pytest.mark.slow
def test_damaged_programs_that_reach_the_parser(model):
  """A damaged program is refused by the parser, even where the parser crashes.

  No checksum catches it. The parser runs in a process of its own, and that of jaxlib 0.10.2 crashes
  on some of the 50 files in which a number of one region is 7.
  """
  data, rng = (model / 'model.stablehlo').read_bytes(), random.Random(1)
  programs = []
  for i in range(200):
    content = bytearray(data)
    if i % 4 == 0:
      content[28_958 + i] = 7
    elif i % 4 == 3:
      del content[rng.randrange(len(data)) :]
    for _ in range(i % 4):
      content[rng.randrange(len(content))] = rng.randrange(256)
    programs.append(bytes(content))
  reasons = stablehlo_check.reasons_against([*programs, data])
  assert len(reasons) == 201 and reasons[-1] is None
  assert all(
    reason.isprintable() and reason.startswith(('holds no', 'calls'))
    for reason in reasons
    if reason
  )
  assert (
    all(reasons[3:200:4]) and sum(map(bool, reasons)) > 100
  )  # a changed constant is a program like another
  crashed = [i for i, reason in enumerate(reasons) if reason and 'its parser crashed' in reason]
  with pytest.raises(InputError, match='holds no StableHLO'):
    stablehlo_check.read_stablehlo(programs[crashed[0]], 'model.stablehlo')


def dies_of_bad(sizes):
  """Stands for `check_programs`; it runs in the child."""
  for size in sizes:
    if sys.stdin.buffer.read(size) == b'bad':
      os.abort()
    yield {'reason': None}, bounded.NOTHING


def test_a_parser_that_dies_is_told_of_the_right_file(monkeypatch):
  monkeypatch.setattr(stablehlo_check, 'check_programs', dies_of_bad)
  reasons = stablehlo_check.reasons_against([b'good', b'bad', b'bad', b'good'])
  assert [bool(reason) for reason in reasons] == [False, True, True, False]
  assert 'its parser crashed (SIGABRT)' in reasons[1]


@pytest.mark.slow
def test_stablehlo_that_calls_out_or_is_none():
  """Files that are not a program, and one that would call the host, are refused.

  They are read directly, so no checksum catches them.
  """
  import jax
  from jax import export as jax_export

  for content in (b'', b'\0' * 1000, bytes(range(256)) * 40):
    with pytest.raises(InputError, match='holds no StableHLO'):
      stablehlo_check.read_stablehlo(content, 'model.stablehlo')
  x = jax.ShapeDtypeStruct((3, 3), np.float32)

  def custom(name):
    return lambda x: jax.ffi.ffi_call(name, x)(x)

  for program, words in (
    (lambda x: jax.lax.linalg.cholesky(x), "calls 'lapack_spotrf"),  # outside XLA
    (custom('shape_assertion.other'), "calls 'shape_assertion.other', which"),
    (custom('a "quoted\\" name'), 'calls .a "quoted'),
  ):
    check = jax_export.DisabledSafetyCheck.custom_call
    names = ('shape_assertion.other', 'a "quoted\\" name')
    exported = jax_export.export(jax.jit(program), disabled_checks=list(map(check, names)))(x)
    with pytest.raises(InputError, match=words):
      stablehlo_check.read_stablehlo(exported.serialize(), 'model.stablehlo')
