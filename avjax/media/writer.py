"""Writes a video with its sound, for the page and for the overlay.

It is H.264 and AAC, which every browser plays.
"""

import contextlib
import fractions
import os
import pathlib

import av
import cv2
import numpy as np

from avjax.media.decoder import DecodedSound
from avjax.media.mixing import SAMPLE_RATE
from avjax.media.video import SoundReader, Timeline

CLOCK = 90_000  # ticks of the frames' times in a second
ENCODER = {'preset': 'veryfast', 'crf': '28'}


class ClipWriter:
  """Writes a smaller copy of a video, with the same times and its sound. A context manager.

  It takes the frames in order; the first one is at time 0. Memory does not grow with the length.
  Where the file cannot be written, `error` says why, and what follows is dropped: the predictions
  are worth more than the copy.

  Args:
    path: the file to write.
    sound: the sound of the video, a SoundReader or DecodedSound, which is read once more.
    timeline: the Timeline of the video.
    longest: most pixels of the longer side.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    sound: SoundReader | DecodedSound,
    timeline: Timeline,
    longest: int,
  ):
    self.path, self.timeline, self.longest, self.count = path, timeline, longest, 0
    self.reader, self.error = sound, None
    self.sound, self.heard = iter(sound), 0

  def __enter__(self):
    self.container = self.video = self.track = None
    with self.keeping_error():
      # FFmpeg would take the 12 of a relative path 12:30/clip.mp4 for the name of a protocol.
      path = str(pathlib.Path(self.path).absolute())
      options = {'movflags': 'faststart', 'protocol_whitelist': 'file'}
      self.container = av.open(path, 'w', format='mp4', options=options)
    return self

  def __exit__(self, kind, *exception):
    if kind is None and self.error is None:
      with self.keeping_error():
        self.close()
    if self.container:
      # The error that came first is the one to report.
      with contextlib.suppress(av.error.FFmpegError, OSError):
        self.container.close()

  @contextlib.contextmanager
  def keeping_error(self):
    """Keeps the error that FFmpeg or the system raises in `error`, in words."""
    try:
      yield
    except (av.error.FFmpegError, OSError) as error:
      self.error = error.strerror or str(error)

  def open_streams(self, image):
    """Opens the streams, once the size of the frames is known.

    H.264 takes only even sizes.
    """
    height, width = image.shape[:2]
    scale = min(self.longest / max(height, width), 1)
    self.size = [max(round(side * scale / 2), 1) * 2 for side in (width, height)]
    rate = fractions.Fraction(self.timeline.rate or 25).limit_denominator(1001)
    self.video = self.container.add_stream('libx264', rate=rate, options=ENCODER)
    self.video.width, self.video.height = self.size
    self.video.pix_fmt = 'yuv420p'
    self.video.codec_context.time_base = fractions.Fraction(1, CLOCK)
    self.block = next(self.sound, None)
    if self.block is not None:
      self.track = self.container.add_stream('aac', rate=SAMPLE_RATE, layout='mono')
      self.track.bit_rate = 48_000

  def add(self, image: np.ndarray) -> None:
    """Writes the next frame, (H,W,3) uint8 RGB."""
    if self.error is None:
      with self.keeping_error():
        self.write(image)

  def write(self, image):
    """Writes the next frame and the sound up to it."""
    if self.video is None:
      self.open_streams(image)
    if tuple(self.size) != image.shape[1::-1]:
      image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
    frame = av.VideoFrame.from_ndarray(image, format='rgb24')
    seconds = self.timeline.times[self.count]
    frame.pts, frame.time_base = round(seconds * CLOCK), fractions.Fraction(1, CLOCK)
    self.container.mux(self.video.encode(frame))
    self.count += 1
    self.play(seconds)

  def play(self, until):
    """Writes the sound up to a time in seconds."""
    while self.block is not None:
      start = self.reader.start - self.timeline.start + self.heard / SAMPLE_RATE
      if start > until:
        return
      samples, self.heard = self.block, self.heard + len(self.block)
      early = max(round(-start * SAMPLE_RATE), 0)  # samples before the first frame are left out
      if len(samples) > early:
        frame = av.AudioFrame.from_ndarray(
          np.ascontiguousarray(samples[None, early:]), format='s16', layout='mono'
        )
        frame.sample_rate, frame.time_base = SAMPLE_RATE, fractions.Fraction(1, SAMPLE_RATE)
        frame.pts = round(start * SAMPLE_RATE) + early
        self.container.mux(self.track.encode(frame))
      self.block = next(self.sound, None)

  def close(self):
    """Writes what the encoders still hold; the sound ends with the last frame."""
    for stream in (self.video, self.track):
      if stream is not None:
        self.container.mux(stream.encode())
    self.container.close()
    self.container = None
