"""Tests small files that claim to be long, large or fast: none takes the machine.

The right outcome of each is stated: one line that refuses it, or what an honest file would give.
"""

import fractions
import struct
import zlib

import av
import numpy as np
import pytest
from official_set import tone, write_video
from other_files import png, read_film, tone_of

from avjax.errors import InputError
from avjax.media import audio, bounds, video

pytestmark = pytest.mark.attack('films and sound that claim any length, size or rate')

YEARS = 3 * 365 * 86_400  # seconds in three years


# Sound.


def wav(path, rate, channels=1, samples=100_000):
  """Writes noise in 16 bits with any rate and number of channels in its header."""
  noise = np.random.default_rng(0).integers(-9000, 9000, samples * channels, np.int16).tobytes()
  form = struct.pack('<IHHIIHH', 16, 1, channels, rate, 2 * channels * 16_000, 2 * channels, 16)
  data = b'WAVEfmt ' + form + b'data' + struct.pack('<I', len(noise)) + noise
  path.write_bytes(b'RIFF' + struct.pack('<I', len(data)) + data)


@pytest.mark.parametrize('rate', [1, 10, 999, 5_000_000, 2**31 - 1])
def test_a_rate_of_no_recording_is_refused(tmp_path, rate):
  wav(tmp_path / 'voice.wav', rate)
  with pytest.raises(InputError, match=f'has sound of {rate:,} samples a second; 1,000 to 4,000,0'):
    read_film(tmp_path / 'voice.wav')
  wav(tmp_path / 'old.wav', 1_000, samples=2_000)
  assert read_film(tmp_path / 'old.wav')[0].sound.count == 32_000


@pytest.mark.parametrize('channels', [9, 17, 64, 255])
def test_channels_that_cannot_be_mixed_are_said_in_words(tmp_path, channels):
  wav(tmp_path / 'voice.wav', 16_000, channels, 3_000)
  expected = (
    f'voice.wav has sound of {channels} channels, which cannot be mixed; convert its sound to '
    'stereo, or remove it'
  )
  with pytest.raises(InputError, match=expected):
    read_film(tmp_path / 'voice.wav')


