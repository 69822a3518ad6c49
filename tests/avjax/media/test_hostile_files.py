"""Tests files that are made to harm who opens them: none reads another file, or hangs.

The right outcome of each is stated: one line that refuses it, or what an honest file would give.
"""

import os
import re
import shutil
import socket
import struct
import sys

import av
import numpy as np
import pytest
from official_set import write_video
from other_files import read_film, tone_of, write_sounds
from PIL import Image

from avjax.errors import InputError
from avjax.media import container, video
from avjax.media.decoder import Decoder

pytestmark = pytest.mark.attack('films that are other files, pipes or devices')

YEARS = 3 * 365 * 86_400  # seconds in three years


# Other files.

PLAYLISTS = {
  'concat.mp4': "ffconcat version 1.0\nfile 'private.mp4'\n",
  'absolute.mkv': "ffconcat version 1.0\nfile '{folder}/private.mp4'\n",
  'protocol.avi': "ffconcat version 1.0\nfile 'fd:'\nfile 'file:private.mp4'\n",
  'list.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nprivate.mp4\n#EXT-X-ENDLIST\n',
  'list.mp4': '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{folder}/private.ts\n#EXT-X-ENDLIST\n',
  'talk.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
  'm=video 5004 RTP/AVP 26\n',
  'dash.mpd': '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation>'
  '<BaseURL>private.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>',
  'subtitles.idx': '# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n',
  'metadata.mp4': ';FFMETADATA1\ntitle=x\n',
  'text.mp4': 'words and words\n' * 50,
}  # fmt: skip


@pytest.mark.parametrize('name', PLAYLISTS)
def test_a_list_of_files_is_no_film(tmp_path, name):
  write_video(tmp_path / 'private.mp4', 30)
  write_video(tmp_path / 'private.ts', 30)
  (tmp_path / name).write_text(PLAYLISTS[name].format(folder=tmp_path))
  with pytest.raises(InputError, match=f'{name} cannot be read as a video: it is damaged, or none'):
    read_film(tmp_path / name)
  for reader in (video.read_timeline, video.read_sound, lambda path: next(video.read_frames(path))):
    with pytest.raises(InputError, match='none of the kinds of files that are read'):
      reader(tmp_path / name)


@pytest.mark.parametrize('name', ['p%02d.jpg', 'p*.jpg', 'p{1}.jpg', 'p%02d.png', 'plane.Y'])
def test_a_name_is_no_pattern(tmp_path, name):
  """A picture by a name that FFmpeg takes for several files is the picture of that name."""
  for number in range(3):
    Image.new('RGB', (64, 48), (200, 200, 200)).save(tmp_path / f'p{number:02}.jpg')
    Image.new('RGB', (64, 48), (200, 200, 200)).save(tmp_path / f'p{number:02}.png')
  form = 'PNG' if name.endswith('png') else 'JPEG'
  Image.new('RGB', (64, 48), (50, 50, 50)).save(tmp_path / name, form)
  _, (image,) = read_film(tmp_path / name)
  assert abs(image.mean() - 50) < 2


