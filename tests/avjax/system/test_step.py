"""Tests the train step: frozen parameters cost nothing and do not change.

Adam's coupled L2, augmentation and the log-mel windows are tested too.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from avjax.system import System, inputs, steps
from avjax.training import optimizer
from avjax.training.plan import make_stages
from avjax.training.unfreezing import TrainableMask
from configs import audio, baseline, grjca, visual


def abstract_batch(config, clips, rows=400):
  length, face = config.data.length, config.data.face
  shapes = {
    'faces': ((clips, length, face, face, 3), jnp.uint8),
    'log_mel': ((clips, rows, 64), jnp.float16),
    'starts': ((clips, length), jnp.int32),
    'real': ((clips, length), jnp.bool_),
    'labels': ((clips, length, len(config.targets)), jnp.float32),
    'annotated': ((clips, length), jnp.bool_),
  }
  return {name: jax.ShapeDtypeStruct(*shape) for name, shape in shapes.items()}


def stage_flops(config, clips=1):
  """Counts the FLOPs of the lowered train step of each stage. Nothing is run: only shapes go in."""
  system = System.from_config(config)
  variables = system.shapes
  key = jax.eval_shape(lambda: jax.random.key(0))
  flops = []
  for is_trainable in make_stages(config, steps.parameter_paths(variables['params'])):
    tx = optimizer.make_optimizer(is_trainable, {'weight_decay': 1e-3})
    state = jax.eval_shape(lambda v, tx=tx: steps.make_state(v, tx), variables)
    train_step = system.make_train_step(is_trainable, tx)
    lowered = train_step.lower(
      state, abstract_batch(config, clips), key, jax.ShapeDtypeStruct((), jnp.float32)
    )
    flops.append(lowered.cost_analysis()['flops'])
  return flops


@pytest.mark.slow
def test_frozen_trunk_costs_no_backward():
  """What a stage adds to the step is the backward pass of the layers that it unfreezes.

  This is counted by hand for the paper's config.

  A layer of m multiply-adds costs 2 m forward, 2 m for the gradient of its weights where they are
  trained and 2 m for the gradient of its input where something trained lies before it.
  """
  frames = 300
  one, two, three = stage_flops(grjca.get_config())

  def conv(
    inputs, outputs, taps
  ):  # taps: products a row, less those that fall on the padding; the same a column
    return inputs * outputs * taps**2

  same5, same10, halved = (
    3 * 5 - 2,
    3 * 10 - 2,
    3 * 5 - 1,
  )  # 3x3 at 5x5, at 10x10, and from 10x10 to 5x5
  # IR-50's stage 4: 256 -> 512 at half the size, then two units at 5x5. Every norm in it is
  # trained, so all its 3x3 convolutions pass a gradient on; the shortcut's 1x1 passes none to the
  # frozen stage 3.
  stage4 = conv(256, 512, same10) + conv(512, 512, halved) + 4 * conv(512, 512, same5)
  shortcut = conv(256, 512, 5)
  # VGGish: stage 1 trains fc2 alone, which needs no gradient of its input.
  second = 2 * (2 * stage4 + shortcut) + 2 * (4096 * 4096 + 4096 * 128)
  third = 2 * (2 * 6 * conv(256, 256, same10) + shortcut) + 2 * (12288 * 4096 + 4096 * 4096)
  assert two - one == pytest.approx(frames * second, rel=0.02)
  assert three - two == pytest.approx(frames * third, rel=0.02)
  # And the whole forward pass, which dominates stage 1, is no more than a third of a fully trained
  # step would be.
  config = grjca.get_config()
  config.unfreezing.vggish.group3 = ('audio/fc1_1/', 'audio/conv')
  config.unfreezing.vggish.frozen = ()
  config.unfreezing.ir50.group3 = ('visual/input/', 'visual/stage[123]/')
  config.unfreezing.ir50.frozen = ()
  everything = stage_flops(config)[2]
  assert one < 0.36 * everything


def small_config():
  config = grjca.get_config('mini')
  config.data.update({'length': 6, 'stride': 4, 'face': 12})
  config.crop = 8
  for tower in ('ir50', 'resnet50'):
    config.model.visual[tower].update({'widths': (4, 4, 4, 4), 'features': 8})
  config.model.audio.update({'widths': (2, 2, 2, 2, 2, 2), 'hidden': 32, 'features': 8})
  config.model.temporal.update({'visual': (8,), 'audio': (4,)})
  return config


def random_batch(config, clips=3, rows=120):
  rng = np.random.default_rng(0)
  length, face = config.data.length, config.data.face
  return {
    'faces': rng.integers(0, 256, (clips, length, face, face, 3), np.uint8),
    'log_mel': rng.normal(size=(clips, rows, 64)).astype(np.float16),
    'starts': rng.integers(0, rows - 95, (clips, length), np.int32),
    'real': np.ones((clips, length), bool),
    'labels': rng.uniform(-1, 1, (clips, length, 2)).astype(np.float32)[..., : len(config.targets)],
    'annotated': np.ones((clips, length), bool),
  }


@pytest.mark.slow
def test_each_stage_moves_its_groups_and_nothing_else():
  config = small_config()
  system = System.from_config(config)
  variables = system.init(0)
  batch = random_batch(config)
  for is_trainable in make_stages(config, steps.parameter_paths(variables['params'])):
    tx = optimizer.make_optimizer(is_trainable, {'weight_decay': 1e-3})
    state = steps.make_state(jax.tree.map(jnp.copy, variables), tx)
    after, metrics = system.make_train_step(is_trainable, tx)(
      state, batch, jax.random.key(1), np.float32(1e-2)
    )
    assert np.isfinite(metrics['loss']) and metrics['gradient_norm'] > 0
    # The memory of the old state is that of the new one.
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    for collection in ('params', 'batch_stats'):
      old = traverse_util.flatten_dict(variables[collection], sep='/')
      new = traverse_util.flatten_dict(after.variables[collection], sep='/')
      for path in old:
        changed = not np.array_equal(old[path], new[path])
        assert changed == is_trainable(path), (path, is_trainable.patterns)


def flops_by_hand(padding):
  """Counts the FLOP of a frame in IR-50 and VGGish: twice the products of their layers.

  padding: the products with the zeros around a map that are counted; 1 is all, 0 none.
  """

  def conv(inputs, outputs, height, width):  # 3x3; the first and the last row have a tap less
    rows, columns = (3 * side - 2 * (1 - padding) for side in (height, width))
    return inputs * outputs * rows * columns

  # At 40x40. In the first unit of a later stage the second convolution halves the side, and only
  # the first row has a tap less; the shortcut has a 1x1.
  sides, widths, units = (40, 20, 10, 5), (64, 128, 256, 512), (3, 4, 14, 3)
  ir50, before, side_before = conv(3, 64, 40, 40), 64, 40
  for side, width, count in zip(sides, widths, units, strict=True):
    ir50 += conv(before, width, side_before, side_before)
    if side == side_before:
      ir50 += conv(width, width, side, side)
    else:
      ir50 += width**2 * (3 * side - (1 - padding)) ** 2 + before * width * side**2
    ir50 += (2 * count - 2) * conv(width, width, side, side)
    before, side_before = width, side
  ir50 += 512 * 25 * 512
  vggish = conv(1, 64, 96, 64) + conv(64, 128, 48, 32)
  vggish += conv(128, 256, 24, 16) + conv(256, 256, 24, 16)
  vggish += conv(256, 512, 12, 8) + conv(512, 512, 12, 8)
  vggish += 12288 * 4096 + 4096 * 4096 + 4096 * 128
  return 2 * ir50, 2 * vggish


def test_the_towers_do_the_work_that_is_counted_by_hand():
  for made, wanted in zip((visual, audio), flops_by_hand(padding=0), strict=True):
    config = made.get_config()
    config.data.length = frames = 4
    system = System.from_config(config)
    batch = abstract_batch(config, 1)
    fields = {name: batch[name] for name in system.inputs.fields}
    lowered = jax.jit(system.encode).lower(system.shapes, fields)
    # Norms, activations and pools are a hundredth of it.
    assert lowered.cost_analysis()['flops'] == pytest.approx(wanted * frames, rel=0.02)
  assert flops_by_hand(padding=1) == pytest.approx((6.06e9, 1.73e9), rel=0.01)  # a frame


@pytest.mark.slow
def test_frozen_arrays_are_neither_copied_nor_rewritten():
  """In the compiled step of every stage they go from argument to result, in the same memory.

  The old state is donated whole, and nothing is asked of or sent to the host within the step.
  """
  config = small_config()
  system = System.from_config(config)
  variables, counts, sent = system.init(0), [], r' (infeed|outfeed|send|recv)\(|callback'
  for is_trainable in make_stages(config, steps.parameter_paths(variables['params'])):
    tx = optimizer.make_optimizer(is_trainable, {'weight_decay': 1e-3})
    state = steps.make_state(variables, tx)
    program = system.make_train_step(is_trainable, tx).lower(
      state, random_batch(config), jax.random.key(1), np.float32(1e-2)
    )
    program = program.compile()
    text = program.as_text()
    text = text[text.index('\nENTRY') :]
    assert not re.search(sent, text)
    # An argument is an instruction `%name = f32[...] parameter(7)`.
    arguments = {name: int(i) for name, i in re.findall(r'%?(\S+) = \S+ parameter\((\d+)\)', text)}
    results = re.search(r'ROOT .* tuple\((.*?)\)', text)[1]
    results = [name.rpartition('%')[-1].split()[-1] for name in results.split(', ')]
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    frozen = 0
    for i, (path, _) in enumerate(leaves):
      kind, *names = (getattr(key, 'key', None) or getattr(key, 'name', '') for key in path)
      if kind in ('params', 'batch_stats') and not is_trainable('/'.join(map(str, names))):
        assert arguments.get(results[i]) == i, names
        frozen += 1
    counts.append(frozen)
    donated = program.memory_analysis().alias_size_in_bytes
    assert donated == sum(x.nbytes for _, x in leaves)
  assert counts[0] > counts[1] > counts[2]


@pytest.mark.slow
def test_frozen_modules_in_training_mode():
  """As in the predecessors' code, frozen norms use and update batch statistics; parameters stay."""
  config = small_config()
  config.augment, config.model.temporal.dropout = False, 0.0
  variables, batch = System.from_config(config).init(0), random_batch(config)
  is_trainable = make_stages(config, steps.parameter_paths(variables['params']))[0]
  tx = optimizer.make_optimizer(is_trainable, {'weight_decay': 1e-3})
  results = {}
  for mode in ('evaluation', 'training'):
    config.frozen_mode = mode
    system = System.from_config(config)
    state = steps.make_state(jax.tree.map(jnp.copy, variables), tx)
    after, metrics = system.make_train_step(is_trainable, tx)(
      state, batch, jax.random.key(1), np.float32(1e-2)
    )
    results[mode] = float(metrics['loss']), traverse_util.flatten_dict(after.batch_stats, sep='/')
    for path, value in traverse_util.flatten_dict(after.params, sep='/').items():
      assert is_trainable(path) != np.array_equal(
        value, traverse_util.flatten_dict(variables['params'], sep='/')[path]
      ), path
  before = traverse_util.flatten_dict(variables['batch_stats'], sep='/')
  frozen = [path for path in before if not is_trainable(path)]
  assert frozen and all(
    np.array_equal(results['evaluation'][1][path], before[path]) for path in frozen
  )
  assert not any(np.array_equal(results['training'][1][path], before[path]) for path in frozen)
  assert results['evaluation'][0] != results['training'][0]