def test_an_ogg_of_several_sounds(tmp_path):
  """One after the other: what FFmpeg decodes is heard to its end, other changes are said."""
  flac, opus = (
    {'codec': 'flac', 'rate': 16_000, 'layout': 'mono'},
    {'codec': 'libopus', 'rate': 48_000, 'layout': 'stereo'},
  )
  for name, options in (('flac', flac), ('opus', opus)):
    wave, rate, layout = tone_of(440, options['rate'], options['layout'])
    with av.open(str(tmp_path / name), 'w', format='ogg') as file:
      stream = file.add_stream(options['codec'], rate=rate, layout=layout)
      stream.codec_context.format = 's16'
      for first in range(0, rate, 960):
        block = np.rint(wave[:, first : first + 960] * 32_767).astype(np.int16)
        block = np.ascontiguousarray(block.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(block, format='s16', layout=layout)
        frame.sample_rate, frame.pts = rate, first
        file.mux(stream.encode(frame))
      file.mux(stream.encode())
  one, other = ((tmp_path / name).read_bytes() for name in ('flac', 'opus'))
  (tmp_path / 'twice.ogg').write_bytes(one + one)
  assert abs(read_film(tmp_path / 'twice.ogg')[0].sound.count - 32_000) < 100
  (tmp_path / 'mixed.ogg').write_bytes(one + other)
  with pytest.raises(InputError, match='mixed.ogg has sound that FFmpeg cannot decode to its end;'):
    read_film(tmp_path / 'mixed.ogg')


def sounds_at(path, starts, film=0):
  """Writes 0.1 s of tone at each of these seconds, and a film of some frames."""
  wave = (tone_of(440)[0][:, :1600] * 32_767).astype(np.int16)
  with av.open(str(path), 'w') as file:
    if film:
      picture = file.add_stream('mpeg4', rate=25)
      picture.width, picture.height, picture.pix_fmt = 64, 48, 'yuv420p'
    sound = file.add_stream('pcm_s16le', rate=16_000, layout='mono')
    for _ in range(film):
      file.mux(picture.encode(av.VideoFrame(64, 48, 'yuv420p')))
    file.mux(picture.encode() if film else [])
    for start in starts:
      frame = av.AudioFrame.from_ndarray(wave, format='s16', layout='mono')
      frame.sample_rate, frame.time_base = 16_000, fractions.Fraction(1, 16_000)
      frame.pts = round(16_000 * start)
      file.mux(sound.encode(frame))
    file.mux(sound.encode())


def test_a_hole_of_years_before_a_short_one_is_passed_over(tmp_path):
  """The short hole of 1.4 s after it is silence: 0.1 + 0.1 + 1.4 + 0.1 s."""
  sounds_at(tmp_path / 'hole.mkv', [0, YEARS, YEARS + 1.5])
  source, _ = read_film(tmp_path / 'hole.mkv')
  assert source.sound.count == 27_200 and len(source.sound.gaps) == 1
  assert 'a pause of 94,608,000 s in the time stamps of the sound is passed over' in source.notes


def test_many_holes_are_not_filled_beyond_a_day(tmp_path):
  sounds_at(tmp_path / 'holes.mkv', [3599 * k for k in range(14)])
  with pytest.raises(InputError, match='holes.mkv lasts more than 12 hours, which are the most'):
    read_film(tmp_path / 'holes.mkv')


@pytest.mark.parametrize('starts', [[0, 3000, 6000], np.arange(0, 600, 0.1)])
def test_sound_is_not_read_beyond_the_last_picture(tmp_path, starts):
  """Of two seconds of pictures, all windows are those of the whole sound, and no more is read."""
  path = tmp_path / 'long.mkv'
  sounds_at(path, starts, film=50)
  source, images = read_film(path)
  assert len(images) == 50 and source.sound.count <= 16_000 * 4.2
  timeline = video.read_timeline(path)
  whole, part = video.SoundReader(path), video.SoundReader(path, until=timeline.heard_until)
  rows, starts, present = audio.hear(timeline, whole)
  some, *placed = audio.hear(timeline, part)
  np.testing.assert_array_equal(placed, [starts, present])
  assert part.count < whole.count
  for first in starts:
    np.testing.assert_array_equal(some[first : first + 96], rows[first : first + 96])


# Film.


def test_a_hole_of_years_and_a_film_of_days_are_refused(tmp_path):
  for name, pts, words in (
    ('hole', 40 * np.arange(30) + 1000 * YEARS * (np.arange(30) > 14), 'no new frame for 94,608,0'),
    ('days', 3_599_000 * np.arange(30), 'days.mkv lasts more than 12 hours'),
  ):
    write_video(tmp_path / f'{name}.mkv', 30, tone(30), pts=pts)
    for reader in (read_film, video.read_timeline):
      with pytest.raises(InputError, match=words):
        reader(tmp_path / f'{name}.mkv')


def test_a_rate_of_a_million_is_refused(tmp_path):
  write_video(tmp_path / 'fast.mp4', 30, pts=np.arange(30), clock=1_000_000)
  with pytest.raises(InputError, match=r'fast.mp4 shows 30 frames in 2.9e-05 s; at most 10,000'):
    read_film(tmp_path / 'fast.mp4')


@pytest.mark.parametrize('count', [10_000_000, 2**27, 2**31 - 1])
def test_frames_that_are_only_claimed(tmp_path, count):
  """The tables of an MP4 of 2 kB claim millions of frames of ten bytes."""
  write_video(tmp_path / 'honest.mp4', 30)
  data = bytearray((tmp_path / 'honest.mp4').read_bytes())
  for name, numbers in (
    (b'stsz', (0, 10, count)), (b'stts', (0, 1, count)), (b'stsc', (0, 1, 1, count, 1)),
  ):  # fmt: skip
    struct.pack_into(f'>{len(numbers)}I', data, data.index(name) + 4, *numbers)
  (tmp_path / 'claims.mp4').write_bytes(data)
  with pytest.raises(InputError, match='claims.mp4 has more than 3,000,000 frames'):
    read_film(tmp_path / 'claims.mp4')


def test_more_frames_than_are_read(tmp_path, monkeypatch):
  """Whether a header counts them (mp4), packets do (mkv), or decoding does (avi)."""
  monkeypatch.setattr(bounds, 'MOST_FRAMES', 20)
  for ending in ('.mp4', '.mkv', '.avi'):
    write_video(tmp_path / f'many{ending}', 21)
    with pytest.raises(InputError, match=f'many{ending} has more than 20 frames, which are'):
      video.read_timeline(tmp_path / f'many{ending}')
    write_video(tmp_path / f'some{ending}', 20)
    assert len(video.read_timeline(tmp_path / f'some{ending}').times) == 20


def zeros(width, height):
  """Returns a PNG of 64 bits a pixel, all of it 0."""
  header = struct.pack('>IIBBBBB', width, height, 16, 6, 0, 0, 0)
  pixels = zlib.compress(bytes((1 + 8 * width) * min(height, 64)))
  return png((b'IHDR', header), (b'IDAT', pixels), (b'IEND', b''))


def png_film(path, pictures):
  """Writes PNGs into a MOV whose header says that they are of 64 x 48 pixels."""
  with av.open(str(path), 'w') as film:
    stream = film.add_stream('png', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'rgba64be'
    for k, picture in enumerate(pictures):
      packet = av.Packet(picture)
      packet.stream, packet.pts, packet.dts = stream, k, k
      packet.time_base, packet.is_keyframe = fractions.Fraction(1, 25), True
      film.mux(packet)


def test_pictures_of_any_size_on_the_way(tmp_path):
  """Small ones of other sizes are read; one of 32000 x 32000 ends the film in one line."""
  sizes = [(64, 48), (48, 64), (1, 1), (640, 16), (64, 48)]
  png_film(tmp_path / 'sizes.mov', [zeros(*size) for size in sizes])
  _, images = read_film(tmp_path / 'sizes.mov')
  assert [image.shape[1::-1] for image in images] == [(64, 48), (48, 64), (1, 1), (64, 2), (64, 48)]
  (tmp_path / 'huge.png').write_bytes(zeros(32_000, 32_000))
  png_film(tmp_path / 'huge.mov', [zeros(64, 48), zeros(32_000, 32_000)])
  for name in ('huge.png', 'huge.mov'):
    with pytest.raises(InputError, match=f'{name} (cannot be read as a video|is damaged)'):
      read_film(tmp_path / name)
