"""Gives the face of each frame of a video, from a folder of crops or by detection and tracking."""

import itertools
import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from avjax import files
from avjax.errors import InputError, one_line
from avjax.inference import orientation
from avjax.media import detection, faces, tracking

VERSION = 1  # raise it whenever the same film gives other faces: data_prep keeps those it has found
CUT_FROM = 1920  # pixels of the longer side of the frames that faces are cut from
DETECTION_SIDE = 640  # pixels of the longer side of the frames in which faces are looked for
LOOKS_PER_SECOND = 12.5  # between two looks a face moves little, and in a straight line
CUT_GRID = 8  # two frames are compared at every eighth pixel of every eighth row
# A larger mean change of a pixel (0 to 255) between two frames is a cut. It is the usual threshold
# of scene detectors.
CUT_CHANGE = 27
NUMBER = re.compile('[1-9][0-9]{0,3}')  # of a face or a track


def check_face(face: str | int) -> None:
  """Raises InputError unless `face` says whose face of a film is read."""
  if face not in ('largest', 'left', 'right') and not NUMBER.fullmatch(str(face)):
    raise InputError(
      f'face {one_line(face)} is not one of largest, left, right and a number from 1 to 9999'
    )


def each_face(source, person, clock) -> Iterator[tuple[np.ndarray, Image.Image | None]]:
  """Yields (image, face) for each frame of a video: (H,W,3) uint8, and a PIL image or None.

  Args:
    source: a FilmSource or a SoundSource.
    person: a GivenFaces, NoFaces or FoundFaces of n frames.
    clock: measures the stages 'decode' and 'faces'.

  Raises InputError where the video does not have n frames.
  """
  count, frame = len(person.boxes), -1
  for frame, image in enumerate(clock.each('decode', source.frames(CUT_FROM))):
    if frame == count:
      raise InputError(f'{source.path} has more frames than its {count} time stamps')
    yield image, person.face(frame, image)
  if frame + 1 < count:
    raise InputError(f'{source.path} is damaged: {frame + 1} of its {count} frames can be decoded')


class GivenFaces:
  """Takes faces from a folder of aligned crops, 00001.jpg for frame 1, for a video of n frames.

  boxes is NaN, since it is not known where the faces were in the frames.
  """

  def __init__(self, folder, n):
    self.crops = {
      k: crop for k, crop in faces.list_crops(files.existing_folder(folder)).items() if 1 <= k <= n
    }
    if not self.crops:
      raise InputError(f'{folder} holds no crop of frames 1 to {n}, such as 00001.jpg')
    self.boxes, self.any_face, self.unreadable = np.full((n, 4), np.nan), True, 0

  def face(self, frame, image):
    """Returns the face of a frame as a PIL image, or None.

    frame: its index, from 0. image: its pixels, (H,W,3) uint8, which are not needed here.
    """
    try:
      return faces.open_crop(self.crops[frame + 1]) if frame + 1 in self.crops else None
    except InputError:
      self.unreadable += 1
      return None

  @property
  def notes(self):
    """Remarks for people, complete after the last frame."""
    if not self.unreadable:
      return []
    return [f'{self.unreadable} of the crops cannot be read: no face in their frames']


class NoFaces:
  """Stands for the faces of sound without a film, n rows of it: there are none."""

  any_face, notes = False, ()

  def __init__(self, n):
    self.boxes = np.full((n, 4), np.nan)

  def face(self, frame, image):
    """Returns None; frame and image are those of the other classes."""
    del frame, image