@pytest.mark.parametrize('broken', ['loss', 'gradient'])
def test_an_update_that_is_not_finite_is_skipped(broken, monkeypatch):
  """The square root of 0 is finite, but its gradient is not; a loss of infinity has gradient 0."""

  def total_loss(targets, outputs, labels, annotated, arguments):
    zero = 0.0 * outputs.sum()
    return jnp.inf + 0 * zero if broken == 'loss' else jnp.sqrt(zero)

  monkeypatch.setattr(steps.losses, 'total_loss', total_loss)
  config = small_config()
  system, everything = System.from_config(config), TrainableMask(('.*',))
  tx = optimizer.make_optimizer(everything, {'weight_decay': 1e-3})
  state = steps.make_state(system.init(0), tx)
  before = jax.tree.map(np.asarray, state)
  after, metrics = system.make_train_step(everything, tx)(
    state, random_batch(config), jax.random.key(1), np.float32(1e-2)
  )
  finite = {name: bool(np.isfinite(x)) for name, x in metrics.items()}
  assert finite == {'loss': broken != 'loss', 'gradient_norm': broken != 'gradient'}
  jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.asarray, after))


def test_a_padded_row_changes_nothing():
  config = small_config()
  system = System.from_config(config)
  variables = system.init(0)
  is_trainable = TrainableMask(('.*',))
  tx = optimizer.make_optimizer(is_trainable, {'weight_decay': 1e-3})
  batch = random_batch(config)
  padded = {
    name: np.concatenate([value, np.zeros_like(value[:1])]) for name, value in batch.items()
  }
  config.augment = False  # its draws depend on the number of rows
  config.model.temporal.dropout = 0.0
  system = System.from_config(config)
  found = []
  for rows in (batch, padded):
    state = steps.make_state(jax.tree.map(jnp.copy, variables), tx)
    after, metrics = system.make_train_step(is_trainable, tx)(
      state, rows, jax.random.key(1), np.float32(1e-3)
    )
    found.append((float(metrics['loss']), after.batch_stats))
  assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[0][1], found[1][1])


