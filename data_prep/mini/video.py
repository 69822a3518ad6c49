"""Makes one synthetic video: its people, frames, sound, crops, annotations and latents.

A video may have one quirk, something awkward that also occurs in Aff-Wild2.
"""

import dataclasses
import fractions
import pathlib

import cv2
import numpy as np

from data_prep.mini import face, latents, voice
from data_prep.mini.film import write_film

MOST_FRAMES = 24  # per second that was asked for: videos of higher rates are shorter instead
SHORT, TINY = 170, 40  # frames
BROKEN_FRAME = 26  # its crop is half a file
GOLDEN = 0.6180339887  # its multiples modulo 1 are spread evenly
JPEG = [cv2.IMWRITE_JPEG_QUALITY, 90]


@dataclasses.dataclass(frozen=True)
class Video:
  """Describes one video of the table of videos; its quirk is '' or one of the names used below."""

  name: str
  partition: str  # 'train', 'validation' or 'test'
  fps: float
  ending: str
  quirk: str = ''

  @property
  def clips(self):
    """The names of the clips, one for each person."""
    return (
      [f'{self.name}_left', f'{self.name}_right'] if self.quirk == 'two_subjects' else [self.name]
    )

  @property
  def rate(self):
    """Frames per second, as a Fraction."""
    return fractions.Fraction(round(self.fps * 1001), 1001).limit_denominator(1001)

  def frame_count(self, seconds):
    """Returns how many frames it has where a length of `seconds` is asked for."""
    most = {'short': SHORT, 'tiny': TINY}.get(self.quirk, 10**6)
    return min(most, round(min(self.fps, MOST_FRAMES) * seconds))


@dataclasses.dataclass(frozen=True)
class Places:
  """Where a video's files go; annotations is None for the test partition.

  by_frame: whether annotations are CSV files with a column of frames, and empty where Aff-Wild2 has
    -5.
  """

  videos: pathlib.Path
  crops: pathlib.Path
  annotations: pathlib.Path | None
  truth: pathlib.Path
  by_frame: bool = False


def make_video(index, video, places, seed, seconds, dials):
  """Invents the index-th Video, about `seconds` long, and writes its files to its Places.

  These are the video, and for each person in it the crops, the annotation and the latents.
  """
  cv2.setNumThreads(1)  # a process for each video keeps the cores busy
  n = video.frame_count(seconds)
  ticks, time_base = clock(video, n, latents.generator(seed, 'clock', video.name))
  times = ticks * float(time_base)
  seconds = times[-1] + 1 / video.fps

  people = [
    Person(clip, seed, seconds, dials, turn=(2 * index + side) * GOLDEN % 1)
    for side, clip in enumerate(video.clips)
  ]
  speech, turns = people[0].speech, np.ones(len(people[0].speech.times), bool)
  if len(people) == 2:
    speech, turns = voice.take_turns(speech, people[1].speech)
  speaks = [turns, ~turns][: len(people)]
  noisy = sum(person.noisy * spoken for person, spoken in zip(people, speaks, strict=True))
  rng = latents.generator(seed, 'sound', video.name)
  wave = voice.synthesise(rng, speech, noisy)

  looks = [person.look(times, spoken) for person, spoken in zip(people, speaks, strict=True)]
  for person, spoken in zip(people, speaks, strict=True):
    (places.crops / person.clip).mkdir(parents=True, exist_ok=True)
    write_truth(places.truth / f'{person.clip}.npz', person, times, spoken)
    if places.annotations:
      write_annotation(places, video, person, times)
  images = film(video, places, people, looks, n)
  frame_delay, sound_delay = {'late_video': (0.3, 0.0), 'late_sound': (0.0, 0.4)}.get(
    video.quirk, (0.0, 0.0)
  )
  ticks = ticks + round(frame_delay / float(time_base))
  wave = cut_sound(video, wave, speech.times[0], seconds, since=sound_delay - frame_delay)
  size = (len(people) * face.WIDTH, face.HEIGHT)
  path = places.videos / f'{video.name}{video.ending}'
  write_film(
    path,
    size,
    images,
    ticks=ticks,
    rate=video.rate,
    time_base=time_base,
    sound=wave,
    sound_start=sound_delay,
    stereo=video.quirk != '',
  )


