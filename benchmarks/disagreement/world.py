"""Invents features of a face and a voice that may disagree, where the truth is known.

What people feel, what each modality shows of it and when one of the two lies come from
data_prep.mini.latents, which draws the faces and the voices of the mini set from the same
description. Here each modality becomes a series of feature vectors in its place. docs/evidence.md
has the equations, whose numbers stand at the lines below.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from data_prep.mini.latents import (
  FACE_LIES,
  GRID_HZ,
  VOICE_LIES,
  Dials,
  conflict,
  generator,
  perform,
  wander,
)

RATE = 5  # frames a second
SECONDS = 24.0  # of a film
LENGTH = 40  # frames of a window, 8 seconds
FILMS = {'training': 342, 'validation': 24, 'test': 64}
WIDTHS = {'visual': 16, 'audio': 8}  # features of a frame
MODALITIES = tuple(WIDTHS)
LIES = {'visual': FACE_LIES, 'audio': VOICE_LIES}
LAG = {'visual': 0.1, 'audio': 0.3}  # seconds by which a modality shows what is felt later
HIDDEN = 0.5  # share of the label that only both modalities together show
MASK = 1.5  # standard deviation of what covers that part in the face, and is known to the voice
OFFSET = 0.15  # standard deviation of a person's own offset of what a modality shows
NUISANCE = 3  # series in the features that have nothing to do with what is felt
QUALITY = 3.0  # standard deviations by which a lie is visible where kappa is 1
NOISE = 0.1  # standard deviation of the white noise of each feature
LOST = 0.05  # share of the frames in which a modality shows nothing, in spans of about a second


@dataclasses.dataclass(frozen=True)
class Setting:
  """Says how far the modalities disagree.

  rho: share of the time in which one of them lies, half of it the face and half the voice.
  kappa: how well a lie can be seen in the features of the modality that lies, 0 not at all.
  """

  rho: float
  kappa: float


@dataclasses.dataclass(frozen=True)
class Clips:
  """Holds N clips of T frames.

  features: {modality: (N,T,D) float32}.
  labels: (N,T,2) float32, valence and arousal in (-1, 1).
  lies: {modality: (N,T) bool}, whether it lies.
  """

  features: dict[str, np.ndarray]
  labels: np.ndarray
  lies: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class World:
  """Holds the clips of one seed and setting: windows of LENGTH, and the whole films of the test."""

  setting: Setting
  training: Clips
  validation: Clips
  test: Clips


def make_world(seed: int, setting: Setting) -> World:
  """Makes the clips of a seed at a setting."""
  films = {part: make_clips(seed, part, setting, count) for part, count in FILMS.items()}
  return World(
    setting, in_windows(films['training']), in_windows(films['validation']), films['test']
  )


def in_windows(films: Clips) -> Clips:
  """Cuts films into windows of LENGTH that follow one another."""

  def cut(x):
    return x.reshape(-1, LENGTH, *x.shape[2:])

  return Clips(
    {m: cut(x) for m, x in films.features.items()},
    cut(films.labels),
    {m: cut(x) for m, x in films.lies.items()},
  )


def make_clips(seed: int, part: str, setting: Setting, count: int) -> Clips:
  """Makes `count` films of SECONDS, each of a person of its own.

  The same seed, part and number of a clip give the same labels at every setting.
  """
  clips = [make_clip(seed, part, n, setting, (n + 0.5) / count) for n in range(count)]
  return Clips(
    {m: np.stack([clip.features[m] for clip in clips]) for m in WIDTHS},
    np.stack([clip.labels for clip in clips]),
    {m: np.stack([clip.lies[m] for clip in clips]) for m in WIDTHS},
  )


def make_clip(seed, part, number, setting, turn):
  """Makes one clip, Clips without their first axis; turn as `latents.conflict` takes it."""
  dials = Dials(preset='balanced', rho=setting.rho, anti=0.5, kappa=setting.kappa)
  shown = perform(generator(seed, part, number, 'latents'), SECONDS, dials, turn, begin_anywhere)
  rng = generator(seed, part, number, 'features')
  times = np.arange(round(SECONDS * RATE)) / RATE
  now, grid = shown.at(times), len(shown.times)
  hidden, mask = wanderers(rng, grid, 2, 0.5), MASK * wanderers(rng, grid, 2, 1.0)
  hidden, mask = (series_at(times, shown.times, x) for x in (np.tanh(hidden), mask))
  labels = (1 - HIDDEN) * now.va + HIDDEN * hidden  # eq. 4
  features, lies = {}, {}
  for modality, width in WIDTHS.items():
    late = shown.at(times - LAG[modality])
    evidence = (late.face if modality == 'visual' else late.voice) + rng.normal(0, OFFSET, 2)
    lies[modality] = now.state == LIES[modality]
    quality = setting.kappa * QUALITY * lies[modality] + on_frames(rng, times, shown.times, 1)[:, 0]
    nuisance = on_frames(rng, times, shown.times, NUISANCE)
    covered = hidden + mask if modality == 'visual' else mask  # eq. 5
    sources = np.concatenate([2 * evidence, covered, quality[:, None], nuisance], axis=1)
    mixed = np.tanh(sources @ mixing(modality, sources.shape[1], width))  # eq. 6
    mixed[lost(rng, len(times))] = 0
    features[modality] = (mixed + NOISE * rng.normal(size=mixed.shape)).astype(np.float32)
  return Clips(features, labels.astype(np.float32), lies)


def begin_anywhere(rng, times, seconds, rho, turn):
  """Draws the states of `latents.conflict`, moved by a random time; what leaves a film comes back.

  So lies are as likely in every frame, also at the ends, and a window may show a part of one.
  """
  state = conflict(rng, times, seconds, rho, turn)
  # The first frame has the state of the point before it, for the times of the grid are not exact.
  film = (times > -1.5 / GRID_HZ) & (times < seconds)
  state[film] = np.roll(state[film], rng.integers(film.sum()))
  return state


def mixing(modality, sources, width):
  """Returns the weights (sources, width) that stand for a tower, the same in every world."""
  weights = generator(0, 'mixing', modality).normal(size=(sources, width))
  return weights / np.linalg.norm(weights, axis=0)


def wanderers(rng, n, count, spread):
  """Returns (n, count) independent series of `latents.wander`, with a correlation time of 2 s."""
  return np.stack([wander(rng, n, 2.0, spread) for _ in range(count)], axis=1)


def series_at(times, grid, columns):
  """Interpolates columns (G,K) from the times of the grid."""
  return np.stack([np.interp(times, grid, column) for column in columns.T], axis=1)


def on_frames(rng, times, grid, count):
  """Returns (T,count) independent series of standard deviation 1 at these times."""
  return series_at(times, grid, wanderers(rng, len(grid), count, 1.0))


def lost(rng, n):
  """Draws in which of n frames a modality shows nothing, (n,) bool."""
  starts = rng.random(n) < LOST / RATE
  return np.convolve(starts, np.ones(RATE), 'full')[:n] > 0
