"""Tests the world, the training and the statistics of benchmarks/disagreement."""

import re

import jax
import numpy as np
import pytest

from benchmarks.disagreement import (
  full_path,
  page,
  running,
  statistics,
  systems,
  training,
  world,
)
from benchmarks.disagreement.systems import MIDDLE
from benchmarks.disagreement.world import Setting
from benchmarks.pages import fill


def clips(seed=0, part='training', setting=MIDDLE, count=64):
  return world.make_clips(seed, part, setting, count)


def explained(features, target):
  """Returns the share of the variance of target (N,T) that is linear in features (N,T,D)."""
  x, y = features.reshape(-1, features.shape[-1]), target.reshape(-1)
  x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
  residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
  return 1 - residual.var() / y.var()


def test_a_world_is_its_seed_s_and_parts_are_others():
  one, again = clips(count=2), clips(count=2)
  for m in world.MODALITIES:
    np.testing.assert_array_equal(one.features[m], again.features[m])
  assert not np.array_equal(one.labels, clips(part='test', count=2).labels)
  assert not np.array_equal(one.labels, clips(seed=1, count=2).labels)
  assert one.features['visual'].shape == (2, 120, 16)
  assert one.features['audio'].shape == (2, 120, 8)
  assert one.labels.shape == (2, 120, 2) and np.abs(one.labels).max() < 1


def test_without_disagreement_nobody_lies_and_labels_stay():
  calm, torn = clips(setting=Setting(0.0, 1.0)), clips(setting=Setting(0.4, 1.0))
  np.testing.assert_array_equal(calm.labels, torn.labels)
  assert not any(lies.any() for lies in calm.lies.values())
  shares = {m: lies.mean() for m, lies in torn.lies.items()}
  assert shares['visual'] == pytest.approx(0.2, abs=0.07)
  assert shares['audio'] == pytest.approx(0.2, abs=0.07)
  assert not (torn.lies['visual'] & torn.lies['audio']).any()


def test_a_lie_is_seen_in_the_modality_that_lies_only_where_kappa_says_so():
  for m, other in (('visual', 'audio'), ('audio', 'visual')):
    hidden, shown = clips(setting=Setting(0.4, 0.0)), clips(setting=Setting(0.4, 1.0))
    lie = [x.lies[m].astype(float) for x in (hidden, shown)]
    assert explained(hidden.features[m], lie[0]) < 0.1
    assert explained(shown.features[m], lie[1]) > 0.3
    assert explained(shown.features[other], lie[1]) < 0.15


def test_a_lie_says_something_else_than_the_label():
  torn = clips(count=256)
  for m, k in (('visual', 0), ('audio', 1)):
    x = torn.features[m].reshape(-1, world.WIDTHS[m])
    y, lie = torn.labels[..., k].reshape(-1), torn.lies[m].reshape(-1)
    x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    weights = np.linalg.lstsq(x[~lie], y[~lie], rcond=None)[0]
    found = x @ weights
    assert np.corrcoef(found[~lie], y[~lie])[0, 1] > 0.3 > np.corrcoef(found[lie], y[lie])[0, 1]


def test_a_part_of_the_label_is_seen_in_both_together_only():
  calm = clips(setting=Setting(0.0, 1.0), count=256)
  pair = np.concatenate([calm.features[m] for m in world.MODALITIES], axis=-1)
  alone = max(explained(calm.features[m], calm.labels[..., 0]) for m in world.MODALITIES)
  assert explained(pair, calm.labels[..., 0]) > alone + 0.1


def test_lies_are_as_likely_in_every_frame_of_a_window():
  torn = clips(count=600)
  films = torn.lies['visual'] | torn.lies['audio']
  windows = world.in_windows(torn)
  for share in (films.mean(axis=0), (windows.lies['visual'] | windows.lies['audio']).mean(axis=0)):
    assert share.min() > 0.3 and share.max() < 0.5  # 0.4, give or take five standard errors
  # Windows are cut one after another, and a film's stay together.
  assert windows.labels.shape == (1800, 40, 2)
  np.testing.assert_array_equal(windows.labels[4], torn.labels[1, 40:80])
  np.testing.assert_array_equal(
    windows.features['audio'][3:6].reshape(120, 8), torn.features['audio'][1]
  )


# Statistics.


def test_auc_by_hand():
  # Of the six pairs, four are in order, one is a tie and one is not.
  scores, positive = np.array([3.0, 1.0, 0.0, 2.0, 1.0]), np.array([1, 1, 0, 0, 0], bool)
  assert statistics.auc(scores, positive) == pytest.approx(4.5 / 6)


