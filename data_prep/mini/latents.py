"""Invents what people feel, their valence and arousal, and how much of it face and voice show.

The latent pair is the label. Each modality shows a weighted, noisy copy of it. In a conflict
segment one of the two lies, which means that it shows something else.
"""

import dataclasses
import hashlib

import numpy as np

GRID_HZ = 20
# Seconds by which the grid begins before the first frame and ends after the last, for sound that
# begins earlier and annotation that ends later.
MARGIN = 1.5
CLEAN, VOICE_LIES, FACE_LIES = 0, 1, 2
SEGMENT = 5.5  # seconds of a conflict segment on average; they last 3 to 8

# Each modality has a weight and a standard deviation of its noise, for valence and for arousal.
# `natural`: the face shows valence better, the voice arousal. `balanced`: both are noisy, so that
# much is gained by weighing them.
PRESETS = {
  'natural': {'face': ((1.0, 0.6), (0.10, 0.22)), 'voice': ((0.7, 1.0), (0.30, 0.10))},
  'balanced': {'face': ((1.0, 0.7), (0.35, 0.35)), 'voice': ((0.95, 1.0), (0.30, 0.25))},
}


@dataclasses.dataclass(frozen=True)
class Dials:
  """What the modalities show, and the conflict between them; each number is in [0, 1].

  preset a name in PRESETS
  rho    share of the time in which one modality lies
  anti   what it then shows: 1 the opposite of the latents, 0 something unrelated
  kappa  how noticeable that is: a lying face is blurred and dark, a lying voice noisy; at 0 neither
  """

  preset: str = 'natural'
  rho: float = 0.1
  anti: float = 0.5
  kappa: float = 0.5


DEFAULT_DIALS = Dials()


@dataclasses.dataclass(frozen=True)
class Performance:
  """Holds what one person feels and shows, on a grid of GRID_HZ.

  times: (G,) seconds from the first frame.
  va, face, voice: (G,2), valence and arousal in [-1, 1].
  state: (G,) CLEAN, VOICE_LIES or FACE_LIES.
  """

  times: np.ndarray
  va: np.ndarray
  face: np.ndarray
  voice: np.ndarray
  state: np.ndarray

  def at(self, times):
    """Returns the Performance at other times (N,), in seconds.

    Values are interpolated; the state is that of the grid point before.
    """

    def interpolate(columns):
      return np.stack([np.interp(times, self.times, column) for column in columns.T], axis=1)

    before = np.clip(np.searchsorted(self.times, times, 'right') - 1, 0, len(self.times) - 1)
    return Performance(
      times,
      interpolate(self.va),
      interpolate(self.face),
      interpolate(self.voice),
      self.state[before],
    )


def generator(seed, *role):
  """Returns a random generator that depends on the seed and the role only.

  An example of a role is ('face', '105').
  """
  digest = hashlib.sha256('/'.join(map(str, (seed, *role))).encode()).digest()
  return np.random.default_rng(int.from_bytes(digest[:16], 'big'))


def perform(rng, seconds, dials, turn, draw_state=None):
  """Invents a person's Performance over a video of some seconds; `turn` as in conflict().

  draw_state: what draws the states in the place of conflict().
  """
  times = np.arange(-MARGIN, seconds + MARGIN, 1 / GRID_HZ)
  n = len(times)
  va = feel(rng, n)
  state = (draw_state or conflict)(rng, times, seconds, dials.rho, turn)
  shown = {}
  for modality, lies in (('face', FACE_LIES), ('voice', VOICE_LIES)):
    lie = dials.anti * -va + (1 - dials.anti) * feel(rng, n)
    seen = smooth(np.where(state[:, None] == lies, lie, va), 0.3)
    weight, spread = (np.array(pair) for pair in PRESETS[dials.preset][modality])
    noise = np.stack([wander(rng, n, 1.0, 1.0) for _ in range(2)], axis=1)
    shown[modality] = np.clip(weight * seen + spread * noise, -1, 1)
  return Performance(times, va, shown['face'], shown['voice'], state)


def feel(rng, n):
  """Returns (n,2) valence and arousal in (-1, 1), which wander within seconds about a random mean.

  perform() draws one mean per person for the latents, and another for what a lie shows.
  """
  valence = wander(rng, n, 3.0, 0.75) + rng.normal(0, 0.25)
  arousal = wander(rng, n, 2.5, 0.70) + rng.normal(0, 0.25)
  return np.tanh(smooth(np.stack([valence, arousal + 0.2 * valence], axis=1), 0.5))


def wander(rng, n, tau, spread):
  """Returns (n,) values of an Ornstein-Uhlenbeck process.

  tau: its correlation time in seconds. spread: its standard deviation.
  """
  keep = np.exp(-1 / (GRID_HZ * tau))
  steps = rng.normal(0, spread * np.sqrt(1 - keep**2), n)
  steps[0] = rng.normal(0, spread)
  for i in range(1, n):
    steps[i] += keep * steps[i - 1]
  return steps


def smooth(columns, seconds):
  """Returns the running mean of (n,2) columns over some seconds; the ends are repeated."""
  width = max(1, round(seconds * GRID_HZ)) | 1
  padded = np.pad(columns, ((width // 2, width // 2), (0, 0)), 'edge')
  return np.stack(
    [np.convolve(column, np.full(width, 1 / width), 'valid') for column in padded.T], axis=1
  )


def conflict(rng, times, seconds, rho, turn):
  """Draws the conflict segments of a video, between clean stretches of random length.

  Face and voice lie in turn. A share rho of the time is in conflict. Where rho * seconds is less
  than a usual segment, a video has one segment or none, as `turn` in [0, 1) decides; with turns
  spread evenly over the videos, the share holds over all of them.

  Returns (n,) uint8 states at times (n,).
  """
  state = np.full(len(times), CLEAN, np.uint8)
  total, usual = rho * seconds, min(SEGMENT, seconds)
  chance = min(1, total / usual)
  if turn >= chance:
    return state
  if chance < 1:
    total = min(seconds, usual * rng.uniform(0.6, 1.4))
  count = max(1, round(total / SEGMENT))
  lengths = total / count * (1 + 0.25 * balanced(rng, count))
  starts = np.sort(rng.uniform(0, seconds - total, count)) + np.concatenate(
    [[0], np.cumsum(lengths)[:-1]]
  )
  liars = (VOICE_LIES, FACE_LIES) if turn < chance / 2 else (FACE_LIES, VOICE_LIES)
  for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
    state[(times >= start) & (times < start + length)] = liars[i % 2]
  return state


def balanced(rng, count):
  """Returns (count,) random numbers within [-1, 1] whose sum is 0."""
  numbers = rng.uniform(-0.5, 0.5, count)
  return numbers - numbers.mean()
