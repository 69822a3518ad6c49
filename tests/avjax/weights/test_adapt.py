"""Weights of a model on windows of another length, or for other targets."""

import importlib
import json
import re

import jax
import numpy as np
import pytest
import tiny
from fault.harness import call, flags, made_run, one_line
from flax import traverse_util

from avjax.errors import InputError
from avjax.runs.load import load_best
from avjax.system import System
from avjax.weights import files as weight_files
from avjax.weights.adapt import complete
from avjax.weights.initialize import initialize
from benchmarks.systems import on_features

LENGTH = 12
SEED = 9


def small(system='grjca', length=LENGTH, targets=('valence', 'arousal')):
  """Returns the config of a system, small and on features, which need no towers to be compiled."""
  config = importlib.import_module(f'configs.{system}').get_config('mini')
  config = on_features(config, {'visual': 6, 'audio': 4})
  config.data.length, config.targets = length, targets
  return config


def draw(config, seed):
  """Returns variables of the model of a config, of which none is 0 or 1."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: rng.uniform(0.1, 0.5, x.shape).astype(np.float32), System.from_config(config).shapes
  )


def model_file(path, config, change=lambda metadata: metadata):
  """Writes a file of weights as python -m avjax.export does; returns the drawn variables."""
  variables = draw(config, 3)
  metadata = {
    'architecture': 'model',
    'source': 'made',
    'source_sha256': '12345678' * 8,
    'licence': 'none',
    'config': config.to_json(),
  }
  weight_files.save(path, flat(variables), change(metadata))
  return variables


def flat(variables):
  arrays = traverse_util.flatten_dict(variables, sep='/')
  return {name: np.asarray(x) for name, x in arrays.items()}


def start_from(path, config):
  """Returns (the variables that a run of the config starts from, what was changed in the model)."""
  config.init.model = str(path)
  variables, origins = initialize(config, System.from_config(config).shapes)
  drawn = draw(config, SEED)
  return jax.tree.map(complete, variables, drawn), origins['model'].get('changes', '')


def predict(config, variables, frames=LENGTH):
  """Returns the predictions (2,frames,outputs) for two windows of so many frames, and padding."""
  system, rng = System.from_config(config), np.random.default_rng(0)
  real = np.tile(np.arange(config.data.length) < frames, (2, 1))
  batch = {'real': real}
  for name, width in (('features/visual', 6), ('features/audio', 4)):
    x = rng.normal(size=(2, 40, width)).astype(np.float32)
    batch[name] = x[:, : config.data.length]
  return np.asarray(jax.jit(system.predict)(variables, batch)['prediction'])[:, :frames]


@pytest.mark.parametrize('length', [7, LENGTH, 20])
@pytest.mark.parametrize('system', ['grjca', 'rjca_author', 'jca_2022', 'lfan'])
def test_another_length(system, length, tmp_path):
  """The leading block is kept, and predictions of short clips stay what they were.

  A window with fewer frames than L uses the leading block, so that the models before and after
  agree on each clip that is no longer than the windows of both.
  """
  before = model_file(tmp_path / 'model', small(system))
  old, drawn = flat(before), flat(draw(small(system, length), SEED))
  after, changes = start_from(tmp_path / 'model', small(system, length))
  differ = []
  for name, x in flat(after).items():
    block = tuple(map(slice, np.minimum(x.shape, old[name].shape)))
    np.testing.assert_array_equal(x[block], old[name][block])
    is_new = np.ones(x.shape, bool)
    is_new[block] = False
    np.testing.assert_array_equal(x[is_new], drawn[name][is_new])
    if x.shape != old[name].shape:
      assert name.startswith('params/fusion/') and {length, LENGTH} == set(x.shape) ^ set(
        old[name].shape
      )
      differ.append(name.removeprefix('params/'))
  assert bool(differ) == (length != LENGTH and system != 'lfan') == bool(changes)
  if differ:
    assert set(re.findall(r'fusion/[^ ,]+', changes)) == set(differ)
    verb = 'is kept' if length < LENGTH else 'are drawn from the seed'
    assert changes.startswith(f'windows of {length} frames, not {LENGTH}: ')
    assert changes.endswith(verb)

  shared = min(length, LENGTH)
  np.testing.assert_allclose(
    predict(small(system, length), after, shared),
    predict(small(system), before, shared),
    atol=2e-6,
  )


HEADS = {
  'grjca': 'mlp',
  'lfan': 'linear',
  'zhou': 'affine',
  'ctyunai': 'affine, shared',
  'hsemotion': 'perceptron',
}
BOTH = ('valence', 'arousal')


@pytest.mark.parametrize('system', HEADS, ids=HEADS.values())
@pytest.mark.parametrize(
  'old, new',
  [
    (BOTH, ('arousal',)),
    (BOTH, ('arousal', 'valence')),
    (('arousal',), BOTH),
    (('valence',), ('arousal',)),
  ],
  ids=' to '.join,
)
def test_other_targets(system, old, new, tmp_path):
  """What is predicted for a target of both models is the same; for a new one it is drawn."""
  before = model_file(tmp_path / 'model', small(system, targets=old))
  after, changes = start_from(tmp_path / 'model', small(system, targets=new))
  found = predict(small(system, targets=new), after)
  wanted = predict(small(system, targets=old), before)
  for i, target in enumerate(new):
    if target in old:
      np.testing.assert_allclose(found[..., i], wanted[..., old.index(target)], atol=2e-6)
  kept, drawn = flat(before), flat(draw(small(system, targets=new), SEED))
  for name, x in flat(after).items():
    if name.split('/')[1] != 'head':
      np.testing.assert_array_equal(x, kept[name])
  fresh = [i for i, target in enumerate(new) if target not in old]
  layers = [name for name in drawn if re.match(r'params/head/output\d*/', name)]
  if system == 'zhou' and len(new) > 1:  # a layer for each target
    layers = [f'params/head/output{i}/{leaf}' for i in fresh for leaf in ('kernel', 'bias')]
    fresh = [0] * bool(fresh)
  for name in layers:
    np.testing.assert_array_equal(flat(after)[name][..., fresh], drawn[name][..., fresh])
    assert not fresh or name.removeprefix('params/') in changes
  assert changes.startswith(f'{" and ".join(new)}, not {" and ".join(old)}: head/')
  assert ('made anew for ' in changes) == bool(set(new) - set(old))
  assert ('kept for ' in changes) == bool(set(new) & set(old))


def test_the_line_of_what_was_changed(tmp_path):
  model_file(tmp_path / 'model', small(targets=('valence',)))
  changes = start_from(tmp_path / 'model', small(length=5, targets=BOTH))[1]
  names = [
    f'fusion/recursion_{t}/{modality}/{name}'
    for t in (1, 2, 3)
    for modality in ('audio', 'visual')
    for name in ('w_c', 'w_h')
  ]
  over_time, head = changes.split('; ', 1)
  begin, end = 'windows of 5 frames, not 12: the leading block of ', ' is kept'
  assert over_time.startswith(begin) and over_time.endswith(end)
  assert sorted(over_time.removeprefix(begin).removesuffix(end).split(', ')) == names
  assert set(re.split('[ ,;:]+', head)) == {
    *('valence', 'and', 'arousal', 'not', 'kept', 'made', 'anew', 'for'),
    *('head/output/bias', 'head/output/kernel'),
  }
  assert head.startswith('valence and arousal, not valence: head/') and head.count('head/') == 4
  assert ' kept for valence; ' in head and head.endswith(' made anew for arousal')


@pytest.fixture(scope='module')
def run_of_both(tmp_path_factory):
  return made_run(tmp_path_factory.mktemp('run') / 'grjca', small())


def test_the_best_state_of_a_run(run_of_both):
  """With the same length and targets a run begins with exactly the predictions of the other one."""
  before = load_best(run_of_both)[2]
  after, changes = start_from(run_of_both, small())
  assert changes == ''
  np.testing.assert_array_equal(predict(small(), after), predict(small(), before))


def other(**changes):
  def change(metadata):
    config = json.loads(metadata['config'])
    config['data'] |= changes
    return metadata | {'config': json.dumps(config)}

  return change


@pytest.mark.parametrize(
  'change, words',
  [
    (lambda metadata: metadata | {'config': '{'}, 'its config is not valid: '),
    (lambda metadata: metadata | {'config': '[]'}, 'its config is not valid: '),
    (lambda metadata: metadata | {'config': '{"data": {}}'}, 'it lacks '),
    (other(length='12'), 'config.data.length .* is not a whole number'),
    (other(length=10**9), 'config.data.length is out of range'),
    (
      other(length=11),
      r'12 of \d+ arrays differ \(params/fusion/recursion_1/audio/w_c is \[12, 12',
    ),
    (
      lambda metadata: metadata | {'config': metadata['config'].replace('"arousal"', '"joy"')},
      'joy',
    ),
    (lambda metadata: {k: v for k, v in metadata.items() if k != 'config'}, 'arrays differ'),
    (lambda metadata: metadata | {'architecture': 'ir50'}, 'holds ir50, but config.init.model'),
  ],
)
def test_a_model_that_does_not_fit(change, words, tmp_path):
  model_file(tmp_path / 'model', small(), change)
  with pytest.raises(InputError, match=words) as refused:
    start_from(tmp_path / 'model', small(length=8))
  assert str(refused.value).startswith(str(tmp_path)) and '\n' not in str(refused.value)


def test_what_else_differs_is_refused(run_of_both, tmp_path):
  config = small(length=8, targets=('valence',))
  config.model.head.hidden *= 2
  with pytest.raises(InputError, match=r'7 of \d+ arrays differ \(batch_stats/head/norm/mean is '):
    start_from(run_of_both, config)
  with pytest.raises(InputError, match='does not exist'):
    start_from(tmp_path / 'nothing', small())
  with pytest.raises(InputError, match='config.json'):
    start_from(tmp_path, small())


@pytest.mark.slow
def test_fine_tuning(records, tmp_path):
  """A run on other records, with shorter windows and one target, begins with another run's weights.

  config.resume and config.init.model do the same. What does not fit is refused before anything is
  written.
  """
  config = tiny.get_config()
  config.data.length = 20
  first = made_run(tmp_path / 'first', config)

  def tune(name, *overrides):
    targets, epochs = "--config.targets=('valence',)", '--config.schedule.max_epochs=1'
    return call(*flags(tmp_path / name, records, targets, epochs, *overrides))

  results = {}
  for name in ('resume', 'init.model'):
    done = tune(name, f'--config.{name}={first}')
    assert done.returncode == 0, done.stderr
    log = (tmp_path / name / 'train.log').read_text()
    (warning,) = (line for line in log.splitlines() if 'windows of 12 frames, not 20' in line)
    assert 'fusion/recursion_1/audio/w_c' in warning
    assert 'valence, not valence and arousal: ' in warning and 'kept for valence' in warning
    assert 'whole model: model from first, SHA-256 ' in log
    assert (f'{first} was trained on other records' in log) == (name == 'resume')
    origin = json.loads((tmp_path / name / 'versions.json').read_text())['init']['model']
    assert origin['source'] == 'first' and origin['changes'] in warning
    results[name] = json.loads((tmp_path / name / 'results_validation.json').read_text())
  assert results['resume'] == results['init.model']
  done = tune('resume', f'--config.resume={first}')  # now its own state comes first
  assert done.returncode == 0 and 'resumed after 1 epochs' in done.stderr

  for key in ('resume', 'init.model'):
    done = tune('refused', f'--config.{key}={first}', '--config.model.fusion.recursions=2')
    assert done.returncode == 2 and one_line(done.stderr)
    assert f'{first} does not fit the model of the config' in done.stderr
  done = tune('refused', f'--config.resume={first}', '--config.init.audio=x')
  assert done.returncode == 2 and one_line(done.stderr) and 'give no config.init' in done.stderr
  assert not (tmp_path / 'refused').exists()
