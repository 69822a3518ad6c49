"""Makes damaged and odd variants of media files, from a seed."""

import concurrent.futures
import fractions
import itertools
import multiprocessing
import pathlib

import av
import numpy as np
from official_set import write_video
from other_files import tone_of, write_sounds

# What FFmpeg's muxers turn the films into.
ENDINGS = ('.mp4', '.mkv', '.avi', '.ts', '.mov', '.flv', '.nut', '.mpg', '.asf', '.3gp')
EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def make_films(folder):
  """Writes small films, in several containers and with sound that changes; returns their paths."""
  sound = tone_of(440, 44_100, seconds=2)[0][0]
  for ending in ('.mp4', '.avi', '.mkv', '.ts', '.mov'):
    write_video(folder / f'made{ending}', 50, sound)
  write_video(folder / 'varying.mp4', 50, sound, pts=np.cumsum(np.arange(50) % 7 * 10 + 20))
  parts = [tone_of(440, 44_100, 'stereo'), tone_of(440, 32_000, 'mono')]
  write_sounds(folder / 'changing.ts', [parts], films=(90,), codec='mp2')
  write_sounds(folder / 'tracks.mkv', [[tone_of(300)], [tone_of(900)]], films=(40, 120))
  write_sounds(folder / 'voice.wav', [[tone_of(440)]])
  return sorted(folder.iterdir())


def flip(data, rng):
  """Changes from 1 to 1000 bytes anywhere, or in the first or last 4 kB, where headers are."""
  data = bytearray(data)
  first, last = [(0, len(data)), (0, min(4096, len(data))), (max(len(data) - 4096, 0), len(data))][
    rng.integers(3)
  ]
  for place in rng.integers(first, last, 10 ** rng.integers(4)):
    data[place] ^= 1 << rng.integers(8)
  return bytes(data)


def set_number(data, rng):
  """Overwrites from 1 to 8 numbers of 1, 2 or 4 bytes by the smallest or largest ones."""
  data = bytearray(data)
  end = len(data) if rng.integers(2) else min(4096, len(data))
  for _ in range(2 ** rng.integers(4)):
    size, place = 2 ** int(rng.integers(3)), int(rng.integers(end))
    number = EXTREMES[rng.integers(len(EXTREMES))] % 256**size
    data[place : place + size] = number.to_bytes(size, ['big', 'little'][rng.integers(2)])
  return bytes(data)


def cut(data, rng):
  """Keeps the beginning, or leaves out a part, from nearly all to nearly nothing."""
  first, last = sorted(rng.integers(0, len(data), 2))
  return data[:last] if rng.integers(2) else data[:first] + data[last:]


def swap(data, rng):
  """Exchanges two parts, or repeats one."""
  a, b, c = sorted(rng.integers(0, len(data), 3))
  return data[:a] + data[b:c] + data[a:b] + data[c:] if rng.integers(2) else data[:c] + data[a:]


def boxes(data, rng):
  """Leaves out, repeats or resizes a box of an MP4; elsewhere it works on a random part."""
  names = (b'moov', b'trak', b'mdia', b'stbl', b'stsd', b'stts', b'stsz', b'stco', b'edts', b'tkhd',
           b'mdhd', b'hdlr', b'ctts', b'stsc', b'avcC', b'esds', b'mdat')  # fmt: skip
  places = [data.index(name) - 4 for name in names if data.find(name) >= 4]
  place = places[rng.integers(len(places))] if places else int(rng.integers(len(data)))
  size = min(max(int.from_bytes(data[place : place + 4], 'big'), 8), len(data) - place)
  box, action = data[place : place + size], rng.integers(4)
  if action == 0:
    box = b''
  elif action == 1:
    box += box
  elif action == 2:
    box = EXTREMES[rng.integers(len(EXTREMES))].to_bytes(4, 'big') + box[4:]
  else:
    box = box[:4] + b'free' + box[8:]
  return data[:place] + box + data[place + size :]


class Remuxer:
  """Calls `remux` in a child process, since FFmpeg's muxers abort on some of it."""

  def __enter__(self):
    self.pool = self.start()
    return self

  def __exit__(self, *exception):
    self.pool.shutdown()

  def start(self):
    """Returns a pool of one process."""
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context('spawn'))

  def __call__(self, source, target, seed):
    """Returns what `remux` returns; False where it aborts."""
    try:
      return self.pool.submit(remux, source, target, seed).result()
    except concurrent.futures.process.BrokenProcessPool:
      self.pool = self.start()
      return False


def remux(source, target, seed):
  """Writes the packets of a film into another container, with something changed on the way.

  Packets are dropped, exchanged or moved in time, the clock is wrong, or streams change places.
  Returns False where FFmpeg does not write such a file.
  """
  rng = np.random.default_rng(seed)
  action = rng.integers(6)
  try:
    with av.open(str(source)) as old, av.open(str(target), 'w') as new:
      tracks = [s for s in old.streams if s.type in ('video', 'audio') and s.codec_context]
      if action == 0:
        tracks = tracks[::-1]
      streams = {track.index: new.add_stream_from_template(track) for track in tracks}
      packets = [packet for packet in old.demux(tracks) if packet.dts is not None]
      if action == 1:
        packets = [packet for packet in packets if rng.random() > 0.1]
      if action == 2:
        for i, j in rng.integers(0, len(packets), (4, 2)):
          packets[i], packets[j] = packets[j], packets[i]
      jump = int(rng.integers(1, 10 ** rng.integers(1, 8)))
      for i, packet in enumerate(packets):
        if action == 3 and i > len(packets) // 2:
          packet.pts, packet.dts = (packet.pts or 0) + jump, packet.dts + jump
        if action == 4:
          packet.time_base = packet.time_base * fractions.Fraction(int(rng.integers(1, 4)))
        packet.stream = streams[packet.stream.index]
        new.mux(packet)
  except (av.error.FFmpegError, ValueError, OverflowError, RuntimeError):
    return False
  return True


BYTES = (flip, set_number, cut, swap, boxes)


def variants(films, folder, count, seed):
  """Yields (what was done, original, path) of `count` variants, each in the file of the last one.

  Args:
    films: paths of the originals.
    folder: where the variants are written.
    count: how many there are.
    seed: of everything random.
  """
  made = 0
  with Remuxer() as remuxer:
    for number in itertools.count():
      if made == count:
        return
      rng = np.random.default_rng([seed, number])
      original = films[rng.integers(len(films))]
      path, what = folder / f'variant{original.suffix}', ''
      if rng.random() < 0.4:  # in another container first, which may be damaged, too
        path = folder / f'variant{ENDINGS[rng.integers(len(ENDINGS))]}'
        if not remuxer(original, path, [seed, number, 1]):
          continue
        what = 'remux '
      else:
        path.write_bytes(pathlib.Path(original).read_bytes())
      if not what or rng.random() < 0.5:
        change = BYTES[rng.integers(len(BYTES))]
        path.write_bytes(change(path.read_bytes(), rng))
        what += change.__name__
      made += 1
      yield f'{number}: {what} of {original.name} in {path.suffix}', original, path
      path.unlink()