@pytest.mark.parametrize(
  'name', ['concat:private.mp4', 'subfile,,start,0,end,9,,:private.mp4', 'crypto:private.mp4',
           'fd:', 'pipe:0', '-', 'file:private.mp4', 'list.m3u8', 'data:text,x'],
)  # fmt: skip
def test_a_name_is_no_protocol_and_no_format(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  write_video(tmp_path / 'private.mp4', 20)
  write_video(tmp_path / 'honest.mp4', 3)
  shutil.copy('honest.mp4', name)
  assert len(read_film(name)[1]) == 3


def test_a_mov_that_refers_to_another_file(tmp_path):
  """Its frames are sought in the file itself, where there are none of them."""
  write_video(tmp_path / 'private.mp4', 3)
  data = (tmp_path / 'private.mp4').read_bytes()
  place = data.index(b'dref') - 4
  # An alias: volume and folder of 0, then names, of which the relative path is the one of FFmpeg.
  path = f'{tmp_path}/private.mp4'.encode()
  alias = bytes(10) + bytes([3]) + b'vol'.ljust(27, b'\0') + bytes(12) + bytes([3]) + bytes(63)
  alias += bytes(16) + struct.pack('>hh', 1, 1) + bytes(10)
  alias += struct.pack('>HH', 18, len(path)) + path + bytes(len(path) % 2)
  alias += struct.pack('>HH', 2, len(path)) + path + bytes(len(path) % 2) + struct.pack('>H', 65535)
  alias = struct.pack('>I', 0) + alias.ljust(151, b'\0')
  entry = struct.pack('>I4s', 8 + len(alias), b'alis') + alias
  dref = struct.pack('>I4sII', 16 + len(entry), b'dref', 0, 1) + entry
  dref = dref.ljust(28, b'\0')
  old = struct.unpack('>I', data[place : place + 4])[0]
  made = bytearray(data[:place] + dref + data[place + old :])
  for name in (b'dinf', b'minf', b'mdia', b'trak', b'moov'):
    at = made.index(name) - 4
    size = struct.unpack('>I', made[at : at + 4])[0] + len(dref) - old
    made[at : at + 4] = struct.pack('>I', size)
  start = made.index(b'mdat') + 4
  end = start - 8 + struct.unpack('>I', made[start - 8 : start - 4])[0]
  made[start:end] = bytes(end - start)
  (tmp_path / 'clip.mov').write_bytes(made)
  with pytest.raises(InputError):
    read_film(tmp_path / 'clip.mov')


FILMS = {
  'mp4': 'libx264', 'mov': 'libx264', '3gp': 'mpeg4', 'm4v': 'mpeg4', 'mkv': 'libx264',
  'webm': 'libvpx', 'avi': 'mpeg4', 'mpg': 'mpeg1video', 'vob': 'mpeg2video', 'ts': 'libx264',
  'm2ts': 'libx264', 'wmv': 'wmv2', 'asf': 'msmpeg4', 'flv': 'flv',
  'nut': 'mpeg4', 'mxf': 'mpeg2video', 'gif': 'gif', 'apng': 'apng', 'h264': 'libx264',
  'm2v': 'mpeg2video', 'mjpeg': 'mjpeg', 'ivf': 'libvpx', 'y4m': 'rawvideo', 'rm': 'rv10',
}  # fmt: skip
SOUNDS = {
  'wav': 'pcm_s16le', 'w64': 'pcm_s16le', 'aiff': 'pcm_s16be', 'au': 'pcm_s16be', 'flac': 'flac',
  'caf': 'pcm_s16be', 'mp2': 'mp2', 'aac': 'aac', 'm4a': 'aac', 'ac3': 'ac3', 'ogg': 'flac',
  'mka': 'flac', 'wv': 'wavpack', 'tta': 'tta', 'voc': 'pcm_s16le',
}  # fmt: skip


@pytest.mark.parametrize('ending', FILMS)
def test_films_that_people_have_are_read_whatever_they_are_called(tmp_path, ending):
  path = tmp_path / f'clip.{ending}'
  codec = av.Codec(FILMS[ending], 'w')
  with av.open(str(path), 'w') as film:
    stream = film.add_stream(FILMS[ending], rate=25)
    stream.width, stream.height = 176, 144
    stream.pix_fmt = codec.video_formats[0].name if codec.video_formats else 'yuv420p'
    for k in range(12):
      grey = np.full((144, 176, 3), 20 * k, np.uint8)
      film.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format='rgb24')))
    film.mux(stream.encode())
  path.rename(tmp_path / 'clip')
  _, images = read_film(tmp_path / 'clip')
  assert len(images) == 12 and abs(images[6].mean() - 120) < 12


