"""The face of one person in a video of one's own: given as a folder of crops, or found."""

import itertools

import numpy as np
from PIL import Image

from data_prep import affwild2, detection, faces, tracking, video
from data_prep.errors import InputError

LOOKED_AT = 640    # pixels of the longer side in which faces are looked for
LOOKS = 12.5       # a second: a face goes a short way in the time between, and straight on
COARSE, BINS = 8, 4  # a cut is told from every so many pixels, and so many shades of each colour


class GivenFaces:
  """A folder of aligned faces, 00001.jpg for frame 1, for a video of n frames. Where they were in the picture is not known."""

  def __init__(self, folder, n):
    self.crops = {k: crop for k, crop in faces.list_crops(affwild2.folder(folder)).items() if 1 <= k <= n}
    if not self.crops:
      raise InputError(f'{folder} holds no crop of frames 1 to {n}, such as 00001.jpg')
    self.boxes, self.cuts, self.seen = np.full((n, 4), np.nan), 0, True

  def face(self, frame, image):
    """The face as a PIL image, or None. frame: from 0; image: the picture (H,W,3) uint8."""
    return faces.open_crop(self.crops[frame + 1]) if frame + 1 in self.crops else None


class FoundFaces:
  """The face that is found in a video and followed.

  boxes (n,4): left, top, width and height in parts of the picture, NaN without a face; cuts: how many scenes follow another; seen:
  whether there is a face at all.
  """

  def __init__(self, path, timeline, which, clock, progress):
    """which: as `tracking.choose` takes it. clock: a Clock, for 'decode' and 'faces'. progress: a tqdm."""
    self.clock, self.size, self.cut_frames = clock, np.ones(2), []
    every = max(round(timeline.mean_rate / LOOKS), 1)
    looked = self.look(video.read_frames(path, LOOKED_AT), len(timeline.times), every, progress)
    track = tracking.choose(tracking.link(timeline.times, looked), which)
    boxes, points = tracking.fill(track, timeline.times, every, self.cut_frames)
    self.boxes, self.points = boxes / np.tile(self.size, 2), points / self.size
    self.cuts, self.seen = len(self.cut_frames), track is not None

  def look(self, images, n, every, progress):
    """Yields (frame, boxes, points) of every so many of n frames, of the last, and of those with which a scene begins."""
    before = None
    for frame, image in enumerate(self.clock.each('decode', itertools.islice(images, n))):
      with self.clock('faces', 1):
        # A cut of the film changes colours all at once; a face that is where another was may then be somebody else's.
        colours = np.histogramdd(image[::COARSE, ::COARSE].reshape(-1, 3), BINS, [(0, 256)] * 3)[0]
        cut = before is not None and np.abs(colours - before).sum() > colours.sum()  # more than half have moved
        before, self.size = colours, np.array(image.shape[1::-1])
        if cut:
          self.cut_frames.append(frame)
        if cut or frame % every == 0 or frame == n - 1:
          boxes, points, _ = detection.detect(image)
          yield frame, boxes, points
      progress.update()

  def face(self, frame, image):
    """As that of GivenFaces: aligned, cut from the picture."""
    points = self.points[frame]
    if np.isnan(points[0, 0]):
      return None
    with self.clock('faces', 0):
      return Image.fromarray(detection.align(image, points * image.shape[1::-1]))
