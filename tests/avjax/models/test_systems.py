"""Tests the systems of the paper's tables that are not its own against float64 oracles.

Which systems see later frames, padding, and the sizes of the published systems are tested too.
"""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import oracle_systems as systems
import pytest
import tiny
from flax import traverse_util
from test_fusion import clips, fuse
from test_step import random_batch

from avjax.data.dataset import Records
from avjax.errors import InputError
from avjax.evaluation.series import moving_average, predict_records, smoothing_widths
from avjax.models.fusion import FUSIONS
from avjax.models.fusion.mamba import selective_scan, start_step
from avjax.models.fusion.transformer import EncoderLayer
from avjax.models.heads import GELU, Affine, Linear, Perceptron
from avjax.models.layers import nothing_trainable
from avjax.models.tcn import TCN
from avjax.runs.checkpoint import Checkpoints
from avjax.system import System, sharding, steps
from avjax.training import optimizer
from avjax.training.plan import check_ranges, make_stages
from benchmarks.systems import CONFIGS

# name: (arguments, oracle(weights, visual, audio), whether a frame sees frames after it)
SYSTEMS = {
  'transformer: Zhou': (
    {'stem': (8,), 'layers': 2, 'heads': 2, 'hidden': 10},
    lambda w, v, a: systems.transformer(w, v, a, 2, 2),
    True,
  ),
  'transformer: Meng': (
    {'stem': (12, 8), 'layers': 1, 'heads': 4, 'hidden': 8},
    lambda w, v, a: systems.transformer(w, v, a, 1, 4),
    True,
  ),
  'transformer: Zhang Ziyang': (
    {
      'each': 4,
      'stem': (),
      'positions': 'sinusoidal',
      'layers': 1,
      'heads': 2,
      'hidden': 16,
      'dropout_in': 0.5,
    },
    lambda w, v, a: systems.transformer(w, v, a, 1, 2, positions=True),
    True,
  ),
  'transformer: Zhang Wei': (
    {'stem': (10, 6), 'slope': 0.1, 'layers': 1, 'heads': 2, 'hidden': 6},
    lambda w, v, a: systems.transformer(w, v, a, 1, 2, slope=0.1),
    True,
  ),
  'transformer: CtyunAI': (
    {'inputs': ('visual',), 'stem': (8,), 'layers': 1, 'heads': 2, 'hidden': 8},
    lambda w, v, a: systems.transformer(w, v, a, 1, 2, inputs=('visual',)),
    True,
  ),
  'cross_modal': (
    {'width': 8, 'blocks': 2, 'heads': 2, 'hidden': 10},
    lambda w, v, a: systems.cross_modal(w, v, a, 2, 2),
    True,
  ),
  'mamba': (
    {'layers': 2, 'states': 3, 'rank': 2},
    lambda w, v, a: systems.mamba(w, v, a, 2, 3, 2),
    False,
  ),
  'mamba: Charon': (
    {'layers': 1, 'states': 3, 'rank': 2, 'output': True},
    lambda w, v, a: systems.mamba(w, v, a, 1, 3, 2, output=True),
    False,
  ),
  'lstm': ({'width': 5, 'layers': 2}, lambda w, v, a: systems.lstm(w, v, a, 2, False), False),
  'lstm: both ways': (
    {'width': 5, 'bidirectional': True},
    lambda w, v, a: systems.lstm(w, v, a, 1, True),
    True,
  ),
  'leader_follower': ({'width': 6}, systems.leader_follower, False),
  'leader_follower: ABAW2': (
    {'width': 6, 'from_key': True},
    lambda w, v, a: systems.leader_follower(w, v, a, from_key=True),
    False,
  ),
  'can': ({'width': 5}, systems.can, False),
  'jca_2022': ({'width': 5, 'maps': 3}, systems.jca_2022, True),
  'ca_2021': ({}, systems.ca_2021, True),
  'ca_2021: their code': (
    {'residual': False, 'temperature': 0.1},
    lambda w, v, a: systems.ca_2021(w, v, a, temperature=0.1, residual=False),
    True,
  ),
  'raav': (
    {'width': 8, 'heads': 2, 'layers': 2, 'latents': 3},
    lambda w, v, a: systems.raav(w, v, a, 2, 2, (0.85, 0.15))[0],
    True,
  ),
  'raav: no gate': (
    {'width': 8, 'heads': 4, 'latents': 2, 'gate_audio': False},
    lambda w, v, a: systems.raav(w, v, a, 4, 1, None, gate_audio=False)[0],
    True,
  ),
  'dcmmoe': (
    {'width': 8, 'heads': 2, 'layers': 2},
    lambda w, v, a: systems.dcmmoe(w, v, a, 2, 2)[0],
    True,
  ),
  'dcmmoe: their code': (
    {'width': 8, 'heads': 4, 'layers': 1, 'audio_expert': False},
    lambda w, v, a: systems.dcmmoe(w, v, a, 4, 1, audio_expert=False)[0],
    True,
  ),
  'joint_context': (
    {'width': 5, 'reach': 2, 'dilation': 2},
    lambda w, v, a: systems.joint_context(w, v, a, 2, 2)[0],
    True,
  ),
  'joint_context: gated': (
    {'width': 5, 'reach': 1, 'dilation': 3, 'gated': True},
    lambda w, v, a: systems.joint_context(w, v, a, 1, 3, gated=True)[0],
    True,
  ),
  'visual': ({}, lambda w, v, a: v, False),
  'audio': ({}, lambda w, v, a: a, False),
}


