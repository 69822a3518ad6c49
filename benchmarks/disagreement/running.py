"""Trains and tests the replicas of a system, and measures what they predict.

R replicas are seeds, or trials of a tuning. Predictions of a test are (R,N,W,L,2): N clips, each of
W windows of L frames.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from avjax.system import start
from avjax.targets import metrics
from benchmarks.disagreement import statistics, training
from benchmarks.disagreement.systems import (
  ENTRIES,
  MIDDLE,
  SEEDS,
  SETTINGS,
  TUNING_SEEDS,
  Entry,
)
from benchmarks.disagreement.world import LENGTH, MODALITIES, World, make_world
from data_prep import parallel

TARGETS = ('valence', 'arousal')
HALF = LENGTH // 2
EDGE = LENGTH // 10  # frames at a border of a window

Worlds = Mapping[Any, list[World]]


def make_worlds(pairs: Iterable[tuple[Any, Iterable[int]]]) -> dict[Any, list[World]]:
  """Makes {setting: the world of each seed}, on all cores."""
  jobs = [(seed, setting) for setting, seeds in pairs for seed in seeds]
  worlds = {}
  with parallel.spawned_pool(parallel.core_count()) as pool:
    made = pool.map(make_world, *zip(*jobs, strict=True), chunksize=4)
    for (_, setting), world in zip(jobs, made, strict=True):
      worlds.setdefault(setting, []).append(world)
  return worlds


class Runner:
  """Runs one entry of the registry; its programs are compiled once for all of its calls."""

  def __init__(self, entry: Entry):
    self.entry, self.system = entry, entry.system()
    self.initialize = training.make_initializer(self.system, entry.spread)
    self.train = training.make_trainer(self.system, entry.slow)
    self.predict = jax.jit(jax.vmap(functools.partial(training.predict, self.system)))
    self.clip = [np.zeros((1, LENGTH, width), np.float32) for width in entry.widths.values()]
    shapes = jax.eval_shape(self.initialize, 0, self.clip)['params']
    self.parameters = sum(x.size for x in jax.tree.leaves(shapes))
    self.of_frames = any(LENGTH in x.shape for x in jax.tree.leaves(shapes.get('fusion', {})))

  def features(self, parts):
    """Returns the features of clips of R worlds, a pair of (R,N,T,Dm)."""
    told = [np.stack([part.lies[m] for part in parts])[..., None] for m in MODALITIES]
    pair = [np.stack([part.features[m] for part in parts]) for m in MODALITIES]
    if self.entry.told:
      pair = [np.concatenate([x, *told], axis=-1) for x in pair]
    return tuple(x.astype(np.float32) for x in pair)

  def fit(self, worlds, seeds, rates, factors):
    """Trains replicas; returns (their variables, the validation CCC at each look (R,LOOKS))."""
    parts = (
      (self.features([getattr(world, name) for world in worlds]), labels(worlds, name))
      for name in ('training', 'validation')
    )
    orders = np.stack(
      [training.draw_orders(seed, len(worlds[0].training.labels)) for seed in seeds]
    )
    drawn = [self.initialize(seed, self.clip) for seed in seeds]
    variables = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
    numbers = (np.asarray(x, np.float32) for x in (rates, factors))
    best, scores = self.train(variables, *parts, orders, np.asarray(seeds), *numbers)
    return best, np.asarray(scores)

  def tune(self, worlds: Worlds) -> dict[str, Any]:
    """Tries every pair of rate and factor with each of TUNING_SEEDS; `page.best_trial` chooses."""
    begin, count = time.perf_counter(), len(TUNING_SEEDS)
    rates, factors = (np.repeat(x, count) for x in zip(*self.entry.trials, strict=True))
    tiled = [worlds[MIDDLE][i] for _ in self.entry.trials for i in range(count)]
    _, scores = self.fit(tiled, [*TUNING_SEEDS] * len(self.entry.trials), rates, factors)
    means = scores.max(axis=1).reshape(-1, count).mean(axis=1)
    tried = zip(self.entry.trials, means, strict=True)
    return {
      'parameters': self.parameters,
      'trials': [[*trial, round(float(x), 4)] for trial, x in tried],
      'seconds': round(time.perf_counter() - begin, 1),
    }

  def test(self, worlds: list[World], trial: tuple[float, float]) -> tuple[dict[str, Any], Any]:
    """Trains with all SEEDS at one setting; returns (what is measured, predictions of the test)."""
    begin = time.perf_counter()
    best, scores = self.fit(worlds, SEEDS, *(np.full(len(SEEDS), x) for x in trial))
    trained = time.perf_counter()
    features = self.features([world.test for world in worlds])
    outputs = self.cut_and_predict(best, features, 0, LENGTH)
    truth = cut(labels(worlds, 'test'), 0, LENGTH)
    prediction = outputs['prediction']
    found = {
      **measure(prediction, truth),
      'validation': rounded(scores.max(axis=1)),
      'auc': detection(self.entry.config, outputs['gates'], worlds),
      'seconds': round((trained - begin) / len(SEEDS), 2),
    }
    if worlds[0].setting == MIDDLE:
      found['windows'] = self.windows(best, features, prediction, labels(worlds, 'test'))
    return found, prediction

  def cut_and_predict(self, variables, features, first, length):
    """Predicts windows of `length` frames that begin at `first`, LENGTH apart: see the module."""
    pieces = [cut(x, first, length) for x in features]
    r, n, w = pieces[0].shape[:3]
    flat = tuple(x.reshape(r, n * w, length, -1) for x in pieces)
    return jax.tree.map(
      lambda x: np.asarray(x).reshape(r, n, w, length, -1), self.predict(variables, *flat)
    )

  def windows(self, variables, features, prediction, truth):
    """Compares windows with others that begin half a window later, and with shorter ones."""
    shifted = self.cut_and_predict(variables, features, HALF, LENGTH)['prediction']
    short = self.cut_and_predict(variables, features, 0, HALF)['prediction']
    inner = slice(HALF, HALF + shifted.shape[2] * LENGTH)  # the frames that both kinds cover
    plain, moved = (joined(x)[:, :, s] for x, s in ((prediction, inner), (shifted, slice(None))))
    target = truth[:, :, inner]
    first = cut(truth, 0, LENGTH)[:, :, :, :HALF]
    errors = np.square(prediction - cut(truth, 0, LENGTH)).mean(axis=(1, 2, 4))
    middle = errors[:, EDGE:-EDGE].mean(axis=1)
    return {
      'plain': mean_ccc(plain, target),
      'shifted': mean_ccc(moved, target),
      'overlapping': mean_ccc((plain + moved) / 2, target),
      'difference': rounded(np.sqrt(np.square(plain - moved).mean(axis=(1, 2, 3)))),
      'first': rounded(np.sqrt(errors[:, :EDGE].mean(axis=1) / middle)),
      'last': rounded(np.sqrt(errors[:, -EDGE:].mean(axis=1) / middle)),
      'whole': mean_ccc(prediction[:, :, :, :HALF], first),
      'short': mean_ccc(short, first),
      'film': self.films(variables, features, truth),
    }

  def films(self, variables, features, truth):
    """Returns the mean CCC of films that are predicted whole, None if weights are of LENGTH."""
    if self.of_frames:
      return None
    return mean_ccc(np.asarray(self.predict(variables, *features)['prediction']), truth)


def tune(worlds: Worlds, name: str) -> dict[str, Any]:
  """Tunes an entry of the registry, in a process of its own."""
  start.start()
  row = Runner(ENTRIES[name]).tune(worlds)
  jax.clear_caches()
  return row


def test(best: Mapping[str, Any], worlds: Worlds, name: str) -> dict[Any, Any]:
  """Tests an entry of the registry, in a process of its own, with its best trial of {name: trial}.

  Returns {setting: (what is measured, the predictions)}.
  """
  start.start()
  entry = ENTRIES[name]
  runner = Runner(entry)
  settings = SETTINGS if entry.everywhere else (MIDDLE,)
  rows = {setting: runner.test(worlds[setting], best[name][:2]) for setting in settings}
  jax.clear_caches()
  return rows


def labels(worlds, part):
  """Returns the labels of a part of R worlds, (R,N,T,2)."""
  return np.stack([getattr(world, part).labels for world in worlds])


def cut(x, first, length, stride=LENGTH):
  """Cuts windows out of clips: (R,N,T,...) -> (R,N,W,length,...)."""
  starts = range(first, x.shape[2] - max(length, stride) + 1, stride)
  return np.stack([x[:, :, start : start + length] for start in starts], axis=2)


def joined(x):
  """Joins windows that follow one another: (R,N,W,L,2) -> (R,N,W*L,2)."""
  return x.reshape(*x.shape[:2], -1, x.shape[-1])


def rounded(values):
  return [round(float(x), 5) for x in values]


def mean_ccc(prediction, truth):
  """Returns the mean CCC over targets of each replica, of all frames; arrays (R,...,2)."""
  return rounded(np.mean([per_target(prediction, truth, k) for k in range(len(TARGETS))], axis=0))


def per_target(prediction, truth, k):
  pairs = zip(prediction[..., k], truth[..., k], strict=True)
  return [metrics.ccc(p.ravel(), y.ravel()) for p, y in pairs]


def measure(prediction, truth):
  """Measures predictions (R,N,W,L,2): CCC, and jumps between frames as multiples of the label's."""
  jumps = [np.abs(np.diff(x, axis=3)).mean(axis=(1, 2, 3, 4)) for x in (prediction, truth)]
  return {
    **{name: rounded(per_target(prediction, truth, k)) for k, name in enumerate(TARGETS)},
    'jumps': rounded(jumps[0] / jumps[1]),
  }