class FoundFaces:
  """Finds one person's face in a video and follows it.

  boxes (n,4): left, top, width and height as shares of the frame, NaN without a face.
  any_face: whether there is a face in any frame.
  cuts: number of frames that are quite unlike the one before.
  """

  def __init__(self, timeline, clock):
    """Prepares the search in a video; `clock` measures the stages 'decode' and 'faces'."""
    self.times, self.clock, self.any_face, self.turned = timeline.times, clock, False, ''
    self.begin()

  def begin(self):
    """Forgets what was found."""
    n = len(self.times)
    self.cuts, self.sizes = 0, np.ones((n, 2))  # of the frames, as shares of their longer side
    self.boxes, self.points = np.full((n, 4), np.nan), np.full((n, 5, 2), np.nan)

  def find(self, source, which, upright, progress):
    """Decodes the whole video, and follows the chosen face.

    Args:
      source: a FilmSource.
      which: the face, as `tracking.choose` takes it.
      upright: whether to set `source.turn`, and look once more, where the film is turned.
      progress: a tqdm, updated per frame.
    """
    tracks = tracking.link(self.times, self.look(source, progress))
    turn = self.turn(source, tracks) if upright else 0
    if turn:
      source.turn = turn
      self.turned = (
        f'the faces are not upright: the film is turned by {turn} degrees clockwise; '
        '--rotate 0 leaves it as it is'
      )
      self.begin()
      progress.total += len(self.times)
      tracks = tracking.link(self.times, self.look(source, progress))
    # Places are shares of the longer side until the end, since the size of the frames may change on
    # the way.
    track = tracking.choose(tracks, which)
    self.any_face = track is not None
    if self.any_face:
      self.boxes[track.frames], self.points[track.frames] = track.boxes, track.points
    self.boxes /= np.tile(self.sizes, 2)
    self.points /= self.sizes[:, None]

  def turn(self, source, tracks):
    """Returns the degrees by which a film with these tracks of faces is to be turned clockwise."""
    frames = {frame for track in tracks for frame in track.numbers}
    if len(frames) >= len(self.times) / 2:
      return orientation.turn_of_tracks(tracks)
    # In a turned film the detector may miss the faces.
    return orientation.turn_of_frames(source.frames(DETECTION_SIDE), len(self.times))

  def look(self, source, progress):
    """Yields (frame, boxes, points) for the frames in which faces are looked for.

    These are the frame nearest to each time at which a look is due, the last frame, and both sides
    of a cut.
    """
    times = self.times
    looked = -1  # the last frame looked at
    due = 0.0  # the time of the next look
    before = None  # the image of the frame before

    def found(frame, image):
      boxes, points, _ = detection.detect(image)
      return frame, boxes / max(image.shape[:2]), points / max(image.shape[:2])

    images = itertools.islice(source.frames(DETECTION_SIDE), len(times))
    for frame, image in enumerate(self.clock.each('decode', images)):
      with self.clock('faces', 1):
        self.sizes[frame] = np.array(image.shape[1::-1]) / max(image.shape[:2])
        # After a cut, the face at the same place may be somebody else's.
        cut = before is not None and is_cut(before, image)
        self.cuts += cut
        if cut and looked < frame - 1:
          yield found(frame - 1, before)
        if cut or frame == len(times) - 1 or times[frame] + times[frame + 1] >= 2 * due:
          yield found(frame, image)
          looked, due = frame, times[frame] + 1 / LOOKS_PER_SECOND
      before = image
      progress.update()

  def face(self, frame, image):
    """Returns the face of a frame, cut out and aligned, as a PIL image, or None.

    frame: its index, from 0. image: its pixels, (H,W,3) uint8.
    """
    points = self.points[frame]
    if np.isnan(points[0, 0]):
      return None
    with self.clock('faces', 0):
      return Image.fromarray(detection.align(image, points * image.shape[1::-1]))

  @property
  def notes(self):
    """Remarks for people."""
    notes = [self.turned] if self.turned else []
    if self.cuts:
      cuts = f'{self.cuts} {"cut" if self.cuts == 1 else "cuts"}'
      notes.append(f'at least {cuts}: across a cut the face is followed only by its place and size')
    return notes


def is_cut(before, image):
  """Tells whether a frame is quite unlike the one before; both are (H,W,3) uint8."""
  if before.shape != image.shape:
    return True
  change = before[::CUT_GRID, ::CUT_GRID].astype(int) - image[::CUT_GRID, ::CUT_GRID]
  return np.abs(change).mean() > CUT_CHANGE