def build(name, length):
  model = FUSIONS[name.split(':')[0]](length, **SYSTEMS[name][0])
  return model, oracle.draw(model, *clips(length, [length]), nothing_trainable).get('params', {})


@pytest.mark.parametrize('length, frames', [(5, (5, 3)), (40, (40, 23))])
@pytest.mark.parametrize('name', SYSTEMS)
def test_against_its_oracle(name, length, frames):
  model, params = build(name, length)
  batch = visual, audio, _ = clips(length, frames)
  fused, _ = fuse(model, params, batch)
  for b, n in enumerate(frames):
    expected = SYSTEMS[name][1](params, visual[b, :n], audio[b, :n])
    np.testing.assert_allclose(fused[b, :n], expected, rtol=0, atol=1e-10)
    assert not fused[b, n:].any()


@pytest.mark.parametrize('name', SYSTEMS)
def test_padding_does_not_matter(name):
  model, params = build(name, 6)
  visual, audio, mask = clips(6, [6, 4])
  fused, _ = fuse(model, params, (visual, audio, mask))
  other = [
    np.where(mask[..., None], x, 1e3 * y)
    for x, y in zip((visual, audio), clips(6, [6, 4], seed=2), strict=False)
  ]
  np.testing.assert_allclose(fuse(model, params, (*other, mask))[0], fused, rtol=0, atol=1e-12)
  short, _ = fuse(model, params, (visual[1:, :4], audio[1:, :4], mask[1:, :4]))
  np.testing.assert_allclose(short, fused[1:, :4], rtol=0, atol=1e-12)
  # A batch is filled up with rows that have no frames at all.
  assert not fuse(model, params, (visual, audio, mask & False))[0].any()


@pytest.mark.parametrize('name', SYSTEMS)
def test_who_sees_the_future(name):
  """A later frame changes an earlier one exactly where the system is said to look ahead."""
  model, params = build(name, 8)
  visual, audio, mask = clips(8, [8])
  later = [x + (np.arange(8) >= 5)[None, :, None] for x in (visual, audio)]
  before = fuse(model, params, (visual, audio, mask))[0][:, :5]
  after = fuse(model, params, (*later, mask))[0][:, :5]
  moved = np.abs(after - before).max()
  assert moved > 1e-6 if SYSTEMS[name][2] else moved == 0


# name: (its gate, the gate's oracle, the same fusion without a gate)
GATES = {
  'raav': (
    'modality',
    lambda w, v, a: systems.raav(w, v, a, 2, 2, (0.85, 0.15))[1],
    'raav: no gate',
  ),
  'dcmmoe': (
    'expert',
    lambda w, v, a: systems.dcmmoe(w, v, a, 2, 2)[1],
    'dcmmoe: their code',
  ),
  'joint_context: gated': (
    'modality',
    lambda w, v, a: systems.joint_context(w, v, a, 1, 3, gated=True)[1],
    'joint_context',
  ),
}


@pytest.mark.parametrize('name', GATES)
def test_gates_over_modalities_and_experts(name):
  """They are those of the oracle, and without a second thing to weigh there are none."""
  gate, expected_of, without = GATES[name]
  model, params = build(name, 6)
  batch = visual, audio, _ = clips(6, [6, 4])
  _, gates = fuse(model, params, batch)
  assert gates.keys() == {gate}
  for b, n in enumerate((6, 4)):
    expected = expected_of(params, visual[b, :n], audio[b, :n])
    np.testing.assert_allclose(gates[gate][b, :n], expected, rtol=0, atol=1e-12)
    assert expected.std(axis=0).max() > 0.02  # the comparison would be empty if it never changed
  np.testing.assert_allclose(gates[gate].sum(-1), 1, rtol=0, atol=1e-14)
  assert not fuse(*build(without, 6), batch)[1]


def test_raav_s_priors_are_where_its_gate_starts():
  model, params = build('raav', 6)
  for name in ('gate_visual', 'gate_audio'):
    params[name] = jax.tree.map(np.zeros_like, params[name])
  _, gates = fuse(model, params, clips(6, [6, 4]))
  np.testing.assert_allclose(gates['modality'], np.full((2, 6, 2), [0.85, 0.15]), atol=1e-12)


CONTEXT = ['joint_context', 'joint_context: gated']


def convolutions(model):
  """Returns how many follow each other: that of the gate, and that of the context."""
  return 2 if model.gated else 1


