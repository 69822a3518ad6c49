"""Tests files as other people's programs make them: pictures with profiles or a palette, recordings
that were joined, several tracks, covers.
"""

import fractions
import shutil
import subprocess
import sys

import av
import numpy as np
import pytest
from fault.harness import ROOT
from official_set import tone, write_video
from other_files import (
  tone_of,
  write_sounds,
)
from PIL import Image, ImageCms, ImageOps

from avjax.errors import InputError
from avjax.media import container, video
from avjax.media.decoder import Decoder

# The same picture in each case: bright at the top left, darker at the top right, black below.
QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:] = 200, 100


def read_alone(path):
  """Reads all frames of a file in a process of its own; returns (exit status, what it prints)."""
  script = (
    'import sys; from avjax.media import video; '
    'print([image.shape for image in video.read_frames(sys.argv[1])], flush=True)'
  )
  done = subprocess.run(
    [sys.executable, '-c', script, str(path)], cwd=ROOT, capture_output=True, text=True
  )
  return done.returncode, done.stdout.strip()


# Side data.


@pytest.mark.parametrize('orientation', range(1, 9))
def test_side_data_with_metadata_or_without_a_name(tmp_path, orientation):
  """A PNG with a named colour profile and a JPEG with EXIF come upright, whatever its orientation.

  PyAV's table of side data crashes on the first and refuses the second.
  """
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = orientation, 'a camera'
  picture = Image.fromarray(QUARTERS)
  picture.save(tmp_path / 'shot.png', icc_profile=profile, exif=exif)
  picture.save(tmp_path / 'shot.jpg', exif=exif, icc_profile=profile, quality=95)
  shape = (48, 64, 3) if orientation < 5 else (64, 48, 3)
  for name in ('shot.png', 'shot.jpg'):
    assert read_alone(tmp_path / name) == (0, str([shape]))
    (image,) = video.read_frames(tmp_path / name)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / 'shot.png')))
    assert np.abs(image.astype(int) - expected).max() < 12


def test_png_coded_films_with_a_profile(tmp_path):
  """The profile, with its name, is in every frame of an APNG and of a PNG-coded MOV."""
  profile = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
  pictures = [Image.fromarray(np.full((48, 64, 3), 60 * k, np.uint8)) for k in range(3)]
  pictures[0].save(
    tmp_path / 'film.png', save_all=True, append_images=pictures[1:], icc_profile=profile
  )
  with av.open(str(tmp_path / 'film.mov'), 'w') as film:
    stream = film.add_stream('png', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'rgb24'
    for k, picture in enumerate(pictures):
      picture.save(tmp_path / 'one.png', icc_profile=profile)
      packet = av.Packet((tmp_path / 'one.png').read_bytes())
      packet.stream, packet.pts, packet.dts = stream, k, k
      packet.time_base = fractions.Fraction(1, 25)
      film.mux(packet)
  for name in ('film.png', 'film.mov'):
    assert read_alone(tmp_path / name) == (0, str([(48, 64, 3)] * 3))
    greys = [image.mean() for image in video.read_frames(tmp_path / name)]
    np.testing.assert_allclose(greys, [0, 60, 120], atol=1)


# A child process decodes.


def test_the_child_gives_what_this_process_would(tmp_path):
  path = tmp_path / 'clip.mp4'
  write_video(path, 40, tone(40))
  here, heard = video.read_timeline(path), video.read_sound(path)
  with Decoder() as decoder:
    assert decoder.contents(path).film == 1
    there, sound = decoder.timeline(path), decoder.sound(path)
    np.testing.assert_array_equal(there.times, here.times)
    assert (there.rate, there.start) == (here.rate, here.start)
    np.testing.assert_array_equal(np.concatenate(list(sound)), heard.samples)
    assert (sound.start, sound.count, sound.peak) == (heard.start, heard.count, heard.peak)
    # Two streams at once, of which one is left early.
    blocks = iter(sound)
    for frame, image in enumerate(decoder.frames(path, 32, None, 90)):
      assert image.shape == (32, 24, 3) and abs(int(image[0, 0, 0]) - 5 * frame) < 4
      if frame % 32 == 0:
        next(blocks)
    blocks.close()
    with pytest.raises(InputError, match='gone.mp4 cannot be read as a video: No such file'):
      decoder.timeline(tmp_path / 'gone.mp4')
    assert decoder.timeline(path).rate == 25


def test_a_decoder_that_crashes_is_one_line_and_the_next_file_is_read(tmp_path, monkeypatch):
  """The child aborts on one file, as the C library does after a double free."""
  (tmp_path / 'sitecustomize.py').write_text(
    'import builtins, os\n'
    'whole = open\n'
    'builtins.open = lambda path, *rest, **named: (\n'
    '  os.abort() if str(path).endswith("bad.mp4") else whole(path, *rest, **named)\n'
    ')\n'
  )
  monkeypatch.setenv('PYTHONPATH', str(tmp_path))
  write_video(tmp_path / 'good.mp4', 3)
  shutil.copy(tmp_path / 'good.mp4', tmp_path / 'bad.mp4')
  with Decoder() as decoder:
    with pytest.raises(
      InputError, match=r'bad.mp4 cannot be decoded: its decoder crashed \(SIGABRT'
    ):
      decoder.contents(tmp_path / 'bad.mp4')
    assert len(decoder.timeline(tmp_path / 'good.mp4').times) == 3
    frames = decoder.frames(tmp_path / 'good.mp4', 64, None, 0)
    next(frames)
    decoder.child.kill()
    with pytest.raises(InputError, match='its decoder was killed, probably for lack of memory'):
      list(frames)


def test_a_threaded_decoder_may_be_left_early(tmp_path, full):
  """Frames of a damaged film are left after the first one, 60 times in each process.

  The process ends: the threads of the decoder, which report the damage, wait for nobody.
  """
  path = tmp_path / 'clip.mp4'
  rng = np.random.default_rng(0)
  image = np.kron(rng.integers(0, 256, (60, 80, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
  with av.open(str(path), 'w') as film:
    stream = film.add_stream('libx264', rate=25, options={'preset': 'ultrafast', 'bf': '0'})
    stream.width, stream.height, stream.pix_fmt = 640, 480, 'yuv420p'
    for k in range(60):
      moved = np.ascontiguousarray(np.roll(image, 8 * k, axis=1))
      film.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format='rgb24')))
    film.mux(stream.encode())
  data = bytearray(path.read_bytes())
  for place in range(data.index(b'mdat') + 3000, data.index(b'moov') - 8, 301):
    data[place] ^= 255
  path.write_bytes(data)
  script = (
    'import sys; from avjax.media import video\n'
    'for _ in range(60):\n'
    '  frames = video.read_frames(sys.argv[1]); next(frames); frames.close()'
  )
  for _ in range(100 if full else 2):
    done = subprocess.run(
      [sys.executable, '-c', script, str(path)], cwd=ROOT, timeout=120, stderr=subprocess.PIPE
    )
    assert (done.returncode, done.stderr) == (0, b'')


# Sound.


def test_colours_of_a_palette_in_any_size(tmp_path):
  """FFmpeg cannot make such a picture smaller in its own format."""
  picture = np.zeros((600, 800, 3), np.uint8)
  picture[:300], picture[300:] = (200, 60, 40), (40, 180, 60)
  Image.fromarray(picture).quantize(8).save(tmp_path / 'a.png')
  with av.open(str(tmp_path / 'a.png')) as png:
    assert next(png.decode(video=0)).format.name == 'pal8'
  for longest, shape in ((None, (600, 800, 3)), (640, (480, 640, 3))):
    (image,) = video.read_frames(tmp_path / 'a.png', longest)
    assert image.shape == shape
    for row, colour in ((10, (200, 60, 40)), (-10, (40, 180, 60))):
      assert np.abs(image[row, 50].astype(int) - colour).max() <= 2


@pytest.mark.parametrize('later', [0.52, -4.0])
def test_joined_recordings_are_refused(tmp_path, later):
  """The times of the second begin again within those of the first, as `cat` leaves them."""
  paths = [tmp_path / 'a.ts', tmp_path / 'b.ts']
  for path, start in zip(paths, (5.0, 5.0 + later), strict=True):
    write_transport_stream(path, start, 50)
    assert len(video.read_timeline(path).times) == 50
  joined = tmp_path / 'ab.ts'
  joined.write_bytes(b''.join(path.read_bytes() for path in paths))
  with pytest.raises(InputError, match=r'its time stamps go back by \d\.\d s at frame 5\d'):
    video.read_timeline(joined)


def write_transport_stream(path, start, count):
  """Writes a film of 25 frames a second that begins `start` seconds after the container's zero."""
  with av.open(str(path), 'w', format='mpegts') as output:
    stream = output.add_stream('mpeg2video', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
    for k in range(count):
      frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * k, np.uint8))
      frame.pts, frame.time_base = round(25 * start) + k, fractions.Fraction(1, 25)
      output.mux(stream.encode(frame))
    output.mux(stream.encode())


