"""Decodes in a child process, so that a file on which a decoder crashes ends that process only.

Parent and child exchange messages: a line of JSON, and behind it the bytes of an array. The parent
asks for one item of a stream after the other, and the child decodes the next one while the parent
uses the last.
"""

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator

import cv2
import numpy as np

from avjax.bounded import NOTHING, import_path, read_message, write_message
from avjax.errors import InputError
from avjax.media import bounds, video
from avjax.media.container import Contents, read_contents

# The child finds packages where its parent does; it is started with -P, so that until then it does
# not look in the current folder, which may be a stranger's.
START = (
  'import json, sys; sys.path = json.loads(sys.argv[1]); import avjax.media.decoder as d; d.serve()'
)
# NumPy would start a thread for each core, whose stacks count as memory.
ONE_THREAD = {'OPENBLAS_NUM_THREADS': '1', 'OMP_NUM_THREADS': '1'}


class Decoder:
  """Reads media files in a child process. A context manager.

  The child starts at once, is used for one file after the other, and is replaced where it has
  died. Its memory and its time are limited as `bounds` says. All methods raise InputError where a
  file cannot be read, or where the child dies of it.
  """

  def __init__(self):
    self.numbers, self.left = itertools.count(), False
    self.start()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.left = True  # another thread may still be reading
    self.stop()

  def start(self):
    """Starts the child."""
    self.waiting = {}  # {stream: messages that have come while another stream was read}
    self.child = subprocess.Popen(
      [sys.executable, '-P', '-c', START, json.dumps(import_path())],
      env=os.environ | ONE_THREAD,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,  # the C library writes there before a crash
    )

  def stop(self):
    """Ends the child."""
    self.child.kill()
    self.child.wait()
    for pipe in (self.child.stdin, self.child.stdout):
      with contextlib.suppress(OSError):
        pipe.close()

  def contents(self, path, film: int | None = None, sound: int | None = None) -> Contents:
    """Returns what `container.read_contents` does."""
    ((header, _),) = self.items('contents', path, film=film, sound=sound)
    return Contents(**header)

  def frames_in_header(self, path) -> int:
    """Returns what `video.frames_in_header` does."""
    ((header, _),) = self.items('frames_in_header', path)
    return header['count']

  def timeline(self, path, film: int | None = None) -> video.Timeline:
    """Returns what `video.read_timeline` does."""
    ((header, times),) = self.items('timeline', path, film=film)
    return video.Timeline(times, **header)

  def frames(self, path, longest: int, film: int | None, turn: int) -> Iterator[np.ndarray]:
    """Yields what `video.read_frames` does."""
    for _, image in self.items('frames', path, longest=longest, film=film, turn=turn):
      yield image

  def sound(self, path, track: int | None = None, until: float | None = None) -> 'DecodedSound':
    """Returns what behaves as video.SoundReader."""
    return DecodedSound(self, path, track, until)

  def items(self, kind: str, path: str | os.PathLike[str], **options) -> Iterator[tuple]:
    """Yields the items (header, array) of what SOURCES[kind] makes of a file."""
    if self.left:
      raise InputError(f'{path} is not read to its end')
    if self.child.poll() is not None:
      self.stop()
      self.start()
    number, child = next(self.numbers), self.child
    self.waiting[number] = collections.deque()
    try:
      self.ask({'stream': number, 'kind': kind, 'path': os.fspath(path), 'options': options})
      while True:
        header, array = self.receive(number, path)
        if header is None:
          return
        self.ask({'stream': number})
        yield header, array
    finally:
      if child is self.child:
        del self.waiting[number]
        self.ask({'stream': number, 'close': True})

  def ask(self, message):
    """Sends a message to the child."""
    # A child that has died does not answer, which `receive` notices.
    with contextlib.suppress(OSError, ValueError):
      self.child.stdin.write(json.dumps(message).encode() + b'\n')
      self.child.stdin.flush()

  def receive(self, number, path):
    """Returns the next item (header, array) of a stream; (None, None) at its end."""
    while not self.waiting[number]:
      message = read_message(self.child.stdout)
      if message is None:
        raise InputError(f'{path} cannot be decoded: {self.death()}; convert it or leave it out')
      if message[0]['stream'] in self.waiting:  # else that stream has been left early
        self.waiting[message[0]['stream']].append(message)
    message, array = self.waiting[number].popleft()
    if 'error' in message:
      raise InputError(message['error'])
    if 'bug' in message:
      raise RuntimeError(message['bug'])
    return message['header'], array

  def death(self) -> str:
    """Returns how the child has died."""
    status = self.child.wait()
    if status == -getattr(signal, 'SIGKILL', 0):
      return 'its decoder was killed, probably for lack of memory'
    if status == -getattr(signal, 'SIGPROF', 0):
      return f'its decoder got no further in {bounds.MOST_SECONDS} s'
    names = {-number: number.name for number in signal.Signals}
    return f'its decoder crashed ({names.get(status, status)})'


class DecodedSound:
  """Iterates over the blocks of a sound track, with the attributes of video.SoundReader."""

  def __init__(self, decoder, path, track, until):
    self.decoder, self.path, self.options = decoder, path, {'track': track, 'until': until}

  def __iter__(self) -> Iterator[np.ndarray]:
    for header, block in self.decoder.items('sound', self.path, **self.options):
      vars(self).update(header)
      if len(block):
        yield block


# What runs in the child.


def contents(path, **options):
  yield dataclasses.asdict(read_contents(path, **options)), NOTHING


def frames_in_header(path):
  yield {'count': video.frames_in_header(path)}, NOTHING


def timeline(path, film):
  found = video.read_timeline(path, film)
  names = ('start', 'rate', 'container_duration')
  yield {name: getattr(found, name) for name in names}, found.times


def frames(path, **options):
  for image in video.read_frames(path, **options):
    yield {}, image


def sound(path, **options):
  reader = video.SoundReader(path, **options)
  for block in reader:
    yield {'start': reader.start}, block
  names = ('start', 'gaps', 'count', 'peak', 'remarks')
  yield {name: getattr(reader, name) for name in names}, NOTHING


SOURCES = {
  'contents': contents,
  'frames_in_header': frames_in_header,
  'timeline': timeline,
  'frames': frames,
  'sound': sound,
}


def serve() -> None:
  """Answers what a Decoder asks, until it is gone."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
  cv2.setNumThreads(1)
  with os.fdopen(os.dup(sys.stdout.fileno()), 'wb') as replies:
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may come between the messages
    streams = {}
    for line in sys.stdin.buffer:
      request = json.loads(line)
      number = request['stream']
      if 'close' in request:
        streams.pop(number).close()
        continue
      if 'kind' in request:
        bounds.limit_memory(request['path'])
        streams[number] = SOURCES[request['kind']](request['path'], **request['options'])
      message, array = answer(streams[number])
      write_message(replies, {'stream': number, **message}, array)


def answer(stream):
  """Returns (message, array) for the next item of a stream."""
  bounds.limit_time()
  try:
    header, array = next(stream, (None, NOTHING))
    return {'header': header}, array
  except InputError as error:
    return {'error': str(error)}, NOTHING
  except MemoryError:  # of NumPy; `container.opened` reports that of FFmpeg, with the file's name
    return {'error': f'reading the video takes {bounds.TOO_MUCH_MEMORY}'}, NOTHING
  except Exception:
    return {'bug': traceback.format_exc()}, NOTHING