@pytest.mark.parametrize('name', CONTEXT)
def test_joint_context_does_not_know_where_a_window_begins(name):
  """What is shifted in time is fused as before, but for the frames that the borders reach."""
  model, params = build(name, 30)
  visual, audio, mask = clips(30, [30])
  fused, gates = fuse(model, params, (visual, audio, mask))
  moved = [np.roll(x, 7, axis=1) for x in (visual, audio)]
  again, moved_gates = fuse(model, params, (*moved, mask))
  reach = convolutions(model) * model.reach * model.dilation
  np.testing.assert_allclose(
    again[:, 7 + reach : 30 - reach], fused[:, reach : 23 - reach], rtol=0, atol=1e-12
  )
  for gate, scores in gates.items():
    np.testing.assert_allclose(
      moved_gates[gate][:, 7 + reach : 30 - reach], scores[:, reach : 23 - reach], atol=1e-12
    )
  # A shorter window takes the same weights.
  short, _ = fuse(model, params, (visual[:, :20], audio[:, :20], mask[:, :20]))
  np.testing.assert_allclose(short[:, : 20 - reach], fused[:, : 20 - reach], rtol=0, atol=1e-12)


@pytest.mark.parametrize('modality', [0, 1])
@pytest.mark.parametrize('name', CONTEXT)
def test_joint_context_sees_as_far_as_its_reach(name, modality):
  """A frame has an influence up to `reach` times `dilation` frames away, on each `dilation`-th."""
  model, params = build(name, 30)
  batch = clips(30, [30])
  before = fuse(model, params, batch)[0]
  batch[modality][:, 15] += 10
  changed = np.abs(fuse(model, params, batch)[0] - before)[0].max(axis=-1) > 0
  reach = convolutions(model) * model.reach
  seen = 15 + model.dilation * np.arange(-reach, reach + 1)
  assert set(np.flatnonzero(changed)) <= {*seen} and changed[[seen[0], 15, seen[-1]]].all()


def test_joint_context_s_equal_shares_change_nothing():
  model, params = build('joint_context: gated', 6)
  batch = clips(6, [6, 4])
  params['gate'] = jax.tree.map(np.zeros_like, params['gate'])
  fused, gates = fuse(model, params, batch)
  assert (gates['modality'] == 0.5).all()
  params = {'context': params['context']}
  np.testing.assert_array_equal(fuse(model.clone(gated=False), params, batch)[0], fused)


@pytest.mark.parametrize(
  'name, places',
  [
    # Of the fusion itself: the dropouts of the gate, and that of attention, which is not a module.
    ('raav', {'', 'gate_visual_dropout', 'gate_audio_dropout'}),
    ('dcmmoe', {'visual_dropout', 'audio_dropout'}),
  ],
)
def test_every_dropout_of_team_ras(name, places):
  """Each acts if and only if it is trained; where they stand is compared with PyTorch."""
  model, batch = FUSIONS[name](5, width=8, heads=2, layers=1, dropout=0.5), clips(5, [5, 3])
  batch = *map(np.float32, batch[:2]), batch[2]
  variables = model.init(jax.random.key(0), *batch, nothing_trainable)
  variables, seen = {'params': variables['params']}, set()

  def apply(is_trainable):
    rngs = {'dropout': jax.random.key(1)}
    return np.asarray(model.apply(variables, *batch, is_trainable, rngs=rngs))

  still = apply(nothing_trainable)
  apply(lambda path: seen.add(path) or False)
  layers = ('layer0',) if name == 'raav' else ('visual_layer0', 'audio_layer0')
  parts = ('dropout1', 'dropout2', 'dropout3') + ('dropout_positions',) * (name == 'dcmmoe')
  inner = {f'{layer}/{part}' for layer in layers for part in parts}
  assert seen == places | {*layers} | inner
  for path in seen:
    assert np.abs(apply(lambda other, path=path: other == path) - still).max() > 1e-3, path


def test_without_positions_the_encoder_does_not_know_the_order():
  model, params = build('transformer: Zhou', 6)
  visual, audio, mask = clips(6, [6])
  order = np.array([3, 0, 5, 1, 4, 2])
  fused = fuse(model, params, (visual, audio, mask))[0]
  np.testing.assert_allclose(
    fuse(model, params, (visual[:, order], audio[:, order], mask))[0],
    fused[:, order],
    rtol=0,
    atol=1e-12,
  )
  model, params = build('transformer: Zhang Ziyang', 6)
  fused = fuse(model, params, (visual, audio, mask))[0]
  assert (
    np.abs(
      fuse(model, params, (visual[:, order], audio[:, order], mask))[0] - fused[:, order]
    ).max()
    > 1e-3
  )


