"""Tests that films of any matrix, range, primaries and curve come in the colours of SDR."""

import av
import numpy as np
import pytest
from fault.harness import ROOT
from other_files import (
  MATRICES,
  hdr_film,
  luma_chroma,
  write_planes,
  yuv_film,
)
from PIL import Image

from avjax.media import container, picture, video


@pytest.mark.parametrize('primaries', [9, 2])
@pytest.mark.parametrize('curve', ['PQ', 'HLG'])
def test_hdr_becomes_sdr(tmp_path, curve, primaries):
  """The film of BT.2100 that shows the white of SDR at 203 cd/m2 comes back as it was in SDR.

  It has the primaries of BT.2020, also where it does not say so.
  """
  sdr = np.asarray(Image.open(ROOT / 'tests/data/astronaut.jpg').resize((128, 128)))
  hdr_film(tmp_path / 'hdr.mkv', sdr, curve, primaries)
  assert container.read_contents(tmp_path / 'hdr.mkv').hdr == curve
  (image,) = video.read_frames(tmp_path / 'hdr.mkv')
  difference = np.abs(image.astype(float) - sdr)
  assert difference.mean() < 4 and abs(image.std() / sdr.std() - 1) < 0.03


@pytest.mark.parametrize('full_range', [False, True])
@pytest.mark.parametrize('matrix, size', [('601', 64), ('709', 64), ('709', 720), ('2020', 64)])
def test_ranges_and_matrices(tmp_path, full_range, matrix, size):
  """Six colours of a film in full or limited range and in each matrix, stated by the file.

  What states no matrix has that of BT.709 in high definition, otherwise that of BT.601.
  """
  colours = np.array(
    [[200, 60, 40], [40, 180, 60], [50, 70, 210], [128, 128, 128], [250, 250, 250], [10, 10, 10]]
  )
  image = np.repeat(np.repeat(colours[None], size, axis=1), size, axis=0).astype(np.uint8)
  stated = [True] if full_range or matrix == '2020' else [True, False]
  for states in stated:
    if not states and (matrix == '709') != (size == 720):
      continue
    yuv_film(tmp_path / 'clip.mp4', image, matrix, full_range, states)
    (found,) = video.read_frames(tmp_path / 'clip.mp4')
    middle = found[size // 2, size // 2 :: size]
    assert np.abs(middle.astype(int) - colours).max() <= 3, (states, middle)


@pytest.mark.parametrize(
  'curve, primaries, matrix', [(18, 2, 9), (16, 9, 9), (14, 9, 9), (1, 1, 1), (2, 2, 1)]
)
def test_the_matrix_of_a_film_that_names_none(curve, primaries, matrix):
  """In high definition it is that of BT.2020 (9) for HDR and its primaries, otherwise BT.709's."""
  frame = av.VideoFrame(1920, 1080, 'yuv420p10le')
  frame.color_trc, frame.color_primaries, frame.colorspace = curve, primaries, 2
  assert picture.matrix_of(frame) == matrix


# Chromaticities (x, y) of red, green, blue and white, as the standards state them.
P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
WIDE = {
  9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), (0.3127, 0.3290)),
  11: (*P3, (0.314, 0.351)),
  12: (*P3, (0.3127, 0.3290)),
}
NARROW = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), (0.3127, 0.3290))


@pytest.mark.parametrize('curve', [1, 13])
@pytest.mark.parametrize('primaries', WIDE)
def test_sdr_in_wide_primaries_comes_back_in_those_of_bt709(tmp_path, primaries, curve):
  """Eight colours, among them four of skin, are shown in BT.2020, DCI P3 and Display P3.

  Each is what it was in BT.709, to 3 of 255: the film has 8 bits. Unconverted, skin is 9 off.
  """
  colours = np.array(
    [[224, 172, 140], [198, 134, 100], [141, 85, 60], [92, 58, 42], [128, 128, 128],
     [250, 250, 250], [200, 60, 40], [50, 70, 190]]
  )  # fmt: skip
  image = np.repeat(np.repeat(colours[None], 64, axis=1), 64, axis=0)
  light = (image / 255) ** 2.4 @ (np.linalg.inv(to_xyz(WIDE[primaries])) @ to_xyz(NARROW)).T
  y, cb, cr = luma_chroma(np.clip(light, 0, 1) ** (1 / 2.4), MATRICES['709'][0])
  planes = [16 + 219 * y, 128 + 224 * cb, 128 + 224 * cr]
  tags = {'colorspace': 1, 'color_range': 1, 'color_primaries': primaries, 'color_trc': curve}
  write_planes(tmp_path / 'wide.mp4', 'libx264', {'crf': '1'}, 'yuv420p', planes, tags)
  (found,) = video.read_frames(tmp_path / 'wide.mp4')
  wrong = np.abs(found[32, 32::64].astype(int) - colours)
  assert wrong.max() <= 3, wrong


def to_xyz(chromaticities):
  """Returns the matrix from RGB to cone responses of which white is 1, by Bradford's matrix."""
  bradford = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
  )
  *primaries, white = (bradford @ np.array([x / y, 1, (1 - x - y) / y]) for x, y in chromaticities)
  matrix = np.stack(primaries, axis=1)
  return matrix * np.linalg.solve(matrix, white) / white[:, None]