def on_two_features():
  """Returns the config of the baseline without its tower, on features of width 2: only a head."""
  config = baseline.get_config('mini')
  config.data.features = {'given': 2}
  config.model.visual.tower = 'features/given'
  return config


def test_predictions_of_a_head_without_tanh_are_clipped():
  """The head passes its two features on: they are the predictions, except where they leave [-1, 1].

  It is each window that is clipped, not the mean of the windows that cover a frame.
  """
  system = System.from_config(on_two_features())
  head = {'kernel': np.eye(2, dtype=np.float32), 'bias': np.zeros(2, np.float32)}
  variables = {'params': {'head': {'output': head}}, 'batch_stats': {}}
  assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda x: x.shape, system.shapes)
  features = np.float32([[[2, -0.5], [-3, 1.5], [0.25, -1], [1, 0]]])
  wanted = [[[1, -0.5], [-1, 1], [0.25, -1], [1, 0]]]
  found = system.predict(variables, {'features/given': features, 'real': np.ones((1, 4), bool)})
  np.testing.assert_array_equal(found['prediction'], wanted)


def test_adam_is_coupled_and_masked():
  """Three steps against PyTorch's Adam with weight_decay, written out in float64."""
  rng = np.random.default_rng(0)
  params = {'open': rng.normal(size=5), 'slow': rng.normal(size=5), 'frozen': rng.normal(size=5)}
  is_trainable = TrainableMask(('open/', 'slow/'))
  tx = optimizer.make_optimizer(
    is_trainable, {'weight_decay': 1e-2, 'rate_factors': ((r'slow', 0.25),)}
  )
  device = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
  opt_state = tx.init(device)
  m = v = {name: np.zeros(5) for name in params}
  for t in range(1, 4):
    gradients = {name: rng.normal(size=5) for name in params}
    updates, opt_state = tx.update(
      jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradients), opt_state, device
    )
    device = steps.apply_updates(device, updates, np.float32(0.1))
    total = {name: gradients[name] + 1e-2 * params[name] for name in params}
    m = {name: 0.9 * m[name] + 0.1 * total[name] for name in params}
    v = {name: 0.999 * v[name] + 0.001 * total[name] ** 2 for name in params}
    for name, rate in (('open', 0.1), ('slow', 0.025), ('frozen', 0)):
      params[name] = params[name] - rate * (m[name] / (1 - 0.9**t)) / (
        np.sqrt(v[name] / (1 - 0.999**t)) + 1e-8
      )
  for name in params:
    np.testing.assert_allclose(device[name], params[name], rtol=1e-4, err_msg=name)
  moments = [leaf for leaf in jax.tree.leaves(opt_state) if getattr(leaf, 'ndim', 0)]
  assert len(moments) == 4  # two moments of two open parameters; the frozen one costs no memory


