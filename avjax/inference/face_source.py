"""The face of one person in a video of one's own: given as a folder of crops, or found."""

import itertools

import numpy as np
from PIL import Image

from avjax import files
from avjax.errors import InputError
from avjax.media import detection, faces, tracking, video

LOOKED_AT = 640    # pixels of the longer side in which faces are looked for
LOOKS = 12.5       # a second: a face goes a short way in the time between, and straight on
COARSE = 8         # a cut is told from every so many pixels,
CHANGE = 27        # which change by more than this, of 255, on average: the usual threshold of scene detectors


class GivenFaces:
  """A folder of aligned faces, 00001.jpg for frame 1, for a video of n frames. Where they were in the picture is not known."""

  def __init__(self, folder, n):
    self.crops = {k: crop for k, crop in faces.list_crops(files.existing_folder(folder)).items() if 1 <= k <= n}
    if not self.crops:
      raise InputError(f'{folder} holds no crop of frames 1 to {n}, such as 00001.jpg')
    self.boxes, self.seen, self.unreadable = np.full((n, 4), np.nan), True, 0

  def face(self, frame, image):
    """The face as a PIL image, or None. frame: from 0; image: the picture (H,W,3) uint8."""
    try:
      return faces.open_crop(self.crops[frame + 1]) if frame + 1 in self.crops else None
    except InputError:
      self.unreadable += 1
      return None

  @property
  def notes(self):
    """Remarks for people, after the last frame."""
    return [f'{self.unreadable} of the crops cannot be read: no face in their frames'] if self.unreadable else []


class FoundFaces:
  """The face that is found in a video and followed.

  boxes (n,4): left, top, width and height in parts of the picture, NaN without a face; cuts: how many pictures are wholly unlike the one
  before; seen: whether there is a face at all.
  """

  def __init__(self, path, timeline, which, clock, progress):
    """which: as `tracking.choose` takes it. clock: a Clock, for 'decode' and 'faces'. progress: a tqdm."""
    self.clock, self.cuts = clock, 0
    n = len(timeline.times)
    self.sizes = np.ones((n, 2))  # of the pictures, in parts of their longer side, as are all places until the end
    track = tracking.choose(tracking.link(timeline.times, self.look(path, timeline.times, progress)), which)
    self.boxes, self.points, self.seen = np.full((n, 4), np.nan), np.full((n, 5, 2), np.nan), track is not None
    if self.seen:
      self.boxes[track.frames], self.points[track.frames] = track.boxes, track.points
    self.boxes /= np.tile(self.sizes, 2)
    self.points /= self.sizes[:, None]

  def look(self, path, times, progress):
    """Yields (frame, boxes, points) of the frame that is nearest to each time at which to look, of the last, and of both sides of a cut."""
    looked, due, before = -1, 0.0, None  # the frame that was looked at, the time for the next, and the picture before

    def found(frame, image):
      boxes, points, _ = detection.detect(image)
      return frame, boxes / max(image.shape[:2]), points / max(image.shape[:2])

    for frame, image in enumerate(self.clock.each('decode', itertools.islice(video.read_frames(path, LOOKED_AT), len(times)))):
      with self.clock('faces', 1):
        self.sizes[frame] = np.array(image.shape[1::-1]) / max(image.shape[:2])
        # A face that is where another was may be somebody else's after a cut.
        cut = before is not None and (before.shape != image.shape or np.abs(
            before[::COARSE, ::COARSE].astype(int) - image[::COARSE, ::COARSE]).mean() > CHANGE)
        self.cuts += cut
        if cut and looked < frame - 1:
          yield found(frame - 1, before)
        if cut or frame == len(times) - 1 or times[frame] + times[frame + 1] >= 2 * due:
          yield found(frame, image)
          looked, due = frame, times[frame] + 1 / LOOKS
      before = image
      progress.update()

  def face(self, frame, image):
    """As that of GivenFaces: aligned, cut from the picture."""
    points = self.points[frame]
    if np.isnan(points[0, 0]):
      return None
    with self.clock('faces', 0):
      return Image.fromarray(detection.align(image, points * image.shape[1::-1]))

  @property
  def notes(self):
    """Remarks for people."""
    cuts = f'{self.cuts} {"cut" if self.cuts == 1 else "cuts"}'
    return [f'at least {cuts} of the film: whose face follows is told by its place and size alone'] if self.cuts else []