def detection(config, gates, worlds):
  """Returns {modality: AUC (R,)} with which gates tell its lies from frames in which nobody lies.

  Lies of the other modality do not count: of two shares that add up to 1, one would seem to know
  what the other knows.
  """
  found = {}
  lies = {m: cut(np.stack([w.test.lies[m] for w in worlds]), 0, LENGTH) for m in MODALITIES}
  nobody = ~(lies['visual'] | lies['audio'])
  for modality in MODALITIES:
    trust = shares(config, gates, modality)
    asked = lies[modality] | nobody
    if trust is not None and lies[modality].any():
      rows = zip(trust, lies[modality], asked, strict=True)
      found[modality] = rounded(statistics.auc(-s[a], lie[a]) for s, lie, a in rows)
  return found


def shares(config, gates, modality):
  """Returns the weight of what a modality itself says in each frame, (R,N,W,L), or None.

  For the paper's systems it is that of the unattended features X^(0).
  """
  if config in ('dca', 'grjca'):
    return gates[modality][..., 0]
  if config == 'hgrjca':
    return gates[f'{modality}_final'][..., 0] * gates[f'{modality}_1'][..., 0]
  for name in ('modality', 'expert'):
    if name in gates:
      return gates[name][..., MODALITIES.index(modality)]
  return None
