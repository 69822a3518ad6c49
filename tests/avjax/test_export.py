"""An exported model: what it predicts without avjax, what its card says, and files that are not what they should be."""

import json
import pathlib
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

import tiny
from avjax import checkpoint, evaluate, export, pretrained, run, step, weights
from data_prep.errors import InputError

ROOT = pathlib.Path(__file__).parents[2]

ALONE = '''
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
print(model.platforms, [name for name in sys.modules if name.startswith(('flax', 'tensorflow', 'data_prep'))])
'''


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """The folder of a run as training leaves it, with drawn parameters in its best checkpoint."""
  folder, config = tmp_path_factory.mktemp('run') / 'grjca_fold0', tiny.get_config()
  origin = {'architecture': 'ir50', 'source': 'made.pth', 'source_sha256': '12345678' * 8, 'licence': 'unknown'}
  run.open_folder(config, folder, {'made': 'up'}, {'visual': origin})
  variables = step.init_variables(config, step.make_model(config), 3)
  checkpoints = checkpoint.Checkpoints(folder)
  checkpoints.save(checkpoints.best, 8, variables, {'epoch': 7, 'ccc': 0.4321})
  checkpoints.close()
  scores = {'ccc': 0.4567, 'pcc': 0.5678, 'rmse': 0.2345}
  run.write_json(folder / 'results_validation.json', {'frames': 1234, 'clips': 9, 'valence': scores, 'arousal': scores})
  return folder


@pytest.fixture(scope='module')
def model(workdir, tmp_path_factory):
  folder = tmp_path_factory.mktemp('exported') / 'model'
  export.write(workdir, folder)
  return folder


def inputs(config, clips, rows, seed):
  rng, length, face = np.random.default_rng(seed), config.data.length, config.data.face
  return {'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
          'log_mel': rng.normal(size=(clips, rows, 64)).astype(np.float16),
          'starts': rng.integers(0, rows - 95, (clips, length), np.int32), 'real': rng.random((clips, length)) < 0.8}


def test_identical_predictions_without_avjax(workdir, model, tmp_path):
  """In a process of its own, for other numbers of clips and rows: the run's own predictions and gates, bit for bit."""
  config, network, variables, _ = evaluate.best(workdir)
  predict = step.make_predict_step(config, network)
  for clips, rows in ((1, 130), (3, 200)):
    batch = inputs(config, clips, rows, clips)
    np.savez(tmp_path / 'inputs.npz', **batch)
    done = subprocess.run([sys.executable, '-c', ALONE, str(tmp_path / 'inputs.npz'), str(tmp_path / 'outputs.npz')], cwd=model,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "('cpu', 'cuda', 'tpu') []"
    found, expected = np.load(tmp_path / 'outputs.npz'), predict(variables, batch)
    np.testing.assert_array_equal(found['prediction'], expected['prediction'])
    assert found['prediction'].shape == (clips, config.data.length, 2) and np.ptp(found['prediction']) > 1e-3
    assert set(found.files) == {'prediction', *expected['gates']}
    for name, scores in expected['gates'].items():
      np.testing.assert_array_equal(found[name], scores)


def test_what_the_folder_says(workdir, model):
  description, card = json.loads((model / 'model.json').read_text()), (model / 'README.md').read_text()
  assert description['targets'] == ['valence', 'arousal'] and description['best_epoch'] == 7
  assert description['config'] == json.loads((workdir / 'config.json').read_text())
  arrays, metadata = weights.load(model / 'weights.safetensors')
  assert metadata['targets'] == 'valence,arousal' and json.loads(metadata['config']) == description['config']
  assert 'params/fusion/gate_audio/kernel' in arrays
  for words in ('| valence | 0.457 | 0.568 | 0.234 |', '1,234 annotated frames of 9 clips', 'best epoch (8)',
                'visual: ir50 from made.pth', 'licence: unknown', 'recursions 3', 'valence and arousal, fold 0', 'uint8 (clips, 12, 16, 16, 3)'):
    assert words in card, words


def test_the_command_and_its_check(workdir, model, tmp_path):
  def command(*arguments):
    return subprocess.run([sys.executable, '-m', 'avjax.export', *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
  done = command(workdir, '--output', tmp_path / 'model')
  assert done.returncode == 0 and 'differ from the run\'s by at most 0.0e+00' in done.stdout, done.stderr
  for name in ('model.json', 'model.stablehlo', 'weights.safetensors', 'README.md'):
    assert (tmp_path / 'model' / name).read_bytes() == (model / name).read_bytes(), name
  assert command('--check', tmp_path / 'model').returncode == 0
  other = json.loads((model / 'model.json').read_text())
  other['example'][0][0][0] += 0.25
  (tmp_path / 'model' / 'model.json').write_text(json.dumps(other))
  assert 'by at most 2.5e-01' in command('--check', tmp_path / 'model').stdout
  for arguments, words in (((workdir, '--output', tmp_path / 'model'), 'is not empty'), ((workdir,), 'give RUN and --output'),
                           ((tmp_path, '--output', tmp_path / 'new'), 'config.json'), (('--check', workdir), 'no model.json')):
    done = command(*arguments)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
  assert not (tmp_path / 'new').exists()


def test_an_exported_model_is_a_start_for_a_run(workdir, model):
  config, _, variables, _ = evaluate.best(workdir)
  config.init.model = str(model / 'weights.safetensors')
  fresh = step.init_variables(config, step.make_model(config), 9)
  found, origins = pretrained.initialize(config, fresh)
  flat = pretrained.traverse_util.flatten_dict
  assert all((x == flat(variables)[name]).all() for name, x in flat(found).items())
  assert list(pretrained.describe(origins))[0].startswith('whole model: model from grjca_fold0')


def test_hostile_folders(model, tmp_path):
  """200 damaged files of an exported model: each is refused in one line before anything of it is run."""
  bad, rng = tmp_path / 'model', random.Random(1)
  shutil.copytree(model, bad)
  for name in ('model.stablehlo', 'weights.safetensors'):
    data = (model / name).read_bytes()
    for i in range(100):
      content = bytearray(data)
      if i % 2:
        content[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
      else:
        del content[rng.randrange(len(data)):]
      (bad / name).write_bytes(content)
      with pytest.raises(InputError) as refused:
        export.Model(bad)
      assert name in str(refused.value) and '\n' not in str(refused.value)
    (bad / name).write_bytes(data)
  export.Model(bad)
  for text, words in (('{', 'damaged'), ('{}', 'lacks'), ('{"sha256": {}}', 'lacks'), ('{"sha256": 3}', 'not of an exported model'),
                      ('[]', 'not of an exported model')):
    (bad / 'model.json').write_text(text)
    with pytest.raises(InputError, match=words):
      export.Model(bad)


def test_stablehlo_that_calls_out_or_is_none(tmp_path):
  """Without a checksum to be caught by: files that are no program, and one that would call the host."""
  import jax
  from jax import export as jax_export
  path = tmp_path / 'model.stablehlo'
  for content in (b'', b'\0' * 1000, bytes(range(256)) * 40):
    path.write_bytes(content)
    with pytest.raises(InputError, match='holds no StableHLO'):
      export.read_stablehlo(path)
  callback = jax.jit(lambda x: jax.lax.linalg.cholesky(x))  # LAPACK, outside XLA
  path.write_bytes(jax_export.export(callback)(jax.ShapeDtypeStruct((3, 3), np.float32)).serialize())
  with pytest.raises(InputError, match='calls lapack'):
    export.read_stablehlo(path)
