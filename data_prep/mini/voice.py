"""Synthesises a voice that shows valence and arousal.

It has harmonics under two formants, in syllables and phrases. Arousal raises level, pitch, speed
and brightness. Valence raises the formants and, a little, the pitch; low valence makes the pitch
tremble.
"""

import dataclasses

import numpy as np

RATE = 16_000  # samples a second
CONTROL_HZ = 100  # rate of the points of a Speech, which are interpolated linearly
HARMONICS = 26
FLOOR_DB = -55


@dataclasses.dataclass(frozen=True)
class Speaker:
  """Describes a person's voice.

  pitch: in Hz at rest. tract: formants relative to a man's. breath: relative level of the noise.
  """

  pitch: float
  tract: float
  breath: float


@dataclasses.dataclass(frozen=True)
class Speech:
  """Controls a voice at C points, CONTROL_HZ of them per second.

  times (C,) seconds from the first frame; envelope (C,) in [0, 1], how open the mouth is; pitch
  (C,) Hz; level (C,) dB; tilt (C,) exponent with which the harmonics fall off; formants (C,2) Hz;
  breath (C,) relative level of the noise.
  """

  times: np.ndarray
  envelope: np.ndarray
  pitch: np.ndarray
  level: np.ndarray
  tilt: np.ndarray
  formants: np.ndarray
  breath: np.ndarray


def invent_speaker(rng):
  """Returns a random Speaker with a low or a high voice."""
  low = rng.random() < 0.5
  return Speaker(
    pitch=rng.uniform(105, 130) if low else rng.uniform(170, 205),
    tract=rng.uniform(0.97, 1.03) + (0 if low else 0.12),
    breath=rng.uniform(0.05, 0.12),
  )


def speak(rng, speaker, performance):
  """Returns the Speech of a person whose voice shows performance.voice."""
  start, end = performance.times[0], performance.times[-1]
  times = np.arange(start, end, 1 / CONTROL_HZ)
  valence, arousal = performance.at(times).voice.T
  syllable = np.cumsum(4.2 + 1.8 * arousal) / CONTROL_HZ
  phrases = np.zeros(len(times))
  at = -rng.uniform(0, 1)
  while at < end - start:
    length = rng.uniform(1.5, 3.5)
    phrases[int(max(at, 0) * CONTROL_HZ) : int((at + length) * CONTROL_HZ)] = 1
    at += length + rng.uniform(0.2, 0.45)
  phrases = np.convolve(phrases, np.full(9, 1 / 9), 'same')
  envelope = phrases * (0.25 + 0.75 * (0.5 - 0.5 * np.cos(2 * np.pi * syllable)))
  vowels = rng.uniform((380, 1000), (720, 1900), (int(syllable[-1]) + 2, 2))
  centre = syllable.astype(int)
  tremble = np.repeat(rng.normal(0, 1, len(times) // 4 + 1), 4)[: len(times)]
  return Speech(
    times,
    envelope,
    pitch=speaker.pitch
    * 2 ** (0.45 * arousal + 0.12 * valence + tremble * (0.01 + 0.06 * np.maximum(-valence, 0))),
    level=-27 + 10 * arousal,
    tilt=1.5 - 0.6 * arousal,
    formants=vowels[centre] * speaker.tract * (1 + 0.14 * valence)[:, None],
    breath=speaker.breath * (1.2 - arousal),
  )


def take_turns(one, other, seconds=3.0):
  """Returns the Speech of two people, who take turns of `seconds`, as if it were one voice.

  It also returns (C,) bool, True where the first one speaks.
  """
  first = np.floor(one.times / seconds) % 2 == 0
  fields = [
    np.where(first if a.ndim == 1 else first[:, None], a, b)
    for a, b in zip(dataclasses.astuple(one)[1:], dataclasses.astuple(other)[1:], strict=True)
  ]
  return Speech(one.times, *fields), first


def synthesise(rng, speech, noisy):
  """Computes the sound of a Speech.

  Args:
    rng: random generator of the noise.
    speech: a Speech of C points.
    noisy: (C,) in [0, 1], how much noise covers the voice; 1 is noise as loud as the voice.

  Returns (C * RATE / CONTROL_HZ,) float32 within [-1, 1], sampled at RATE; the first sample is at
  speech.times[0].
  """
  step = RATE // CONTROL_HZ
  ramp = np.arange(step, dtype=np.float32) / step

  def stretch(control):  # linear interpolation, 20 times as fast as np.interp
    control = control.astype(np.float32)
    return (control[:, None] + np.diff(control, append=control[-1:])[:, None] * ramp).ravel()

  k = np.arange(1, HARMONICS + 1)
  hertz = speech.pitch[:, None] * k
  bell = sum(
    gain * np.exp(-(((hertz - speech.formants[:, i, None]) / width) ** 2))
    for i, (gain, width) in enumerate(((1.0, 180), (0.6, 260)))
  )
  amplitude = k ** -speech.tilt[:, None] * (0.12 + bell) * (hertz < 0.45 * RATE)
  power = 10 ** (speech.level / 20) * speech.envelope
  amplitude *= (power * np.sqrt(2 / (amplitude**2).sum(axis=1)))[:, None]

  turns = np.cumsum(stretch(speech.pitch), dtype=np.float64) / RATE
  phase = (2 * np.pi * (turns % 1)).astype(np.float32)
  # sin(k x) = 2 cos(x) sin((k - 1) x) - sin((k - 2) x) takes two operations a harmonic instead of a
  # sine.
  before, sine, twice_cosine = np.zeros_like(phase), np.sin(phase), 2 * np.cos(phase)
  wave = np.zeros_like(phase)
  for i in range(HARMONICS):
    wave += stretch(amplitude[:, i]) * sine
    before, sine = sine, twice_cosine * sine - before
  noise = rng.standard_normal(len(wave) + 1, np.float32)
  noise = (noise[1:] - 0.6 * noise[:-1]) / 1.17  # brighter than white, of unit power
  wave += noise * stretch(
    power * speech.breath + 10 ** (speech.level / 20) * noisy + 10 ** (FLOOR_DB / 20)
  )
  return np.clip(wave, -1, 1)