# Tracks.


def test_tracks_are_counted_and_chosen(tmp_path):
  """Of two films and three sounds, each is read by its number; a cover picture is not a film."""
  path = tmp_path / 'tracks.mkv'
  sounds = [[tone_of(hertz)] for hertz in (300, 600, 900)]
  write_sounds(path, sounds, films=(40, 120), languages=('deu', 'fra', 'ell'))
  found = container.read_contents(path)
  assert len(found.films) == 2 and found.sounds == ('deu', 'fra', 'ell')
  assert (found.film, found.sound) == (1, 1)
  for number, hertz in ((None, 300), (1, 300), (2, 600), (3, 900)):
    samples = video.read_sound(path, number).samples.astype(float)
    assert abs(np.abs(np.fft.rfft(samples)).argmax() * 16_000 / len(samples) - hertz) < 2
  for number, grey in ((None, 40), (1, 40), (2, 120)):
    assert abs(next(video.read_frames(path, film=number)).mean() - grey) < 3
    assert len(video.read_timeline(path, number).times) == 25
  for words, options in (('film track 3: it holds 2 tracks of film', {'film': 3}),
                         ('sound track 4: it holds 3 tracks of sound', {'sound': 4})):  # fmt: skip
    with pytest.raises(InputError, match=words):
      container.read_contents(path, **options)


@pytest.mark.parametrize('turn', [0, 90, 180, 270])
def test_turning(tmp_path, turn):
  write_video(tmp_path / 'clip.mp4', 2, image=QUARTERS)
  image = next(video.read_frames(tmp_path / 'clip.mp4', turn=turn))
  expected = np.asarray(Image.fromarray(QUARTERS).rotate(-turn, expand=True))
  assert np.abs(image.astype(int) - expected).mean() < 3


def test_what_holds_no_film_is_refused_as_one(tmp_path):
  write_sounds(tmp_path / 'voice.wav', [[tone_of(440)]])
  for read in (video.read_timeline, lambda path: next(video.read_frames(path))):
    with pytest.raises(InputError, match='voice.wav holds no video stream'):
      read(tmp_path / 'voice.wav')
  assert container.read_contents(tmp_path / 'voice.wav').film is None
  write_video(tmp_path / 'x.mp4', 3)
  with pytest.raises(InputError, match='has no sound track 1: it holds no track of sound'):
    container.read_contents(tmp_path / 'x.mp4', sound=1)