@pytest.mark.parametrize('ending', SOUNDS)
def test_sounds_that_people_have_are_read_whatever_they_are_called(tmp_path, ending):
  path = tmp_path / f'voice.{ending}'
  codec = av.Codec(SOUNDS[ending], 'w')
  wave = (tone_of(440, 44_100)[0] * 32_767).astype(np.int16)
  with av.open(str(path), 'w') as file:
    stream = file.add_stream(SOUNDS[ending], rate=44_100, layout='mono')
    stream.codec_context.format = codec.audio_formats[0].name
    for first in range(0, 44_100, 1152):
      block = np.ascontiguousarray(wave[:, first : first + 1152])
      frame = av.AudioFrame.from_ndarray(block, format='s16', layout='mono')
      frame.sample_rate, frame.pts = 44_100, first
      file.mux(stream.encode(frame))
    file.mux(stream.encode())
  path.rename(tmp_path / 'voice')
  heard = video.read_sound(tmp_path / 'voice').samples.astype(float)
  assert abs(len(heard) - 16_000) < 1600
  assert abs(np.abs(np.fft.rfft(heard)).argmax() * 16_000 / len(heard) - 440) < 3


# What is no file.


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'socket', 'device', 'link to a device'])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, kind):
  path = tmp_path / 'film.mp4'
  if kind == 'pipe':
    os.mkfifo(path)
  elif kind == 'folder':
    path.mkdir()
  elif kind == 'socket':
    with socket.socket(socket.AF_UNIX) as listener:
      monkeypatch.chdir(tmp_path)
      listener.bind(path.name)  # the path of a socket has at most 107 bytes
  elif kind == 'device':
    path = '/dev/zero'
  else:
    path.symlink_to('/dev/zero')
  with pytest.raises(InputError, match='cannot be read as a video: it is not a regular file'):
    read_film(path)


# The decoder's limits.


def spoil(tmp_path, monkeypatch, action):
  """Makes the child do something where it opens bad.mp4; returns the path of that."""
  write_video(tmp_path / 'bad.mp4', 3)
  (tmp_path / 'sitecustomize.py').write_text(
    'import builtins, signal\n'
    'whole, timer = open, signal.setitimer\n'
    'signal.setitimer = lambda kind, seconds: timer(kind, min(seconds, 0.5))\n'
    'def opening(path, *rest, **named):\n'
    f'  if str(path).endswith("bad.mp4"): {action}\n'
    '  return whole(path, *rest, **named)\n'
    'builtins.open = opening\n'
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  return tmp_path / 'bad.mp4'


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux keeps a limit on memory')
def test_a_decoder_that_takes_too_much_memory_is_one_line(tmp_path, monkeypatch):
  path = spoil(tmp_path, monkeypatch, 'bytearray(2_200_000_000)')
  write_video(tmp_path / 'good.mp4', 3)
  with Decoder() as decoder:
    with pytest.raises(InputError, match='bad.mp4 .* more memory than a decoder may take for a fi'):
      decoder.contents(path)
    assert len(decoder.timeline(tmp_path / 'good.mp4').times) == 3


def test_a_decoder_without_an_end_is_one_line(tmp_path, monkeypatch):
  path = spoil(tmp_path, monkeypatch, '[None for _ in iter(int, 1)]')
  write_video(tmp_path / 'good.mp4', 3)
  with Decoder() as decoder:
    with pytest.raises(InputError, match='bad.mp4 cannot be decoded: its decoder got no further'):
      decoder.contents(path)
    assert len(decoder.timeline(tmp_path / 'good.mp4').times) == 3


def test_languages_are_tags(tmp_path):
  """What a file says of its languages is shown only where it is a tag of one."""
  languages = ('deu', 'zh-Hant', '<script>', 'de\x1b[2J')
  write_sounds(tmp_path / 'tracks.mkv', [[tone_of(300)]] * 4, languages=languages)
  found = container.read_contents(tmp_path / 'tracks.mkv').sounds
  assert all(re.fullmatch('[A-Za-z-]*', tag) for tag in found) and found[2:] == ('', '')
