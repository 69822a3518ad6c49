"""Turns decoded frames into upright RGB images with the colours that a screen would show."""

import av
import cv2
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

HDR = {ColorTrc.SMPTE2084: 'PQ', ColorTrc.ARIB_STD_B67: 'HLG'}  # transfer curves
# AVFrameSideDataType: the display matrix, and more numbers than there are kinds.
DISPLAY_MATRIX, SIDE_DATA_KINDS = 6, 64
# Transfer curves of SDR. Screens show all of them much alike, as a power of 2.4.
SDR = (
  ColorTrc.UNSPECIFIED,
  ColorTrc.BT709,
  ColorTrc.SMPTE170M,
  ColorTrc.IEC61966_2_1,
  ColorTrc.BT2020_10,
  ColorTrc.BT2020_12,
)
GAMMA = 2.4
# From light in wider primaries than those of BT.709 to light in these; white stays white, by the
# adaptation of Bradford. SMPTE 432 is Display P3, and SMPTE 431 has the white of cinemas.
WIDE = {
  ColorPrimaries.BT2020: ((1.66049, -0.58764, -0.07285), (-0.12455, 1.1329, -0.00835),
                          (-0.01815, -0.10058, 1.11873)),
  ColorPrimaries.SMPTE431: ((1.15751, -0.15496, -0.00255), (-0.04150, 1.04557, -0.00407),
                            (-0.01805, -0.07858, 1.09663)),
  ColorPrimaries.SMPTE432: ((1.22494, -0.22494, 0.0), (-0.04206, 1.04206, 0.0),
                            (-0.01964, -0.07864, 1.09827)),
}  # fmt: skip
TO_LIGHT = (np.arange(256, dtype=np.float32) / 255) ** GAMMA
# By the square root of light, which keeps dark colours apart.
FROM_LIGHT = np.rint(255 * (np.arange(2**14) / (2**14 - 1)) ** (2 / GAMMA)).astype(np.uint8)
# AVColorSpace: matrices from luma and chroma to RGB.
BT709, UNSPECIFIED, RESERVED, SMPTE170M, BT2020, BT2020_CONSTANT = 1, 2, 3, 6, 9, 10
# Pictures larger than those of standard definition have the matrix of BT.709, unless they say
# otherwise, and the others that of BT.601. It is what players assume.
SD_WIDTH, SD_HEIGHT = 1024, 576


class Converter:
  """Converts the frames of a video one after the other.

  Args:
    longest: most pixels of the longer side; larger frames are made smaller. None leaves them as
      they are.
    turn: degrees by which images are turned clockwise, after the file's own display matrix: 0, 90,
      180 or 270.
  """

  def __init__(self, longest: int | None = None, turn: int = 0):
    self.longest, self.turn = longest, turn
    self.rotation, self.matrix = None, None
    # One for all frames, since its table for HDR takes seconds to compute.
    self.reformatter = VideoReformatter()

  def image(self, frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """Returns a frame as (H,W,3) uint8 RGB; aspect: width of a pixel over its height."""
    # Read only where it changes, since it takes milliseconds.
    if frame.rotation != self.rotation:
      self.rotation, self.matrix = frame.rotation, display_matrix(frame)
    wide = frame.width * aspect
    scale = min(self.longest / max(wide, frame.height), 1) if self.longest else 1
    size = [max(round(side * scale), 1) for side in (wide, frame.height)]
    frame.colorspace = matrix_of(frame)
    image = self.rgb(frame, size).to_ndarray()
    if frame.color_primaries in WIDE and frame.color_trc in SDR:
      image = narrowed(image, np.float32(WIDE[frame.color_primaries]))
    if self.matrix:
      image = upright(image, self.matrix)
    return np.ascontiguousarray(np.rot90(image, -self.turn // 90))

  def rgb(self, frame: av.VideoFrame, size: list[int]) -> av.VideoFrame:
    """Returns a frame in RGB and in a size, width and height."""
    options = colour_options(frame)
    try:
      return self.reformatter.reformat(scaled(frame, size), format='rgb24', **options)
    except av.error.ArgumentError:  # FFmpeg does not write its format, such as colours of a palette
      return scaled(self.reformatter.reformat(frame, format='rgb24', **options), size)


def scaled(frame: av.VideoFrame, size: list[int]) -> av.VideoFrame:
  """Returns a frame in a size, and in its own format."""
  if size == [frame.width, frame.height]:
    return frame
  return frame.reformat(*size, interpolation='AREA')


def matrix_of(frame: av.VideoFrame) -> int:
  """Returns the number of the matrix by which the colours of a frame are to be read."""
  if frame.colorspace in (UNSPECIFIED, RESERVED):
    if frame.color_trc in HDR or frame.color_primaries == ColorPrimaries.BT2020:
      return BT2020
    is_large = frame.width > SD_WIDTH or frame.height > SD_HEIGHT
    return BT709 if is_large else SMPTE170M
  # FFmpeg does not convert constant luminance; its neighbour comes near.
  return BT2020 if frame.colorspace == BT2020_CONSTANT else frame.colorspace


def colour_options(frame: av.VideoFrame) -> dict:
  """Returns the options of VideoReformatter.reformat that give HDR the colours of SDR BT.709.

  FFmpeg maps the tones of HDR so that its reference white, 203 cd/m2, becomes the white of SDR.
  """
  if frame.color_trc not in HDR:
    return {}
  if frame.color_primaries == ColorPrimaries.UNSPECIFIED:
    frame.color_primaries = ColorPrimaries.BT2020  # all HDR has these
  return {'dst_color_trc': ColorTrc.BT709, 'dst_color_primaries': ColorPrimaries.BT709}


def narrowed(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
  """Returns an image (H,W,3) uint8 of wide primaries in those of BT.709.

  Colours that these cannot show are clipped. FFmpeg would move the others, too, to make room.

  matrix: (3,3) float32, one of WIDE.
  """
  light = cv2.transform(cv2.LUT(image, TO_LIGHT), matrix)
  root = np.sqrt(np.clip(light, 0, 1, out=light), out=light)
  return FROM_LIGHT[np.rint(root * (len(FROM_LIGHT) - 1)).astype(np.uint16)]


def display_matrix(frame: av.VideoFrame) -> bytes | None:
  """Returns the display matrix of a frame, 9 int32, or None where it has none.

  A filter removes all other side data first: PyAV's table of them crashes where one has metadata,
  such as the name of a PNG's colour profile, and knows not all kinds.
  """
  graph = Graph()
  kinds = (kind for kind in range(SIDE_DATA_KINDS) if kind != DISPLAY_MATRIX)
  filters = [graph.add('sidedata', f'mode=delete:type={kind}') for kind in kinds]
  graph.link_nodes(graph.add_buffer(template=frame), *filters, graph.add('buffersink'))
  graph.configure()
  graph.push(frame)
  matrix = graph.pull().side_data.get('DISPLAYMATRIX')
  return matrix and bytes(matrix)


def upright(image: np.ndarray, matrix: bytes) -> np.ndarray:
  """Returns an image turned and mirrored by a display matrix, the bytes of 9 int32."""
  # A pixel at (x, y) is shown at (a x + c y, b x + d y).
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5]
  if abs(b) > abs(a):
    image, a, d = image.transpose(1, 0, 2), c, b
  return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
