import os
import struct
import zlib

import numpy as np
import pytest
from other_files import png
from PIL import Image, ImageFile

from avjax.errors import InputError
from avjax.media.faces import fit, list_crops, open_crop, read_faces, read_unreadable


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / '102'
  folder.mkdir()
  for k in (1, 2, 4):
    Image.fromarray(np.random.default_rng(k).integers(0, 256, (112, 112, 3), np.uint8)).save(
      folder / f'{k:05d}.jpg'
    )
  (folder / '.DS_Store').touch()
  return folder


def test_crops_are_known_by_their_number(folder):
  (folder / 'notes.jpg').touch()
  assert {k: path.name for k, path in list_crops(folder).items()} == {
    1: '00001.jpg',
    2: '00002.jpg',
    4: '00004.jpg',
  }


def test_frames_without_a_crop_are_black_and_marked(folder):
  faces, present, broken = read_faces(folder, [4, 3, 1], 48)
  np.testing.assert_array_equal(present, [True, False, True])
  assert (
    faces.shape == (3, 48, 48, 3) and faces.dtype == np.uint8 and not faces[1].any() and broken == 0
  )
  with Image.open(folder / '00004.jpg') as image:
    np.testing.assert_array_equal(
      faces[0], np.asarray(image.resize((48, 48), Image.Resampling.BICUBIC))
    )


def test_a_crop_of_the_right_size_is_taken_as_it_is(folder):
  with Image.open(folder / '00001.jpg') as image:
    np.testing.assert_array_equal(fit(open_crop(folder / '00001.jpg'), 112), np.asarray(image))


def test_the_largest_side_of_a_crop(tmp_path):
  path = tmp_path / '00001.png'
  Image.new('L', (4096, 2)).save(path)
  assert open_crop(path).size == (4096, 2)
  Image.new('L', (2, 4097)).save(path)
  with pytest.raises(InputError, match='is 2 x 4097 pixels; a crop has at most 4096 a side'):
    open_crop(path)


def test_grey_crops_become_rgb(tmp_path):
  Image.new('L', (20, 20), 77).save(tmp_path / '00001.png')
  assert (fit(open_crop(tmp_path / '00001.png'), 8) == 77).all()


def test_a_broken_crop_is_refused_unless_listed(folder):
  os.truncate(folder / '00002.jpg', 900)
  with pytest.raises(
    InputError, match=r'00002.jpg cannot be read.*list 102/00002.jpg in SOURCE/unreadable.txt'
  ):
    read_faces(folder, [1, 2], 48)
  (folder.parent / 'unreadable.txt').write_text('102/00002.jpg\n')
  listed = read_unreadable(folder.parent)
  assert listed == {'102/00002.jpg', '40-30-1280x720/06926.jpg'}
  faces, present, broken = read_faces(folder, [1, 2], 48, listed)
  np.testing.assert_array_equal(present, [True, False])
  assert broken == 1 and not faces[1].any()


EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n'


def test_a_picture_that_is_not_what_it_is_called_starts_no_program(tmp_path, monkeypatch):
  """Pillow calls Ghostscript for EPS; only JPEG and PNG are opened, under either name."""
  monkeypatch.setattr('PIL.EpsImagePlugin.Ghostscript', lambda *_: pytest.fail('started'))
  path = tmp_path / '00001.jpg'
  path.write_bytes(EPS)
  with pytest.raises(InputError, match=r'00001.jpg cannot be read as an image; replace it'):
    open_crop(path)
  for wanted, formats in ((True, ('JPEG', 'PNG')), (False, ('BMP', 'GIF', 'PPM', 'TIFF', 'WEBP'))):
    for kind in formats:
      Image.new('RGB', (9, 9), (80, 80, 80)).save(path, format=kind)
      if wanted:
        assert (fit(open_crop(path), 9) == 80).all(), kind
      else:
        with pytest.raises(InputError, match='cannot be read as an image'):
          open_crop(path)


@pytest.mark.parametrize(
  'kind, content', [(b'iCCP', b''), (b'tRNS', b'\0'), (b'acTL', b''), (b'', b'')]
)
def test_a_png_whose_parts_are_broken(tmp_path, kind, content):
  """Whatever Pillow raises or remarks, it is one line, or the picture."""
  path = tmp_path / '00001.png'
  for depth, colours in ((2, 3), (0, 1), (3, 1)):
    header = b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, depth, 0, 0, 0)
    pixels = b'IDAT', zlib.compress(bytes(8 * (1 + 8 * colours)))
    broken, palette = (kind, content), (b'PLTE', bytes(3))
    for parts in (
      (broken, palette, pixels),
      (palette, broken, pixels),
      (palette, pixels, broken),
    ):
      path.write_bytes(png(header, *parts, (b'IEND', b'')))
      try:
        assert open_crop(path).size == (8, 8)
      except InputError as error:
        assert 'cannot be read as an image' in str(error)


def test_a_pipe_or_a_device_in_place_of_a_file_is_refused(folder):
  (folder / '00001.jpg').unlink()
  os.mkfifo(folder / '00001.jpg')
  (folder / '00002.jpg').unlink()
  (folder / '00002.jpg').symlink_to('/dev/zero')
  for frame in (1, 2):
    with pytest.raises(InputError, match=f'0000{frame}.jpg is a named pipe or a device'):
      read_faces(folder, [frame], 48)
  os.mkfifo(folder.parent / 'unreadable.txt')
  with pytest.raises(InputError, match='unreadable.txt is a named pipe or a device'):
    read_unreadable(folder.parent)


def test_a_number_that_no_frame_has_is_refused(folder):
  (folder / '4294967297.jpg').touch()
  with pytest.raises(InputError, match='has a crop 4294967297.jpg, but no video has that many'):
    list_crops(folder)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('side', [5000, 10_000, 20_000])
def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path, monkeypatch, side):
  packer = zlib.compressobj()
  pixels = b''.join(packer.compress(bytes(side + 1)) for _ in range(side)) + packer.flush()
  path = tmp_path / '00001.png'
  header = struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
  path.write_bytes(png((b'IHDR', header), (b'IDAT', pixels), (b'IEND', b'')))
  monkeypatch.setattr(ImageFile.ImageFile, 'load', lambda image: pytest.fail('decoded'))
  with pytest.raises(InputError, match=r'00001.png'):
    open_crop(path)