def test_rate_factor_that_matches_nothing():
  with pytest.raises(ValueError, match='matches no parameter'):
    optimizer.check_rate_factors(((r'fusion/.*/w_x', 0.1),), ['fusion/recursion_1/visual/w_c'])


def test_masked_alone_would_let_raw_gradients_through():
  """Shows why the optimizer partitions the parameters: the pitfall that this avoids is real."""
  params = {'open': jnp.ones(2), 'frozen': jnp.ones(2)}
  naive = optax.masked(optax.scale(0.0), {'open': True, 'frozen': False})
  updates, _ = naive.update(params, naive.init(params), params)
  assert updates['frozen'].tolist() == [1, 1]
  tx = optimizer.make_optimizer(TrainableMask(('open/',)), {'weight_decay': 0.0})
  updates, _ = tx.update(params, tx.init(params), params)
  assert updates['frozen'].tolist() == [0, 0]


def test_one_crop_and_flip_a_clip():
  """Each pixel names its place, so an augmented image says which crop and flip it is."""
  clips, frames, size, crop = 64, 3, 6, 4
  place = np.arange(size * size, dtype=np.uint8).reshape(size, size)
  faces = np.broadcast_to(place[None, None, :, :, None], (clips, frames, size, size, 3))
  images = np.asarray(jax.jit(inputs.images, static_argnums=1)(faces, crop, jax.random.key(0)))
  pixels = np.rint((images * 0.5 + 0.5) * 255).astype(int)[..., 0]
  assert (pixels == pixels[:, :1]).all()  # all frames of a clip alike
  allowed = {}
  for row in range(size - crop + 1):
    for column in range(size - crop + 1):
      window = place[row : row + crop, column : column + crop]
      allowed[window.tobytes()], allowed[window[:, ::-1].tobytes()] = (
        (row, column, False),
        (row, column, True),
      )
  seen = {allowed[clip.astype(np.uint8).tobytes()] for clip in pixels[:, 0]}
  assert len(seen) > 12  # of 18
  assert {flip for *_, flip in seen} == {False, True}
  assert {row for row, *_ in seen} == {column for _, column, _ in seen} == {0, 1, 2}