def test_the_scan_is_the_recurrence_over_a_whole_window():
  rng = np.random.default_rng(0)
  decay, drive = (
    np.float32(rng.uniform(0.2, 1, (2, 300, 16, 8))),
    np.float32(rng.normal(size=(2, 300, 16, 8))),
  )
  read = np.float32(rng.normal(size=(2, 300, 8)))
  h, rows = np.zeros((2, 16, 8)), []
  for t in range(300):
    h = decay[:, t] * h + drive[:, t]
    rows.append(np.einsum('bdn,bn->bd', h, read[:, t]))
  expected = np.stack(rows, axis=1)
  np.testing.assert_allclose(
    np.asarray(jax.jit(selective_scan)(decay, drive, read)), expected, rtol=0, atol=1e-5
  )


def test_mamba_s_standard_initialisation():
  params = FUSIONS['mamba'](5).init(
    jax.random.key(0),
    *map(jnp.float32, clips(5, [5])[:2]),
    jnp.ones((1, 5), bool),
    nothing_trainable,
  )['params']
  np.testing.assert_allclose(
    np.exp(params['layer0']['a_log']), np.tile(np.arange(1, 9), (6, 1)), rtol=1e-6
  )
  assert (params['layer0']['skip'] == 1).all()
  steps = np.log1p(np.exp(np.asarray(params['layer0']['step']['bias'])))
  assert steps.min() >= 0.99e-3 and steps.max() <= 0.101
  weight = np.asarray(params['layer0']['step']['kernel'])  # from 16 numbers
  assert np.abs(weight).max() <= 0.25 and weight.std() == pytest.approx(0.25 / 3**0.5, abs=0.03)
  steps = np.log1p(np.exp(np.asarray(start_step(jax.random.key(1), (10_000,)))))
  assert steps.min() >= 0.99e-3 and steps.max() <= 0.101
  assert np.quantile(np.log10(steps), [0.25, 0.5, 0.75]) == pytest.approx(
    [-2.5, -2, -1.5], abs=0.05
  )


# What stands before and after the fusion.


@pytest.mark.parametrize('arguments', [{'activation': 'prelu'}, {'kernels': (3, 5, 7)}])
def test_tcn_of_the_other_systems(arguments):
  """It has PReLU with one slope for all channels, or convolutions that average three kernels."""
  model, x = TCN((5, 4), **arguments), np.random.default_rng(0).normal(size=(2, 30, 3))
  w = oracle.draw(model, x, nothing_trainable)['params']
  actual = oracle.compute(
    jax.jit(lambda w, x: model.apply({'params': w}, x, nothing_trainable)), w, x
  )

  def convolve(x, i, j):
    if 'kernels' in arguments:
      return np.mean(
        [oracle.causal_conv(x, w[f'level{i}_conv{j}_kernel{k}'], 2**i) for k in (3, 5, 7)], axis=0
      )
    return oracle.causal_conv(x, w[f'level{i}_conv{j}'], 2**i)

  def activate(x, i, j):
    slope = w[f'level{i}_prelu{j}']['slope'] if 'activation' in arguments else 0.01
    return np.where(x > 0, x, slope * x)

  for b in range(2):
    y = x[b]
    for i in range(2):
      residual = oracle.dense(y, w[f'level{i}_residual'])
      y = activate(
        activate(convolve(activate(convolve(y, i, 0), i, 0), i, 1), i, 1) + residual, i, 2
      )
    np.testing.assert_allclose(actual[b], y, rtol=0, atol=1e-12)


def test_heads_of_the_other_systems():
  rng = np.random.default_rng(0)
  x, mask = rng.normal(size=(1, 6, 8)), np.ones((1, 6), bool)

  def apply(model):
    variables = oracle.draw(model, x, mask, nothing_trainable)
    return oracle.compute(lambda v, x: model.apply(v, x, mask, nothing_trainable), variables, x)[
      0
    ], variables

  found, v = apply(Affine(2))
  w, s = v['params'], v['batch_stats']
  assert w['hidden0']['kernel'].shape == (8, 4)
  expected = [
    oracle.dense(
      oracle.norm(oracle.dense(x[0], w[f'hidden{i}']), w[f'norm{i}'], s[f'norm{i}']),
      w[f'output{i}'],
    )
    for i in (0, 1)
  ]
  np.testing.assert_allclose(found, np.hstack(expected), rtol=0, atol=1e-12)
  np.testing.assert_allclose(apply(Affine(2, tanh=True))[0], np.tanh(found), rtol=0, atol=1e-12)
  found, v = apply(Affine(2, shared=True))  # CtyunAI: 8 -> 4, norm, 4 -> 2
  w, s = v['params'], v['batch_stats']
  assert w['hidden0']['kernel'].shape == (8, 4) and w['output0']['kernel'].shape == (4, 2)
  assert w.keys() == {'hidden0', 'norm0', 'output0'}
  normed = oracle.norm(oracle.dense(x[0], w['hidden0']), w['norm0'], s['norm0'])
  np.testing.assert_allclose(found, oracle.dense(normed, w['output0']), rtol=0, atol=1e-12)
  found, v = apply(Perceptron(1, 5))
  w = v['params']
  np.testing.assert_allclose(
    found,
    np.tanh(oracle.dense(oracle.relu(oracle.dense(x[0], w['hidden'])), w['output'])),
    rtol=0,
    atol=1e-12,
  )
  found, v = apply(Perceptron(1, 5, tanh=False, relu=False))
  np.testing.assert_allclose(
    found,
    oracle.dense(oracle.dense(x[0], v['params']['hidden']), v['params']['output']),
    rtol=0,
    atol=1e-12,
  )
  found, v = apply(GELU(2, 5))
  w = v['params']
  y = oracle.dense(systems.layer_norm(x[0], w['norm']), w['hidden'])
  np.testing.assert_allclose(found, oracle.dense(systems.gelu(y), w['output']), rtol=0, atol=1e-12)
  found, v = apply(GELU(2, 5, norm='hidden'))
  w = v['params']
  y = systems.layer_norm(oracle.dense(x[0], w['hidden']), w['norm'])
  np.testing.assert_allclose(found, oracle.dense(systems.gelu(y), w['output']), rtol=0, atol=1e-12)
  found, v = apply(Linear(2, tanh=False))
  np.testing.assert_allclose(found, oracle.dense(x[0], v['params']['output']), rtol=0, atol=1e-12)


