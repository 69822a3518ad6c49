"""Makes films as other people's cameras and programs do, and reads films as predict does."""

import fractions
import struct
import zlib

import av
import numpy as np

from avjax.errors import InputError
from avjax.inference.source import open_source
from avjax.media.decoder import Decoder

# Weights of red, green and blue in the luma of a matrix, and FFmpeg's number of it.
MATRICES = {
  '601': ((0.299, 0.587, 0.114), 6),
  '709': ((0.2126, 0.7152, 0.0722), 1),
  '2020': ((0.2627, 0.678, 0.0593), 9),
}
# From RGB to XYZ, for the primaries of BT.709 and BT.2020.
BT709 = np.array(
  [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175],
   [0.0193339, 0.119192, 0.9503041]]
)  # fmt: skip
BT2020 = np.array(
  [[0.636958, 0.1446169, 0.168881], [0.2627002, 0.6779981, 0.0593017], [0, 0.0280727, 1.0609851]]
)
SDR_WHITE = 203.0  # cd/m2 at which BT.2408 shows the white of SDR
CURVES = {'PQ': 16, 'HLG': 18}  # FFmpeg's numbers


def png(*chunks):
  """Returns a PNG of these chunks, (kind, content), each with its checksum."""
  found = b'\x89PNG\r\n\x1a\n'
  for kind, content in chunks:
    checksum = struct.pack('>I', zlib.crc32(kind + content))
    found += struct.pack('>I', len(content)) + kind + content + checksum
  return found


def tone_of(hertz, rate=16_000, layout='mono', seconds=1):
  """Returns (samples, rate, layout) of a tone, equal in all channels, for `write_sounds`."""
  channels = av.AudioLayout(layout).nb_channels
  wave = 0.3 * np.sin(2 * np.pi * hertz * np.arange(rate * seconds) / rate)
  return np.tile(wave, (channels, 1)), rate, layout


def write_sounds(path, tracks, films=(), languages=(), codec='pcm_s16le', jump=0):
  """Writes sound tracks, and films of one second of a grey each.

  Args:
    path: the file.
    tracks: for each track its parts, one after the other: (samples (C,n) in [-1, 1], rate,
      layout). The stream is declared as its first part is.
    films: the greys.
    languages: of the sound tracks.
    codec: of the sound; one whose packets say what they are, such as MP2, may have several parts.
    jump: seconds by which the second half of each track comes later.
  """
  with av.open(str(path), 'w') as container:
    greys = [container.add_stream('mpeg4', rate=25) for _ in films]
    sounds = []
    for i, ((_, rate, layout), *_) in enumerate(tracks):
      sounds.append(container.add_stream(codec, rate=rate, layout=layout))
      if i < len(languages):
        sounds[-1].metadata['language'] = languages[i]
    for stream in greys:
      stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    for stream, grey in zip(greys, films, strict=True):
      for _ in range(25):
        image = np.full((48, 64, 3), grey, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format='rgb24')))
      container.mux(stream.encode())
    for stream, parts in zip(sounds, tracks, strict=True):
      start = fractions.Fraction(0)
      for part in parts:
        write_part(container, stream, part, codec, start, jump)
        start += fractions.Fraction(part[0].shape[1], part[1])


