"""One person in a video: the faces of its frames linked to tracks, and the track of the person that is meant."""

import array
import bisect
import itertools

import numpy as np

from avjax.errors import InputError
from avjax.media.detection import overlap

LINK = 0.2           # least overlap of a face with the one it was
LOST_SECONDS = 1.0   # a face that is gone for longer begins a new track
SHORTEST = 3         # looks; fewer are a mistake of the detector, unless there is nothing else
NEAR = 2.0           # widths of a face: within them, and half to twice the size, somebody who comes back is the same


class Track:
  """A face over time, in m frames: frames (m,) from 0, ascending; boxes (m,4) and points (m,5,2) as `detection.detector` gives them.

  looks: in how many of these frames it was looked for; in the others it goes straight on from one look to the next.
  """

  def __init__(self):
    # Films are long: numbers side by side take a tenth of the memory of an object for each.
    self.numbers, self.places, self.looks = array.array('q'), array.array('d'), 0

  def add(self, frame, place):
    """place (14,): a box and its points."""
    self.numbers.append(frame)
    self.places.extend(place)

  def extend(self, later):
    """Goes on as a later track."""
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
    """Its first frame and box."""
    return self.numbers[0], np.array(self.places[:4])

  @property
  def last(self):
    """Its last frame and box."""
    return self.numbers[-1], np.array(self.places[-14:-10])

  def weight(self):
    """Large and steady: the widths of all its boxes together."""
    return float(self.boxes[:, 2].sum())

  def centre(self):
    """Where it is on average, from the left."""
    return float((self.boxes[:, 0] + self.boxes[:, 2] / 2).mean())


def link(times, detections):
  """Links faces from look to look by overlap; returns a list of Tracks in order of their first frame.

  times (n,) in seconds. detections: for each frame that was looked at (frame, boxes, points), the surest face first; may be an iterator.
  A face that is in two looks, one after the other, is also in the frames between, where it goes straight on.
  """
  tracks, open_tracks, before = [], [], None
  for frame, boxes, points in detections:
    open_tracks = [track for track in open_tracks if track.last[0] == before or times[frame] - times[track.last[0]] <= LOST_SECONDS]
    pairs = sorted(((overlap(track.last[1], box), -j, i) for i, track in enumerate(open_tracks) for j, box in enumerate(boxes)),
                   reverse=True)
    taken, placed = {}, set()  # track -> face, and faces
    for shared, j, i in pairs:
      if shared >= LINK and i not in taken and -j not in placed:
        taken[i] = -j
        placed.add(-j)
    for j in range(len(boxes)):
      if j not in placed:
        taken[len(open_tracks)] = j
        open_tracks.append(Track())
        tracks.append(open_tracks[-1])
    for i, j in taken.items():
      track, place = open_tracks[i], np.concatenate([boxes[j], np.ravel(points[j])])
      if track.numbers and track.last[0] == before:
        start = np.array(track.places[-14:])
        for k in range(before + 1, frame):
          track.add(k, start + (times[k] - times[before]) / (times[frame] - times[before]) * (place - start))
      track.add(frame, place)
      track.looks += 1
    before = frame
  steady = [track for track in tracks if track.looks >= SHORTEST]
  return steady or tracks


def choose(tracks, which='largest'):
  """The track of one person, joined with those in which the same person comes back; None where there is no face at all.

  which: 'largest' (large and steady), 'left' or 'right' in the picture, or N, the N-th largest, from 1. InputError where there are
  fewer than N.
  """
  people = []  # each a list of tracks, in order of time, that never overlap
  for track in sorted(tracks, key=Track.weight, reverse=True):
    for person in people:
      at = bisect.bisect(person, track.first[0], key=lambda other: other.first[0])
      if all(same_person(*pair) for pair in itertools.pairwise([*person[max(at - 1, 0):at], track, *person[at:at + 1]])):
        person.insert(at, track)
        break
    else:
      people.append([track])
  if not people:
    return None
  people.sort(key=lambda person: -sum(map(Track.weight, person)))
  if which in ('left', 'right'):
    # Somebody who is seen for a moment at the edge of the picture is not meant.
    seen = [sum(len(track.numbers) for track in person) for person in people]
    people = [person for person, frames in zip(people, seen) if frames >= max(seen) / 5]
    people.sort(key=lambda person: np.average([track.centre() for track in person], weights=[len(track.numbers) for track in person]))
    return join(people[0 if which == 'left' else -1])
  number = 1 if which == 'largest' else int(which)
  if not 1 <= number <= len(people):
    raise InputError(f'there is no face {number}: {len(people)} {"person is" if len(people) == 1 else "people are"} seen')
  return join(people[number - 1])


def same_person(first, second):
  """Whether a track ends before the next begins, near where that begins and in a like size."""
  (last, end), (next_, start) = first.last, second.first
  if last >= next_:
    return False
  near = np.hypot(*(end[:2] + end[2:] / 2 - start[:2] - start[2:] / 2)) <= NEAR * max(end[2], start[2])
  return near and 0.5 <= end[2] / start[2] <= 2


def join(person):
  """One Track of several, in order of time."""
  joined = Track()
  for track in person:
    joined.extend(track)
  return joined