def test_moving_average_over_predictions():
  """It goes by frame id: frames beyond a gap are not averaged in.

  Frames without a face are filled as in HSEmotion's notebook, which goes from face to face.
  """
  rng = np.random.default_rng(0)
  x, frames, counted = (
    rng.normal(size=(30, 2)),
    np.array([*range(1, 11), *range(14, 29), *range(100, 105)]),
    rng.random(30) < 0.8,
  )
  counted[[0, 4, 5, 6, -1]] = False
  filled, faces = x.copy(), np.flatnonzero(counted)
  for i in np.flatnonzero(~counted):
    before, after = faces[faces < i][-1:], faces[faces > i][:1]
    if len(before) and len(after):
      p, q = before[0], after[0]
      share = (frames[i] - frames[p]) / (frames[q] - frames[p])
      filled[i] = (1 - share) * x[p] + share * x[q]
    else:
      filled[i] = x[(*before, *after)[0]]
  for width, back, ahead in ((7, 3, 3), (20, 10, 9), (2, 1, 0)):
    expected = [filled[(frames >= k - back) & (frames <= k + ahead)].mean(axis=0) for k in frames]
    found = moving_average(x, frames, counted, width)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
  # Nothing of what the model says of a black picture is left.
  other = np.where(counted[:, None], x, 99.0)
  np.testing.assert_array_equal(moving_average(other, frames, counted, 20).max() < 9, True)
  assert moving_average(x, frames, counted, 1) is x
  np.testing.assert_array_equal(moving_average(x, frames, np.zeros(30, bool), 7), x)


def test_the_frames_of_the_moving_average():
  both = ('valence', 'arousal')
  assert smoothing_widths(3, both) == [3, 3]
  assert smoothing_widths((1, 5), both) == smoothing_widths([1, 5], both) == [1, 5]
  assert smoothing_widths((4,), ('arousal',)) == [4]
  number = 'is out of range: it takes a number of frames, 1 to 1000000'
  for wrong in (0, 2.0, True, (3,), (1, 0), (1, 2, 3), 'no'):
    with pytest.raises(InputError) as refused:
      smoothing_widths(wrong, both)
    each = ', or 2 of them, for valence and arousal'
    assert str(refused.value) == f'config.smooth {wrong!r} {number}{each}'
  with pytest.raises(InputError) as refused:
    smoothing_widths(0, ('arousal',))
  assert str(refused.value) == f'config.smooth 0 {number}'


def test_predictions_are_smoothed_as_the_config_says(records):
  """Evaluation with `smooth` gives the moving average of the unsmoothed predictions.

  This is how HSEmotion evaluates; frames whose face is missing lie on straight lines.
  """
  config = tiny.get_config()
  config.model.audio.tower, config.model.fusion = 'none', {'name': 'visual'}
  data, mesh, system = (
    Records(records, config.data),
    sharding.make_mesh(),
    System.from_config(config),
  )
  vars(system)['encode_step'] = lambda variables, batch: (
    batch['faces'].mean(axis=(2, 3)) / 255,
    None,
  )
  vars(system)['decode_step'] = lambda variables, visual, audio, mask: {
    'prediction': visual,
    'gates': {},
  }
  found = {}
  for config.smooth in (1, 5, (1, 5)):
    found[config.smooth] = predict_records(
      data.batches(['chunk2'], 4), system, {}, mesh, batch_size=4, smooth=config.smooth
    )['102']
  plain = found[1]
  assert (
    not plain.face_present.all() and len(plain.frames) < plain.frames[-1]
  )  # it has missing faces, and gaps
  faces = plain.frames[plain.face_present]
  lines = np.stack(
    [np.interp(plain.frames, faces, x) for x in plain.prediction[plain.face_present].T], axis=1
  )
  for i, k in enumerate(plain.frames):
    near = abs(plain.frames - k) <= 2
    expected = lines[near].mean(axis=0)
    np.testing.assert_allclose(found[5].prediction[i], expected, rtol=0, atol=1e-6)
  # Each target has its own number of frames.
  for column, width in enumerate((1, 5)):
    np.testing.assert_array_equal(
      found[1, 5].prediction[:, column], found[width].prediction[:, column]
    )
  assert np.abs(found[1, 5].prediction - found[5].prediction).max() > 1e-3