def test_sign_flip_by_hand():
  assert statistics.sign_flip([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
  assert statistics.sign_flip([1.0, -1.0]) == 1


def test_holm_by_hand():
  assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert statistics.holm([0.5, 0.9]) == pytest.approx([1, 1])


def test_an_interval_has_the_mean_of_other_samples_as_often_as_it_says():
  rng = np.random.default_rng(0)
  inside = [
    low < 0 < high for low, high in (statistics.interval(rng.normal(size=10)) for _ in range(600))
  ]
  assert 0.925 < np.mean(inside) < 0.975  # plain percentiles: 0.90
  assert statistics.interval([0.7] * 10) == pytest.approx((0.7, 0.7))


def test_what_could_have_been_seen_is_seen_in_four_of_five_studies():
  rng, n = np.random.default_rng(0), 10
  for rows, quantile in ((1, 2.2622), (5, 3.2498)):  # of Student's t, 0.975 and 0.995
    true = statistics.visible(np.array([-1.0, 1.0] * 5) * np.sqrt(0.9), rows)  # deviation 1
    samples = rng.normal(true, 1, (4000, n))
    t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / np.sqrt(n))
    assert (np.abs(t) > quantile).mean() == pytest.approx(0.8, abs=0.03)


# Training.


@pytest.fixture(scope='module')
def brief():
  """Makes training a matter of seconds."""
  with pytest.MonkeyPatch.context() as patch:
    for name, value in (('UPDATES', 20), ('WARMUP', 4), ('LOOKS', 4)):
      patch.setattr(training, name, value)
    yield


@pytest.fixture(scope='module')
def small():
  """Returns two worlds of few clips."""
  return [
    world.World(
      MIDDLE,
      *(world.in_windows(clips(seed, part, count=6)) for part in ('training', 'validation')),
      clips(seed, 'test', count=4),
    )
    for seed in (0, 1)
  ]  # fmt: skip


@pytest.mark.slow
def test_a_replica_does_not_know_of_the_others(brief, small):
  """Other clips, another seed and other rates of the first leave the second as it is."""
  runner = running.Runner(systems.ENTRIES['grjca, M = 1'])
  one, other = (
    runner.fit(worlds, [seed, 1], [rate, 0.02], [factor, 0.01])
    for worlds, seed, rate, factor in (
      (small, 0, 0.01, 0.1),
      ([small[1], small[1]], 5, 0.03, 1.0),
    )
  )
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_array_equal(x[1], y[1])
  assert one[1].shape == (2, 4) and not np.allclose(one[1][0], other[1][0], atol=1e-3)


@pytest.mark.slow
def test_the_weights_of_the_best_look_are_kept(brief, small):
  runner = running.Runner(systems.ENTRIES['concatenation'])
  best, scores = runner.fit(small, [0, 1], [0.3, 0.3], [1, 1])
  features = runner.features([w.validation for w in small])
  found = runner.predict(best, *features)['prediction']
  truth = running.labels(small, 'validation')
  np.testing.assert_allclose(
    running.mean_ccc(np.asarray(found), truth), scores.max(axis=1), atol=1e-4
  )


@pytest.mark.slow
def test_the_factor_holds_for_l_x_l_weights_only(brief, small):
  runner = running.Runner(systems.ENTRIES['grjca, M = 1'])
  begin = runner.initialize(0, runner.clip)['params']
  after = runner.fit(small[:1], [0], [0.01], [0.0])[0]['params']
  moved = jax.tree_util.tree_map_with_path(
    lambda path, x, y: (jax.tree_util.keystr(path), bool(np.abs(x - y[0]).max() > 0)), begin, after
  )
  for path, has in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
    if 'fusion' in path:
      assert has != bool(re.search('w_[ch]', path)), path


def test_most_clips_of_a_test_set_are_its_test(tmp_path):
  splits = tmp_path / 'splits.csv'
  splits.write_text('name,split,subject\na,chunk0,x\nb,chunk4,y\nc,chunk5,z\nd,test,u\n')
  full_path.choose_test(splits)
  assert splits.read_text() == 'name,split,subject\na,test,x\nb,train,y\nc,validation,z\nd,test,u\n'


def test_windows_are_cut_and_joined():
  x = np.arange(2 * 3 * 120 * 2).reshape(2, 3, 120, 2)
  whole = running.cut(x, 0, 40)
  assert whole.shape == (2, 3, 3, 40, 2)
  np.testing.assert_array_equal(running.joined(whole), x)
  later = running.cut(x, 20, 40)
  np.testing.assert_array_equal(running.joined(later), x[:, :, 20:100])
  np.testing.assert_array_equal(running.cut(x, 0, 20, 40)[:, :, 1], x[:, :, 40:60])


def test_gates_that_know_find_all_lies(small):
  lies = {
    m: running.cut(np.stack([w.test.lies[m] for w in small]), 0, 40) for m in world.MODALITIES
  }
  share = 1 - np.stack([lies[m] for m in world.MODALITIES], axis=-1).astype(float)
  assert running.detection('raav', {'modality': share}, small) == {
    'visual': [1.0, 1.0], 'audio': [1.0, 1.0],
  }  # fmt: skip
  unattended = {m: np.stack([lies[m], 1 - lies[m]], axis=-1).astype(float) for m in lies}
  for config in ('grjca', 'dca'):
    found = running.detection(config, unattended, small)
    assert found == {'visual': [0.0, 0.0], 'audio': [0.0, 0.0]}
  assert running.detection('dcmmoe', {'expert': share}, small)['audio'] == [1.0, 1.0]
  # HGRJCA: the last gate weighs the first recursion, whose gate weighs the unattended features.
  full = np.ones_like(share)
  gates = {f'{m}_{k}': full for m in lies for k in ('1', 'final')}
  halves = {m: np.where(lies[m], 0.1, 0.9)[..., None] for m in lies}
  for part in ('1', 'final'):
    found = running.detection('hgrjca', gates | {f'{m}_{part}': halves[m] for m in lies}, small)
    assert found == {'visual': [1.0, 1.0], 'audio': [1.0, 1.0]}
  # A share that follows only the lies of the voice says nothing of the face's.
  only = np.where(lies['audio'], 0.1, 0.9)[..., None]
  found = running.detection('raav', {'modality': np.concatenate([1 - only, only], -1)}, small)
  assert found == {'visual': [0.5, 0.5], 'audio': [1.0, 1.0]}
  assert running.detection('concatenation', {}, small) == {}


# What is committed.


def test_every_entry_was_tuned_and_tested_as_registered():
  tuned, found, first, _ = page.committed()
  assert [*tuned['entries']] == [*systems.ENTRIES]
  assert [*found['entries']] == [*systems.ENTRIES, 'mean of both']
  assert found['seeds'] == [*systems.SEEDS] and not {*found['seeds']} & {*tuned['seeds']}
  assert not {*found['seeds'], *tuned['seeds']} & {*first['seeds'], 0, 1, 50, 51}
  for name, entry in systems.ENTRIES.items():
    settings = systems.SETTINGS if entry.everywhere else (MIDDLE,)
    assert [*found['entries'][name]] == [page.key(s.rho, s.kappa) for s in settings]
    trials = tuple((rate, factor) for rate, factor, _ in tuned['entries'][name]['trials'])
    assert trials == entry.trials and len(trials) == 5


@pytest.mark.slow
def test_every_system_has_the_same_but_for_its_fusion():
  """A projection in the TCN's residual, the same loss, and a rate for what is slow to learn."""
  for name, entry in systems.ENTRIES.items():
    runner = running.Runner(entry)
    shapes = jax.eval_shape(runner.initialize, 0, runner.clip)['params']
    assert runner.system.loss == running.Runner(systems.ENTRIES['concatenation']).system.loss
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    slow = {training.named(path) for path, _ in leaves}
    slow = {path for path in slow if re.fullmatch(entry.slow, path)}
    assert bool(slow) == bool(entry.slow) and all(path.startswith('fusion/') for path in slow)
    # Of the paper's systems, and of jca_2022, these are the weights with an axis over frames.
    if entry.slow.startswith('fusion/.*/'):
      assert slow == {
        training.named(path)
        for path, x in leaves
        if 'fusion' in training.named(path) and world.LENGTH in x.shape
      }
    tcns = [name for name in shapes if name.endswith('_tcn')]
    assert tcns and all('level0_residual' in shapes[tcn] for tcn in tcns), name


def test_holm_s_families_are_the_settings():
  rng = np.random.default_rng(0)
  one, other = (
    {page.key(rho): {t: rng.normal(size=10) for t in ('valence', 'arousal')} for rho in page.RHOS}
    for _ in range(2)
  )
  text = page.differences({'a': one, 'b': other}, {('a', 'b'): [*one]})
  ps = [float(line.split('|')[4]) for line in text.splitlines()[2:]]
  single = [statistics.sign_flip(page.scores(one[s]) - page.scores(other[s])) for s in one]
  assert ps == pytest.approx(single, abs=1e-3)  # one difference in each family
  both = page.differences({'a': one, 'b': other}, {('a', 'b'): [*one], ('b', 'a'): [*one]})
  twice = [float(line.split('|')[4]) for line in both.splitlines()[2:]]
  assert twice == pytest.approx(2 * [min(1, 2 * p) for p in single], abs=1e-3)


def test_the_page_is_generated():
  text = page.PAGE.read_text()
  for name, block in page.blocks(*page.committed()).items():
    assert fill(text, name, block) == text, name
