"""Tests equations 1 to 20 against the float64 oracle.

Identities between the systems, padding, and the scale of features before training are tested too.
"""

import dataclasses
import importlib

import jax
import numpy as np
import oracle
import pytest

from avjax.models.fusion import FUSIONS
from avjax.models.layers import nothing_trainable

DV, DA = 6, 4
GATED = ['dca', 'grjca', 'hgrjca']
ORACLES = {'rjca': oracle.rjca, 'dca': oracle.dca, 'grjca': oracle.grjca, 'hgrjca': oracle.hgrjca}


def clips(length, frames, seed=1):
  """Returns visual (B,L,Dv), audio (B,L,Da) and mask (B,L) of clips with these numbers of frames.

  Padding is not zero.
  """
  rng = np.random.default_rng(seed)
  mask = np.arange(length) < np.array(frames)[:, None]
  return (
    rng.normal(size=(len(frames), length, DV)),
    rng.normal(size=(len(frames), length, DA)),
    mask,
  )


def build(name, length, recursions, **arguments):
  """Returns a fusion and random parameters for it."""
  model = FUSIONS[name](length, recursions=recursions, **arguments)
  return model, oracle.draw(model, *clips(length, [length]), nothing_trainable)['params']


def fuse(model, params, batch, dtype=np.float64):
  """Returns the fused features (B,L,D) and the sown gates {name: (B,L,K)}."""
  apply = lambda params, *batch: model.apply(
    {'params': params}, *batch, nothing_trainable, mutable=['gates']
  )
  fused, state = oracle.compute(apply, params, *batch, dtype=dtype)
  assert fused.dtype == dtype
  return fused, state.get('gates', {})


@pytest.mark.parametrize('dtype, tolerance', [(np.float64, 1e-10), (np.float32, 2e-5)])
@pytest.mark.parametrize('length, frames', [(5, (5, 3)), (300, (300, 131))])
@pytest.mark.parametrize(
  'name, recursions',
  [
    ('rjca', 1),
    ('rjca', 2),
    ('rjca', 3),
    ('rjca', 4),
    *((name, recursions) for name in GATED for recursions in (1, 2, 3)),
  ],
)
def test_equations(name, recursions, length, frames, dtype, tolerance):
  model, params = build(name, length, recursions)
  batch = visual, audio, _ = clips(length, frames)
  fused, gates = fuse(model, params, batch, dtype)
  for b, n in enumerate(frames):
    expected, expected_gates = ORACLES[name](params, audio[b, :n].T, visual[b, :n].T, recursions)
    np.testing.assert_allclose(fused[b, :n], expected.T, rtol=tolerance, atol=tolerance)
    assert not fused[b, n:].any()
    assert gates.keys() == expected_gates.keys()
    for key, scores in expected_gates.items():
      # Softmax of scores / 0.1 magnifies their error tenfold.
      np.testing.assert_allclose(gates[key][b, :n], scores, rtol=0, atol=10 * tolerance)
      np.testing.assert_allclose(
        gates[key][b].sum(-1), 1, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-14
      )
    # The comparison would be empty if attention did nothing or if no gate ever changed.
    attended, _ = oracle.rjca(params, audio[b, :n].T, visual[b, :n].T, recursions)
    assert np.abs(attended.T - np.hstack([audio[b, :n], visual[b, :n]])).max() > 0.1
    assert (
      not expected_gates
      or max(scores.std(axis=0).max() for scores in expected_gates.values()) > 0.1
    )


@pytest.mark.parametrize(
  'config, name, recursions',
  [
    ('jca', 'rjca', 1),
    ('rjca', 'rjca', 3),
    ('dca', 'dca', 3),
    ('grjca', 'grjca', 3),
    ('hgrjca', 'hgrjca', 3),
  ],
)
def test_configs(config, name, recursions):
  fusion = importlib.import_module(f'configs.{config}').get_config().model.fusion
  assert (fusion.name, fusion.recursions, fusion.temperature, fusion.formulation) == (
    name,
    recursions,
    0.1,
    'paper',
  )


def test_jca_is_one_recursion():
  model, params = build('rjca', 5, 1)
  visual, audio, mask = clips(5, [5, 3])
  expected = oracle.jca(params['recursion_1'], audio[0].T, visual[0].T)
  fused, _ = fuse(model, params, (visual, audio, mask))
  np.testing.assert_allclose(fused[0], np.vstack(expected).T, rtol=0, atol=1e-12)