def test_attention_drops_each_clip_on_its_own():
  model, (visual, audio, _) = (
    FUSIONS['transformer'](6, stem=(8,), layers=1, heads=2, hidden=8, dropout=0.5),
    clips(6, [6]),
  )
  same = [np.float32(np.concatenate([x, x])) for x in (visual, audio)]
  variables = model.init(jax.random.key(0), *same, np.ones((2, 6), bool), nothing_trainable)
  # The dropouts of the layer itself are left out, so that what differs comes from attention.
  only_attention = lambda path: 'dropout' not in path
  out = model.apply(
    variables, *same, np.ones((2, 6), bool), only_attention, rngs={'dropout': jax.random.key(1)}
  )
  assert np.abs(out[0] - out[1]).max() > 1e-3
  out = model.apply(variables, *same, np.ones((2, 6), bool), nothing_trainable)
  np.testing.assert_allclose(out[0], out[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize('name, where', [('dropout1', 0), ('dropout2', 1), ('dropout3', 2)])
def test_each_dropout_of_the_encoder_layer(name, where):
  """It drops a share `dropout` of what it stands behind, and scales up the rest.

  They stand behind attention, the ReLU and the second dense layer. That the layer continues as
  PyTorch's does is compared in tests/avjax/weights/test_published.py.
  """
  layer, x, mask = EncoderLayer(2, 40, dropout=0.25), clips(50, [50])[0], np.ones((1, 50), bool)
  w = oracle.draw(layer, x, mask, nothing_trainable)['params']
  attended = systems.attention(w['attention'], x[0], x[0], 2)
  hidden = oracle.relu(oracle.dense(systems.layer_norm(x[0] + attended, w['norm1']), w['dense1']))
  before = (attended, hidden, oracle.dense(hidden, w['dense2']))[where]
  _, state = layer.apply(
    {'params': jax.tree.map(jnp.float32, w)},
    jnp.float32(x),
    mask,
    lambda path: path == name,
    rngs={'dropout': jax.random.key(3)},
    capture_intermediates=True,
    mutable=['intermediates'],
  )
  after = np.asarray(state['intermediates'][name]['__call__'][0])[0]
  kept = after != 0
  assert kept[before != 0].mean() == pytest.approx(0.75, abs=0.06)
  np.testing.assert_allclose(after[kept], before[kept] / 0.75, rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', ['charon', 'ctyunai', 'leader_follower'])
def test_models_of_version_0_2_0(name):
  """Configs saved before `output`, `shared` and `from_key` describe the same model as then."""
  config = importlib.import_module(f'configs.{name}').get_config('mini')
  now = {*traverse_util.flatten_dict(System.from_config(config).shapes['params'], sep='/')}
  for part, key in (('fusion', 'output'), ('head', 'shared'), ('fusion', 'from_key')):
    if key in config.model[part]:
      del config.model[part][key]
  old = {*traverse_util.flatten_dict(System.from_config(config).shapes['params'], sep='/')}
  added = {'fusion/output/kernel', 'fusion/output/bias'} if name == 'charon' else set()
  separate = ('head/hidden1/kernel', 'head/hidden1/bias', 'head/norm1/scale', 'head/norm1/bias')
  separate = {*separate, 'head/output1/kernel', 'head/output1/bias'}
  assert now - old == added and old - now == (separate if name == 'ctyunai' else set())


def test_charon_s_last_layer_has_the_size_of_theirs():
  config = importlib.import_module('configs.charon').get_config()
  output = System.from_config(config).shapes['params']['fusion']['output']
  assert sum(x.size for x in output.values()) == 65_792


# What distinguishes the published systems in numbers, from their papers and code.
FACTS = {
  'rjca_author': {'fusion': {'recursions': 2, 'dropout': 0.6, 'joint_fc': False}},
  'jca': {'fusion': {'name': 'rjca', 'recursions': 1}},
  'jca_2022': {
    'fusion': {'width': 128, 'maps': 32},
    'head': {'relu': False, 'dropout': 0.6, 'tanh': False},
  },
  'leader_follower': {
    'temporal': {'visual': (128,) * 4, 'audio': (32,) * 4, 'norm': False},
    'fusion': {'width': 32},
    'head': {'tanh': False},
  },
  'lfan': {
    'temporal': {'visual': (256, 256, 128, 128), 'audio': (64, 64, 32, 32), 'norm': True},
    'fusion': {'width': 32, 'heads': 2, 'dropout': 0.1},
  },
  'can': {
    'temporal': {
      'visual': (256, 256, 128, 128, 128),
      'audio': (128, 128, 64, 64, 64),
      'dropout': 0.2,
    }
  },
  'zhou': {
    'temporal': {'visual': (512, 256, 128), 'dropout': 0.3, 'activation': 'prelu'},
    'fusion': {
      'stem': (512,),
      'layers': 8,
      'heads': 4,
      'hidden': 512,
      'dropout': 0.3,
      'positions': 'none',
    },
    'optimizer': {'decay': 'decoupled', 'weight_decay': 1e-5},
  },
  'zhang_ziyang': {
    'temporal': {'visual': ()},
    'head': {'tanh': True},
    'fusion': {
      'each': 512,
      'positions': 'sinusoidal',
      'layers': 4,
      'heads': 4,
      'hidden': 2048,
      'dropout': 0.2,
      'dropout_in': 0.5,
    },
  },
  'zhang_wei': {
    'temporal': {'visual': ()},
    'audio': {'tower': 'none'},
    'optimizer': {'decay': 'decoupled'},
    'fusion': {
      'stem': (256, 128),
      'slope': 0.1,
      'layers': 4,
      'heads': 4,
      'hidden': 128,
      'dropout': 0.3,
    },
  },
  'meng': {
    'temporal': {'visual': ()},
    'fusion': {'stem': (1024, 512), 'layers': 4, 'heads': 4, 'hidden': 512, 'dropout': 0.3},
  },
  'ustc': {
    'temporal': {'visual': (256,) * 4, 'audio': (128,) * 4, 'kernels': (3, 5, 7)},
    'fusion': {'width': 256, 'blocks': 2, 'heads': 4, 'hidden': 512, 'dropout': 0.1},
  },
  'ca_2021': {
    'fusion': {'temperature': 1.0, 'residual': True},
    'temporal': {'visual': (512,) * 4, 'audio': (128,) * 4},
  },
  'ctyunai': {
    'temporal': {'visual': (512, 256, 128), 'activation': 'prelu', 'dropout': 0.0},
    'audio': {'tower': 'none'},
    'fusion': {'stem': (512,), 'layers': 8, 'heads': 4, 'hidden': 512, 'dropout': 0.0},
    'head': {'name': 'affine', 'shared': True},
  },
  'hsemotion': {
    'config': {'smooth': 101},
    'temporal': {'visual': ()},
    'head': {'hidden': 128},
    'audio': {'tower': 'none'},
  },
  'aiwell': {'temporal': {'visual': ()}, 'fusion': {'width': 256}, 'audio': {'tower': 'none'}},
  'charon': {
    'temporal': {
      'visual': (512, 512, 256),
      'kernel': 15,
      'dropout': 0.2,
      'activation': 'prelu',
      'norm': False,
    },
    'fusion': {'layers': 4, 'states': 8, 'rank': 16, 'output': True},
    'head': {'hidden': 128, 'tanh': False},
    'optimizer': {
      'decay': 'decoupled',
      'weight_decay': 0.001,
      'clip': 1.0,
      'epsilon': 1e-7,
    },
    'audio': {'tower': 'none'},
  },
  'raav': {
    'fusion': {
      'width': 256,
      'heads': 4,
      'layers': 1,
      'latents': 4,
      'dropout': 0.1,
      'gate_audio': True,
      'priors': (0.85, 0.15),
    },
    'head': {'name': 'gelu', 'hidden': 256, 'dropout': 0.1, 'norm': 'input'},
    'optimizer': {'decay': 'decoupled', 'weight_decay': 0.01, 'clip': 1.0},
  },
  'dcmmoe': {
    'fusion': {'width': 256, 'heads': 8, 'layers': 5, 'dropout': 0.1, 'audio_expert': True},
    'head': {'name': 'gelu', 'hidden': 256, 'dropout': 0.1, 'norm': 'hidden'},
    'optimizer': {'decay': 'decoupled', 'weight_decay': 0.01, 'clip': 0.0},
  },
  'baseline': {
    'visual': {'tower': 'resnet50'},
    'temporal': {'visual': ()},
    'head': {'name': 'linear', 'tanh': False},
  },
}


@pytest.mark.parametrize('name', FACTS)
def test_the_sizes_of_a_published_system(name):
  config = importlib.import_module(f'configs.{name}').get_config()
  for section, facts in FACTS[name].items():
    part = {'config': config, 'optimizer': config.optimizer}.get(section) or config.model[section]
    assert {key: part[key] for key in facts} == facts, section
  batchwise = ('zhou', 'zhang_ziyang', 'zhang_wei', 'meng', 'ctyunai', 'hsemotion', 'charon')
  batchwise = (*batchwise, 'raav')
  assert config.loss.scope == ('batch' if name in batchwise else 'sequence')


def test_every_fusion_has_an_oracle():
  assert FUSIONS.keys() == {name.split(':')[0] for name in SYSTEMS} | {
    'rjca',
    'dca',
    'grjca',
    'hgrjca',
    'lfan',
    'concatenation',
  }  # test_fusion


@pytest.mark.parametrize('epsilon', [1e-8, 0.1])
def test_decoupled_decay_and_clipping(epsilon):
  """Two steps of AdamW on clipped gradients, written out in float64."""
  rng = np.random.default_rng(0)
  p = rng.normal(size=5)
  settings = {'weight_decay': 0.1, 'decay': 'decoupled', 'clip': 0.5}
  settings |= {} if epsilon == 1e-8 else {'epsilon': epsilon}
  tx = optimizer.make_optimizer(lambda path: True, settings)
  device = {'p': jnp.float32(p)}
  state, m, v = tx.init(device), np.zeros(5), np.zeros(5)
  for t in (1, 2):
    g = rng.normal(size=5)
    updates, state = tx.update({'p': jnp.float32(g)}, state, device)
    device = steps.apply_updates(device, updates, np.float32(0.01))
    g = g * min(1, 0.5 / np.linalg.norm(g))
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    p = p - 0.01 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon) + 0.1 * p)
  np.testing.assert_allclose(device['p'], p, rtol=1e-5)


@pytest.mark.parametrize('name', sorted(CONFIGS))
def test_every_config_takes_two_steps_and_is_restored(name, full, tmp_path):
  """In its smallest size every config trains for two steps, the second also from a checkpoint.

  The loss is finite, every parameter of the first group changes, and the second step is the same
  from a checkpoint of the first. In the long form predictions do not depend on padding either.

  In the short form features stand in for the towers, which take most of the time and are the same
  for all but the two configs that keep theirs; `make zoo` runs all with their towers.
  """
  config = importlib.import_module(f'configs.{name}').get_config('mini')
  config.data.update({'length': 6, 'stride': 4, 'face': 12, 'features': {'face': 4, 'voice': 4}})
  for modality, stand_in in (('visual', 'features/face'), ('audio', 'features/voice')):
    if not full and name not in ('audio', 'baseline') and config.model[modality].tower != 'none':
      config.model[modality].tower = stand_in
  config.crop, config.augment = 8, False
  for tower in ('ir50', 'resnet50'):
    config.model.visual[tower].update({'widths': (4, 4, 4, 4), 'features': 4})
  config.model.audio.update({'widths': (1, 1, 1, 1, 1, 1), 'hidden': 8, 'features': 4})
  check_ranges(config)
  system = System.from_config(config)
  variables = system.init(0)
  is_trainable = make_stages(config, steps.parameter_paths(variables['params']))[0]
  tx = optimizer.make_optimizer(is_trainable, config.optimizer)
  rng = np.random.default_rng(1)
  features = {
    f'features/{part}': rng.normal(size=(3, 6, 4)).astype(np.float32) for part in ('face', 'voice')
  }
  batch = {**random_batch(config), **features}
  batch = {name: batch[name] for name in (*system.inputs.fields, 'labels', 'annotated')}
  batch['real'][1, 4:] = batch['annotated'][1, 4:] = False
  state = steps.make_state(jax.tree.map(jnp.copy, variables), tx)
  train_step = system.make_train_step(is_trainable, tx)
  state, metrics = train_step(state, batch, jax.random.key(1), np.float32(1e-2))
  assert np.isfinite(metrics['loss']) and metrics['gradient_norm'] > 0
  before = traverse_util.flatten_dict(variables['params'], sep='/')
  for path, value in traverse_util.flatten_dict(state.params, sep='/').items():
    assert np.isfinite(value).all() and is_trainable(path) != np.array_equal(value, before[path]), (
      path
    )

  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(checkpoints.last, 1, state, {'schedule': {'best_epoch': -1}})
  shapes = jax.eval_shape(lambda: state)
  after, _ = train_step(state, batch, jax.random.key(2), np.float32(1e-2))
  restored, meta, *_ = checkpoints.restore_last(lambda meta: shapes, lambda meta: shapes.variables)
  checkpoints.close()
  again, _ = train_step(
    jax.tree.map(jnp.asarray, restored), batch, jax.random.key(2), np.float32(1e-2)
  )
  jax.tree.map(np.testing.assert_array_equal, after, again)
  assert meta['schedule'] == {'best_epoch': -1}

  if not full:  # padding has a test of its own for every fusion
    return
  predict = jax.jit(system.predict)
  found = np.asarray(predict(after.variables, batch)['prediction'])
  assert found.shape == (3, 6, 2) and np.abs(found).max() <= 1
  for field in {'faces', 'starts', *features} & batch.keys():
    batch[field] = batch[field].copy()
    batch[field][1, 4:] = 0
  np.testing.assert_allclose(
    np.asarray(predict(after.variables, batch)['prediction'])[1, :4],
    found[1, :4],
    rtol=0,
    atol=1e-6,
  )