def test_centre_crop_and_range():
  faces = np.zeros((1, 1, 6, 6, 3), np.uint8)
  faces[0, 0, 1, 1], faces[0, 0, 4, 4] = 255, 51
  image = inputs.images(jnp.asarray(faces), 4)
  assert image.shape == (1, 1, 4, 4, 3) and image[0, 0, 0, 0, 0] == 1 and image[0, 0, 1, 1, 0] == -1
  assert float(image[0, 0, 3, 3, 0]) == pytest.approx(2 * 51 / 255 - 1)


@pytest.mark.parametrize(
  'visual, audio, wanted',
  [
    ('ir50', 'vggish', [False, True, True, True]),
    ('features/x', 'none', [False, False, True, True]),
    ('none', 'vggish', [False, True, False, True]),
  ],
)
def test_which_frames_have_input(visual, audio, wanted):
  towers = {'visual': visual, 'audio': audio}
  read = inputs.Inputs(length=4, face=8, crop=8, towers=towers, features={'x': 2})
  face_present, audio_present = np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)
  assert read.has_input(face_present, audio_present).tolist() == wanted


def test_windows_are_gathered_bit_for_bit():
  rng = np.random.default_rng(0)
  log_mel = rng.normal(size=(2, 300, 64)).astype(np.float16)
  starts = rng.integers(0, 205, (2, 7)).astype(np.int32)
  got = np.asarray(jax.jit(inputs.windows)(log_mel, starts))
  for b in range(2):
    for n in range(7):
      assert np.array_equal(
        got[b, n], log_mel[b, starts[b, n] : starts[b, n] + 96].astype(np.float32)
      )
