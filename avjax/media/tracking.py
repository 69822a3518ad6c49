"""Follows one person through a video.

A look is a frame in which faces were detected. The faces of the looks are linked into tracks, and
the tracks of the wanted person are chosen.
"""

import array
import bisect
import itertools
from collections.abc import Iterable

import numpy as np

from avjax.errors import InputError
from avjax.media.detection import overlap

LINK = 0.2  # lowest overlap of a face with the box that it had at the look before
LOST_SECONDS = 1.0  # a face that is gone for longer begins a new track
# A track of fewer looks counts as a mistake of the detector, unless there is no other track.
SHORTEST = 3
# A face that reappears within this many of its widths, at half to twice the size, is the same
# person.
RETURN_DISTANCE = 2.0


class Track:
  """Holds a face over time, in m frames.

  frames: (m,) from 0, ascending.
  boxes, points: (m,4) and (m,5,2), as in detection.py, in the unit of the detections.
  looks: in how many of these frames the detector found it; in the others, between two looks, its
    place is interpolated.
  """

  def __init__(self):
    # Videos are long, and packed numbers take a tenth of the memory of one object per number.
    self.numbers, self.places, self.looks = array.array('q'), array.array('d'), 0

  def add(self, frame, place):
    """Adds a frame; place (14,): a box and its points."""
    self.numbers.append(frame)
    self.places.extend(place)

  def extend(self, later):
    """Appends a later track of the same person."""
    self.numbers.extend(later.numbers)
    self.places.extend(later.places)

  @property
  def frames(self):
    return np.array(self.numbers)

  @property
  def boxes(self):
    return np.array(self.places).reshape(-1, 14)[:, :4]

  @property
  def points(self):
    return np.array(self.places).reshape(-1, 14)[:, 4:].reshape(-1, 5, 2)

  @property
  def first(self):
    """The first frame and its box (4,)."""
    return self.numbers[0], np.array(self.places[:4])

  @property
  def last(self):
    """The last frame and its box (4,)."""
    return self.numbers[-1], np.array(self.places[-14:-10])

  def weight(self) -> float:
    """Returns the sum of the widths of all boxes: it grows with size and duration."""
    return float(self.boxes[:, 2].sum())

  def centre(self) -> float:
    """Returns the mean x of the middle of its boxes, from the left, in their unit."""
    return float((self.boxes[:, 0] + self.boxes[:, 2] / 2).mean())


def link(
  times: np.ndarray, detections: Iterable[tuple[int, np.ndarray, np.ndarray]]
) -> list[Track]:
  """Links faces from look to look by overlap.

  Args:
    times: (n,) seconds of the n frames.
    detections: (frame, boxes, points) for each look, in order, the face with the highest score
      first.

  Returns Tracks in order of their first frame. A face that is in two successive looks is also in
  the frames between them, where its place is interpolated.
  """
  tracks, open_tracks, before = [], [], None
  for frame, boxes, points in detections:
    open_tracks = [
      track
      for track in open_tracks
      if track.last[0] == before or times[frame] - times[track.last[0]] <= LOST_SECONDS
    ]
    face_of = match(open_tracks, boxes)
    for j in sorted(set(range(len(boxes))) - set(face_of.values())):
      face_of[len(open_tracks)] = j
      open_tracks.append(Track())
      tracks.append(open_tracks[-1])
    for i, j in face_of.items():
      track, place = open_tracks[i], np.concatenate([boxes[j], np.ravel(points[j])])
      if track.numbers and track.last[0] == before:
        start = np.array(track.places[-14:])
        for k in range(before + 1, frame):
          share = (times[k] - times[before]) / (times[frame] - times[before])
          track.add(k, start + share * (place - start))
      track.add(frame, place)
      track.looks += 1
    before = frame
  steady = [track for track in tracks if track.looks >= SHORTEST]
  return steady or tracks


def match(tracks, boxes):
  """Returns {index of a track: index of the box that continues it}.

  Pairs that overlap most are matched first.
  """
  pairs = sorted(
    (
      (overlap(track.last[1], box), -j, i)
      for i, track in enumerate(tracks)
      for j, box in enumerate(boxes)
    ),
    reverse=True,
  )
  box_of, placed = {}, set()
  # Of equal overlaps, the box with the highest score comes first: j is its negative index.
  for shared, j, i in pairs:
    if shared >= LINK and i not in box_of and -j not in placed:
      box_of[i] = -j
      placed.add(-j)
  return box_of


def choose(tracks: Iterable[Track], which: str | int = 'largest') -> Track | None:
  """Returns the track of one person, joined with those in which the same person reappears.

  which: 'largest' (and longest seen), 'left' or 'right' in the image, or N, the N-th largest, from
    1.
  Returns None where there is no face. Raises InputError where there are fewer than N people.
  """
  people = []  # each a list of tracks, in order of time, that never overlap
  for track in sorted(tracks, key=Track.weight, reverse=True):
    for person in people:
      at = bisect.bisect(person, track.first[0], key=lambda other: other.first[0])
      neighbours = [*person[max(at - 1, 0) : at], track, *person[at : at + 1]]
      if all(same_person(*pair) for pair in itertools.pairwise(neighbours)):
        person.insert(at, track)
        break
    else:
      people.append([track])
  if not people:
    return None
  people.sort(key=lambda person: -sum(map(Track.weight, person)))
  if which in ('left', 'right'):
    # Somebody who is seen for a moment at the edge of the video is not meant.
    seen = [sum(len(track.numbers) for track in person) for person in people]
    people = [
      person for person, frames in zip(people, seen, strict=True) if frames >= max(seen) / 5
    ]
    people.sort(
      key=lambda person: np.average(
        [track.centre() for track in person], weights=[len(track.numbers) for track in person]
      )
    )
    return join(people[0 if which == 'left' else -1])
  number = 1 if which == 'largest' else int(which)
  if not 1 <= number <= len(people):
    seen = 'person is' if len(people) == 1 else 'people are'
    raise InputError(f'there is no face {number}: {len(people)} {seen} seen')
  return join(people[number - 1])


def same_person(first, second):
  """Tells whether two tracks may be of one person.

  The second must begin after the first has ended, near that place and at a similar size.
  """
  (last, end), (next_, start) = first.last, second.first
  if last >= next_:
    return False
  near = np.hypot(*(end[:2] + end[2:] / 2 - start[:2] - start[2:] / 2)) <= RETURN_DISTANCE * max(
    end[2], start[2]
  )
  return near and 0.5 <= end[2] / start[2] <= 2


def join(person):
  """Returns one Track made of several, which are in order of time."""
  joined = Track()
  for track in person:
    joined.extend(track)
  return joined