def test_gated_systems_agree_on_one_recursion():
  grjca, params = build('grjca', 5, 1)
  dca, own = build('dca', 5, 1)
  assert jax.tree.map(np.shape, own) == jax.tree.map(np.shape, params)
  hgrjca, hierarchical = build('hgrjca', 5, 1)
  hierarchical['recursion_1'] = params['recursion_1']
  for modality in ('audio', 'visual'):
    hierarchical[f'gate_{modality}_1'] = params[f'gate_{modality}']
  batch = clips(5, [5, 3])
  expected, gates = fuse(grjca, params, batch)
  np.testing.assert_array_equal(fuse(dca, params, batch)[0], expected)
  fused, own_gates = fuse(hgrjca, hierarchical, batch)
  np.testing.assert_array_equal(fused, expected)
  np.testing.assert_array_equal(own_gates['audio_1'], gates['audio'])
  np.testing.assert_array_equal(own_gates['visual_final'], np.ones((2, 5, 1)))


def test_dca_is_grjca_with_its_inner_columns_shut():
  grjca, params = build('grjca', 5, 3)
  dca, _ = build('dca', 5, 3)
  batch = clips(5, [5, 3])
  shut, outer = dict(params), dict(params)
  for name in ('gate_audio', 'gate_visual'):
    kernel, bias = params[name]['kernel'], params[name]['bias']
    shut[name] = {'kernel': kernel, 'bias': np.where([False, True, True, False], -np.inf, bias)}
    outer[name] = {'kernel': kernel[:, [0, 3]], 'bias': bias[[0, 3]]}
  fused, gates = fuse(grjca, shut, batch)
  np.testing.assert_allclose(fused, fuse(dca, outer, batch)[0], rtol=0, atol=1e-12)
  assert not gates['audio'][..., 1:3].any()
  assert np.abs(fused - fuse(grjca, params, batch)[0]).max() > 0.1


@pytest.mark.parametrize('name', GATED)
def test_cold_gate_is_one_hot(name):
  model, params = build(name, 5, 3, temperature=1e-9)
  visual, audio, mask = clips(5, [5, 3])
  fused, gates = fuse(model, params, (visual, audio, mask))
  for scores in gates.values():
    np.testing.assert_array_equal(
      np.sort(scores, axis=-1)[0, :, ::-1], np.eye(scores.shape[-1])[[0] * 5]
    )
  if name == 'hgrjca':
    return  # its one-hot gates decide one after another; the oracle above covers them
  series = np.array(
    [oracle.rjca(params, audio[0].T, visual[0].T, m)[0][:DA].T for m in range(4)]
  )  # (M+1,L,Da)
  series = series if name == 'grjca' else series[[0, 3]]
  choice = (series[-1] @ params['gate_audio']['kernel'] + params['gate_audio']['bias']).argmax(-1)
  assert len(set(choice)) > 1
  np.testing.assert_allclose(
    fused[0, :, :DA], np.maximum(series[choice, np.arange(5)], 0), rtol=0, atol=1e-12
  )


@pytest.mark.parametrize('name', GATED)
def test_hot_gate_is_the_mean(name):
  model, params = build(name, 5, 3, temperature=1e14)
  visual, audio, mask = clips(5, [5, 3])
  x = np.array(
    [oracle.rjca(params, audio[0].T, visual[0].T, m)[0].T for m in range(4)]
  )  # (M+1,L,Da+Dv)
  expected = {
    'dca': lambda: np.maximum((x[0] + x[3]) / 2, 0),
    'grjca': lambda: np.maximum(x.mean(0), 0),
    'hgrjca': lambda: np.maximum((x[:-1] + x[1:]) / 2, 0).mean(0),
  }[name]()
  np.testing.assert_allclose(
    fuse(model, params, (visual, audio, mask))[0][0], expected, rtol=0, atol=1e-12
  )


@pytest.mark.parametrize('name', ['rjca', *GATED])
def test_without_w_h_nothing_is_attended(name):
  model, params = build(name, 5, 3)
  for t in (1, 2, 3):
    for modality in ('audio', 'visual'):
      params[f'recursion_{t}'][modality]['w_h'] = np.zeros((5, 5))
  visual, audio, mask = clips(5, [5, 3])
  expected = np.concatenate([audio, visual], axis=-1) * mask[..., None]
  expected = expected if name == 'rjca' else np.maximum(expected, 0)  # whatever the gate
  np.testing.assert_allclose(
    fuse(model, params, (visual, audio, mask))[0], expected, rtol=0, atol=1e-12
  )