def write_part(container, stream, part, codec, start, jump):
  """Writes a part of a sound track, encoded by itself, from `start` in seconds."""
  samples, rate, layout = part
  clock = fractions.Fraction(1, rate)
  encoder = av.CodecContext.create(codec, 'w')
  encoder.sample_rate, encoder.format, encoder.layout = rate, 's16', layout
  encoder.time_base = clock
  pcm = np.rint(samples * 32767).astype(np.int16)
  size = 1152 if codec == 'mp2' else 800
  for first in range(0, pcm.shape[1], size):
    block = np.ascontiguousarray(pcm[:, first : first + size].T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(block, format='s16', layout=layout)
    late = jump if first >= pcm.shape[1] // 2 else 0
    frame.sample_rate, frame.time_base, frame.pts = (
      rate,
      clock,
      round((start + late) * rate) + first,
    )
    write_packets(container, stream, encoder.encode(frame))
  write_packets(container, stream, encoder.encode(None))


def write_packets(container, stream, packets):
  """Writes packets of another encoder into a stream."""
  for packet in packets:
    packet.stream = stream
    container.mux(packet)


def yuv_film(path, image, matrix, full_range, states):
  """Writes a film of one frame in H.264, in 8 bits.

  Args:
    path: the file.
    image: (H,W,3) uint8 RGB.
    matrix: a key of MATRICES.
    full_range: whether luma has the range 0 to 255, not 16 to 235.
    states: whether the file states range and matrix.
  """
  weights, number = MATRICES[matrix]
  y, cb, cr = luma_chroma(image / 255, weights)
  planes = [255 * y, 128 + 255 * cb, 128 + 255 * cr]
  if not full_range:
    planes = [16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]
  colours = {'colorspace': number, 'color_range': 2 if full_range else 1} if states else {}
  write_planes(path, 'libx264', {'crf': '1'}, 'yuv420p', planes, colours)


def hdr_film(path, image, curve, primaries=9):
  """Writes a film of one frame in HEVC and BT.2100, in 10 bits, as phones do.

  Args:
    path: the file.
    image: (H,W,3) uint8 RGB in SDR; its white is shown at 203 cd/m2.
    curve: a key of CURVES.
    primaries: what the file says of them, in FFmpeg's numbers: 9 is BT.2020, 2 nothing.
  """
  light = (image / 255) ** 2.4 @ (np.linalg.inv(BT2020) @ BT709).T * SDR_WHITE
  weights, number = MATRICES['2020']
  encoded = (pq if curve == 'PQ' else hlg)(light, np.array(weights))
  y, cb, cr = luma_chroma(encoded, weights)
  planes = [64 + 876 * y, 512 + 896 * cb, 512 + 896 * cr]
  colours = {
    'colorspace': number, 'color_range': 1, 'color_primaries': primaries,
    'color_trc': CURVES[curve],
  }  # fmt: skip
  options = {'crf': '4', 'x265-params': 'log-level=none'}
  write_planes(path, 'libx265', options, 'yuv420p10le', planes, colours)


def pq(light, weights):
  """Encodes light, in cd/m2, as SMPTE ST 2084 does."""
  del weights
  power = np.clip(light / 10_000, 0, 1) ** (2610 / 16384)
  return ((3424 + 2413 * 32 * power) / (4096 + 2392 * 32 * power)) ** (2523 / 32)


def hlg(light, weights):
  """Encodes light, in cd/m2, as ARIB STD-B67 does for a screen of 1000 cd/m2."""
  shown = np.clip(light / 1000, 0, 1)
  scene = shown / np.maximum((shown @ weights) ** (1 / 6), 1e-9)[..., None]
  root, a, b, c = np.sqrt(3 * scene), 0.17883277, 0.28466892, 0.55991073
  return np.where(scene <= 1 / 12, root, a * np.log(np.maximum(12 * scene - b, 1e-9)) + c)


def luma_chroma(image, weights):
  """Returns luma (H,W) in [0, 1] and both chromas in [-.5, .5]."""
  y = image @ np.array(weights)
  return (
    y,
    (image[..., 2] - y) / (2 - 2 * weights[2]),
    (image[..., 0] - y) / (2 - 2 * weights[0]),
  )


def write_planes(path, codec, options, form, planes, colours):
  """Writes one frame of 4:2:0 from planes of full size, with the colour tags `colours`."""
  height, width = planes[0].shape
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=25, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, form
    frame = av.VideoFrame(width, height, form)
    for owner in (stream.codec_context, frame):
      for name, value in colours.items():
        setattr(owner, name, value)
    type_ = np.uint16 if '10' in form else np.uint8
    halves = [plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for plane in planes[1:]]
    for target, values in zip(frame.planes, [planes[0], *halves], strict=True):
      rows = np.zeros((target.height, target.line_size // type_().itemsize), type_)
      rows[:, : values.shape[1]] = np.rint(values)
      target.update(rows.tobytes())
    container.mux(stream.encode(frame))
    container.mux(stream.encode())


def read_film(path):
  """Opens a file as predict does; returns its source and all frames.

  Raises InputError where fewer frames come than there are times, as predict does.
  """
  with Decoder() as decoder:
    source = open_source(decoder, path, film=None, sound=None, turn=0)
    images = list(source.frames(64))
  if len(images) < len(source.timeline.times):
    raise InputError(f'{path} is damaged')
  return source, images
