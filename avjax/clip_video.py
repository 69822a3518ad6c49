"""Writing a video with its sound, for the page and for the overlay: H.264 and AAC, which every browser plays."""

import contextlib
import fractions

import av
import cv2
import numpy as np

from avjax import plots
from data_prep.video import SAMPLE_RATE, SoundReader, address

CLOCK = 90_000  # ticks a second
ENCODER = {'preset': 'veryfast', 'crf': '28'}
COLOURS = {target: tuple(bytes.fromhex(colour[1:])) for target, colour in plots.COLOURS.items()}


class ClipWriter:
  """A context that takes the pictures of a video in order and writes them, smaller, at their own times with the video's sound.

  The first picture is at time 0. Memory does not grow with the length.
  """

  def __init__(self, path, source, timeline, longest):
    self.path, self.timeline, self.longest, self.count = path, timeline, longest, 0
    self.reader = SoundReader(source)
    self.sound, self.heard = iter(self.reader), 0

  def __enter__(self):
    self.container = av.open(address(self.path), 'w', format='mp4', options={'movflags': 'faststart'})
    self.picture = self.track = None
    return self

  def __exit__(self, kind, *exception):
    if kind is None:
      self.close()
    elif self.container:
      with contextlib.suppress(av.error.FFmpegError):  # the first error counts
        self.container.close()

  def open_streams(self, image):
    """The streams, once the size and whether there is sound are known. H.264 takes even sizes alone."""
    height, width = image.shape[:2]
    scale = min(self.longest / max(height, width), 1)
    self.size = [max(round(side * scale / 2), 1) * 2 for side in (width, height)]
    self.picture = self.container.add_stream('libx264', rate=fractions.Fraction(self.timeline.rate or 25).limit_denominator(1001), options=ENCODER)
    self.picture.width, self.picture.height = self.size
    self.picture.pix_fmt = 'yuv420p'
    self.picture.codec_context.time_base = fractions.Fraction(1, CLOCK)
    self.block = next(self.sound, None)
    if self.block is not None:
      self.track = self.container.add_stream('aac', rate=SAMPLE_RATE, layout='mono')
      self.track.bit_rate = 48_000

  def add(self, image):
    """The next picture, (H,W,3) uint8 RGB. OSError or another error of FFmpeg's where it cannot be written."""
    if self.picture is None:
      self.open_streams(image)
    if tuple(self.size) != image.shape[1::-1]:
      image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
    frame = av.VideoFrame.from_ndarray(image, format='rgb24')
    seconds = self.timeline.times[self.count]
    frame.pts, frame.time_base = round(seconds * CLOCK), fractions.Fraction(1, CLOCK)
    self.container.mux(self.picture.encode(frame))
    self.count += 1
    self.play(seconds)

  def play(self, until):
    """Writes the sound up to a time in seconds."""
    while self.block is not None:
      start = self.reader.start - self.timeline.start + self.heard / SAMPLE_RATE
      if start > until:
        return
      samples, self.heard = self.block, self.heard + len(self.block)
      early = max(round(-start * SAMPLE_RATE), 0)  # before the first picture
      if len(samples) > early:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None, early:]), format='s16', layout='mono')
        frame.sample_rate, frame.time_base = SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
        frame.pts = round(start * SAMPLE_RATE) + early
        self.container.mux(self.track.encode(frame))
      self.block = next(self.sound, None)

  def close(self):
    """Writes what is left; sound ends with the last picture."""
    if self.container:
      for stream in (self.picture, self.track):
        if stream is not None:
          self.container.mux(stream.encode())
      self.container.close()
      self.container = None


def draw(image, result, frame):
  """A picture with the box of the face and the values of a `predict.Prediction` drawn in."""
  image = image.copy()
  height, width = image.shape[:2]
  unit = max(height, width) / 640
  thick = max(round(2 * unit), 1)
  if not np.isnan(result.boxes[frame, 0]):
    left, top, wide, high = (result.boxes[frame] * [width, height, width, height]).round().astype(int)
    cv2.rectangle(image, (left, top), (left + wide, top + high), (255, 255, 255), thick)
  for row, target in enumerate(result.targets):
    value = getattr(result, target)[frame]
    place, reach = (round(16 * unit), round((28 + 30 * row) * unit)), round(60 * unit)
    text = f'{target} ' + ('--' if np.isnan(value) else f'{value:+.2f}')
    for colour, extra in (((0, 0, 0), 2 * thick), ((255, 255, 255), 0)):
      cv2.putText(image, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, colour, thick + extra, cv2.LINE_AA)
    if not np.isnan(value):  # a bar from the middle: to the right above 0
      middle, low = round(250 * unit), place[1]
      cv2.rectangle(image, (middle - reach, low - round(12 * unit)), (middle + reach, low), (0, 0, 0), -1)
      cv2.rectangle(image, (middle, low - round(10 * unit)), (middle + round(value * reach), low - round(2 * unit)), COLOURS[target], -1)
  return image