@pytest.mark.parametrize(
  'name, arguments',
  [
    *((name, {'width': 5} if name == 'can' else {}) for name in sorted(FUSIONS)),
    *((name, {'formulation': 'author'}) for name in ('rjca', *GATED)),
  ],
)
def test_padding_does_not_matter(name, arguments):
  model = FUSIONS[name](5, **arguments)
  visual, audio, mask = clips(5, [4, 3])
  params = oracle.draw(model, visual, audio, mask, nothing_trainable).get('params', {})
  fused, gates = fuse(model, params, (visual, audio, mask))
  assert np.abs(fused[mask]).max() > 0.1

  other = [
    np.where(mask[..., None], x, 1e6 * y)
    for x, y in zip((visual, audio), clips(5, [4, 3], seed=2), strict=False)
  ]
  spoiled, spoiled_gates = fuse(model, params, (*other, mask))
  np.testing.assert_array_equal(spoiled, fused)  # what padding holds: bit for bit
  jax.tree.map(np.testing.assert_array_equal, spoiled_gates, gates)

  short, short_gates = fuse(
    model, params, (visual[:, :4], audio[:, :4], mask[:, :4])
  )  # how much of it there is
  np.testing.assert_allclose(short, fused[:, :4], rtol=0, atol=1e-12)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b[:, :4], rtol=0, atol=1e-11), short_gates, gates
  )


def test_concatenation():
  visual, audio, mask = clips(5, [5, 3])
  fused, _ = fuse(FUSIONS['concatenation'](5), {}, (visual, audio, mask))
  np.testing.assert_array_equal(fused, np.concatenate([visual, audio], axis=-1) * mask[..., None])


def test_feature_scale_over_the_recursions():
  """Before training, the features keep their scale over the recursions.

  With Xavier initialisation, the usual choice, they would not.
  """
  rng = np.random.default_rng(0)
  visual, audio = rng.normal(size=(1, 300, 512)), rng.normal(size=(1, 300, 128))
  batch = np.float32(visual), np.float32(audio), np.ones((1, 300), bool)
  params = jax.jit(
    lambda: FUSIONS['rjca'](300).init(jax.random.key(0), *batch, nothing_trainable)['params']
  )()

  def xavier(path, leaf):
    limit = np.sqrt(6 / (300 + 300))
    return (
      np.float32(rng.uniform(-limit, limit, (300, 300))) if path[-1].key in ('w_c', 'w_h') else leaf
    )

  def growth(
    params,
  ):  # (3,2): standard deviation of audio and visual after each recursion, over that of the input
    features = [
      fuse(FUSIONS['rjca'](300, recursions=m), params, batch, np.float32)[0][0] for m in (1, 2, 3)
    ]
    return np.array(
      [[x[:, :128].std() / audio.std(), x[:, 128:].std() / visual.std()] for x in features]
    )

  start = growth(params)
  assert (start > 0.5).all() and (start < 2).all()
  assert (growth(jax.tree_util.tree_map_with_path(xavier, params))[-1] > 10).all()


# The predecessors' systems.

PREDECESSORS = {
  'rjca': (
    {'formulation': 'author', 'recursions': 2},
    lambda w, v, a: oracle.rjca_author(w, v, a, 2),
  ),
  'rjca, joint FC': (
    {'formulation': 'author', 'recursions': 3, 'joint_fc': True},
    lambda w, v, a: oracle.rjca_author(w, v, a, 3),
  ),
  'lfan': ({'width': 6, 'heads': 2}, lambda w, v, a: oracle.lfan(w, v, a, 2)),
}


@pytest.mark.parametrize('length, frames', [(5, (5, 3)), (60, (60, 31))])
@pytest.mark.parametrize('name', PREDECESSORS)
def test_predecessors(name, length, frames):
  arguments, expected_of = PREDECESSORS[name]
  model = FUSIONS[name.split(',')[0]](length, **arguments)
  batch = visual, audio, mask = clips(length, frames)
  params = oracle.draw(model, *batch, nothing_trainable)['params']
  fused, _ = fuse(model, params, batch)
  for b, n in enumerate(frames):
    expected = expected_of(params, visual[b, :n], audio[b, :n])
    np.testing.assert_allclose(fused[b, :n], expected, rtol=0, atol=1e-10)
    assert not fused[b, n:].any()
    if name != 'lfan':  # the comparison would be empty if attention did nothing
      assert np.abs(expected - np.hstack([visual[b, :n], audio[b, :n]])).max() > 0.1
  spoiled = np.where(mask[..., None], visual, 1e3), np.where(mask[..., None], audio, -1e3), mask
  np.testing.assert_array_equal(fuse(model, params, spoiled)[0], fused)