class Person:
  """Invents a person: what they feel, how they look and how they speak.

  All of it follows from the seed and the clip's name.
  """

  def __init__(self, clip, seed, seconds, dials, turn):
    """seconds: length of the video; turn as in latents.conflict."""

    def rng(role):
      return latents.generator(seed, role, clip)

    self.clip, self.kappa, self.move = clip, dials.kappa, rng('move')
    self.performance = latents.perform(rng('feel'), seconds, dials, turn)
    self.identity = face.invent_identity(rng('identity'))
    self.speech = voice.speak(rng('speak'), voice.invent_speaker(rng('speaker')), self.performance)
    lying = self.performance.at(self.speech.times).state == latents.VOICE_LIES
    self.noisy = 0.4 * dials.kappa * lying

  def look(self, times, spoken):
    """Returns the face.Look at some times (N,).

    spoken: (C,), whether it is this person's turn to speak.
    """
    shown = self.performance.at(times)
    envelope = np.interp(times, self.speech.times, self.speech.envelope * spoken)
    return face.express(
      self.move, shown.face, times, envelope, self.kappa * (shown.state == latents.FACE_LIES)
    )


def clock(video, n, rng):
  """Returns when the n frames are shown, (n,) int from 0, and the unit in seconds."""
  if video.quirk != 'variable_rate':
    return np.arange(n), 1 / video.rate
  # Milliseconds per frame, which change every ten frames.
  pace = np.repeat(rng.choice([33, 42, 67], n // 10 + 1), 10)[: n - 1]
  return np.concatenate([[0], np.cumsum(pace + rng.integers(-4, 5, n - 1))]), fractions.Fraction(
    1, 1000
  )


def film(video, places, people, looks, n):
  """Yields the raw frames, with all people side by side, and writes the crops cut from them."""
  missing = missing_faces(n) if video.quirk == 'missing_faces' else ()
  for i in range(n):
    images = [
      face.draw(person.identity, look, i) for person, look in zip(people, looks, strict=True)
    ]
    for person, look, image in zip(people, looks, images, strict=True):
      if i in missing:
        continue
      x, y = look.x[i], look.y[i]
      data = cv2.imencode('.jpg', image[y : y + face.CROP, x : x + face.CROP], JPEG)[1].tobytes()
      if video.quirk == 'broken_crop' and i + 1 == BROKEN_FRAME:
        data = data[: len(data) // 2]
      (places.crops / person.clip / f'{i + 1:05d}.jpg').write_bytes(data)
    yield images[0] if len(images) == 1 else np.hstack(images)


def missing_faces(n):
  """Returns the indices of frames without a crop.

  These are the start, two runs (one of them to the end), and a single frame.
  """
  return {*range(8), *range(n // 3, n // 3 + 20), n // 2, *range(n - 5, n)}


def write_annotation(places, video, person, times):
  """Writes valence and arousal to three decimals, one line a frame."""
  rows = len(times) + {'long_annotation': 2, 'short_annotation': -1}.get(video.quirk, 0)
  times = np.concatenate([times, times[-1] + np.arange(1, 3) / video.fps])[:rows]
  cells = [[f'{value:.3f}' for value in pair] for pair in person.performance.at(times).va]
  if video.quirk == 'gaps':
    for row, columns in annotation_gaps(rows):
      for column in columns:
        cells[row][column] = '' if places.by_frame else '-5'
  header, ending = 'valence,arousal', '.txt'
  if places.by_frame:
    header, ending = f'frame,{header}', '.csv'
    cells = [[f'{frame}', *pair] for frame, pair in enumerate(cells, 1)]
  path = places.annotations / f'{person.clip}{ending}'
  path.write_text('\n'.join([header, *map(','.join, cells)]) + '\n')


def annotation_gaps(n):
  """Yields (row, columns) of what is not annotated.

  These are the start, a run, a single row, and rows that lack one of the two values.
  """
  both = (0, 1)
  yield from ((row, both) for row in (*range(12), *range(n // 2, n // 2 + 15), n // 4))
  yield from ((row, (0,)) for row in range(2 * n // 3, 2 * n // 3 + 4))
  yield from ((row, (1,)) for row in range(3 * n // 4, 3 * n // 4 + 3))


def write_truth(path, person, times, spoken):
  """Writes the Performance at the n frames (see latents.py), and `speaks`.

  speaks: (n,) bool, whether it is this person's turn.
  """
  shown = person.performance.at(times)
  turn = np.interp(times, person.speech.times, spoken.astype(float)) > 0.5
  np.savez(
    path,
    speaks=turn,
    **{field.name: getattr(shown, field.name) for field in dataclasses.fields(shown)},
  )


def cut_sound(video, wave, begins, seconds, since):
  """Returns a wave from time `since` to the end of the video, changed by the video's quirk.

  The given wave starts at time `begins`. Without sound it is None.
  """
  first, last = (round((at - begins) * voice.RATE) for at in (since, seconds))
  wave = wave[first:last]
  if video.quirk == 'no_sound':
    return None
  if video.quirk == 'silent':
    return np.zeros_like(wave)
  return wave[: round(0.8 * len(wave))] if video.quirk == 'short_sound' else wave