@pytest.mark.parametrize('name', GATED)
def test_gates_over_the_authors_recursions(name):
  """Gates (eq. 9 to 20) also work on the authors' formulation, whose order is visual, audio."""
  model, (visual, audio, mask) = (
    FUSIONS[name](5, recursions=2, formulation='author'),
    clips(5, [5, 3]),
  )
  params = oracle.draw(model, visual, audio, mask, nothing_trainable)['params']
  fused, _ = fuse(model, params, (visual, audio, mask))
  for b, n in enumerate((5, 3)):
    expected, _ = ORACLES[name](
      params, audio[b, :n].T, visual[b, :n].T, 2, recursions=oracle.author_recursions
    )
    np.testing.assert_allclose(
      fused[b, :n], np.vstack([expected[DA:], expected[:DA]]).T, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(
  'name, arguments, places', [('rjca', {'formulation': 'author'}, 4), ('lfan', {}, 1)]
)
def test_dropout_of_the_predecessors(name, arguments, places):
  """Every dropout acts if and only if the fusion is trained."""
  model, batch = FUSIONS[name](5, **arguments), clips(5, [5, 3])
  params = jax.tree.map(np.float32, oracle.draw(model, *batch, nothing_trainable)['params'])
  seen = set()

  def apply(is_trainable):
    return np.asarray(
      model.apply({'params': params}, *batch, is_trainable, rngs={'dropout': jax.random.key(1)})
    )

  still = apply(nothing_trainable)
  apply(lambda path: seen.add(path) or False)
  dropouts = [
    path
    for path in seen
    if 'dropout' in path and (name == 'lfan' or path.startswith('recursion_1'))
  ]
  assert len(dropouts) == places
  for path in dropouts:
    assert np.abs(apply(lambda other, path=path: other == path) - still).max() > 1e-3, path
  np.testing.assert_array_equal(apply(lambda path: 'nothing' in path), still)


RECURSIVE = {
  'recursions': 3,
  'temperature': 0.1,
  'formulation': 'paper',
  'dropout': 0.6,
  'joint_fc': False,
}
DEFAULTS = {
  'ca_2021': {'temperature': 1.0, 'residual': True},
  'concatenation': {},
  'transformer': {
    'inputs': ('visual', 'audio'),
    'each': 0,
    'stem': (512,),
    'slope': None,
    'dropout_in': 0.0,
    'positions': 'none',
    'layers': 4,
    'heads': 4,
    'hidden': 512,
    'dropout': 0.3,
  },
  'cross_modal': {'width': 256, 'blocks': 2, 'heads': 4, 'hidden': 512, 'dropout': 0.1},
  'jca_2022': {'width': 128, 'maps': 32},
  'rjca': RECURSIVE,
  'dca': RECURSIVE,
  'grjca': RECURSIVE,
  'hgrjca': RECURSIVE,
  'lfan': {'width': 32, 'heads': 2, 'dropout': 0.1},
  'leader_follower': {'width': 32, 'from_key': False},
  'can': {'width': 128},
  'lstm': {'width': 256, 'layers': 1, 'bidirectional': False},
  'mamba': {'layers': 4, 'states': 8, 'rank': 16, 'output': False},
  'raav': {
    'width': 256,
    'heads': 4,
    'layers': 1,
    'latents': 4,
    'dropout': 0.1,
    'gate_audio': True,
    'priors': (0.85, 0.15),
  },
  'dcmmoe': {'width': 256, 'layers': 5, 'heads': 8, 'dropout': 0.1, 'audio_expert': True},
  'joint_context': {'width': 128, 'reach': 4, 'dilation': 1, 'gated': False},
  'visual': {},
  'audio': {},
}


def test_defaults_belong_to_saved_configs():
  """The config of an old run may lack a setting: with another default it would be another model."""
  own = {'length', 'parent', 'name'}
  for name, defaults in DEFAULTS.items():
    fields = [field for field in dataclasses.fields(FUSIONS[name]) if field.name not in own]
    assert {field.name: field.default for field in fields} == defaults, name
