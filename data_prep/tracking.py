"""One person in a video: the faces of its frames linked to tracks, and the track of the person that is meant."""

import array

import numpy as np

from data_prep.detection import overlap
from data_prep.errors import InputError

LINK = 0.2           # least overlap of a face with the one it was
LOST_SECONDS = 1.0   # a face that is gone for longer begins a new track
SHORTEST = 3         # frames; fewer are a mistake of the detector, unless there is nothing else
NEAR = 2.0           # widths of a face: within them, and half to twice the size, somebody who comes back is the same


class Track:
  """A face over time, in m frames: frames (m,) from 0, ascending; boxes (m,4) and points (m,5,2) as `detection.detector` gives them."""

  def __init__(self):
    # Films are long: numbers side by side take a tenth of the memory of an object for each.
    self.numbers, self.places = array.array('q'), array.array('d')

  def add(self, frame, box, points):
    self.numbers.append(frame)
    self.places.extend([*box, *np.ravel(points)])

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
  """Links faces from frame to frame by overlap; returns a list of Tracks in order of their first frame.

  times (n,) in seconds. detections: for each frame that was looked at (frame, boxes, points), the surest face first; may be an iterator.
  """
  tracks, open_tracks = [], []
  for frame, boxes, points in detections:
    open_tracks = [track for track in open_tracks if times[frame] - times[track.last[0]] <= LOST_SECONDS]
    pairs = sorted(((overlap(track.last[1], box), -j, i) for i, track in enumerate(open_tracks) for j, box in enumerate(boxes)),
                   reverse=True)
    taken, placed = set(), set()
    for shared, j, i in pairs:
      if shared >= LINK and i not in taken and -j not in placed:
        taken.add(i)
        placed.add(-j)
        open_tracks[i].add(frame, boxes[-j], points[-j])
    for j in range(len(boxes)):
      if j not in placed:
        track = Track()
        track.add(frame, boxes[j], points[j])
        tracks.append(track)
        open_tracks.append(track)
  steady = [track for track in tracks if len(track.numbers) >= SHORTEST]
  return steady or tracks


def choose(tracks, which='largest'):
  """The track of one person, joined with those in which the same person comes back; None where there is no face at all.

  which: 'largest' (large and steady), 'left' or 'right' in the picture, or N, the N-th largest, from 1. InputError where there are
  fewer than N.
  """
  people = []  # each a list of tracks that never overlap in time
  for track in sorted(tracks, key=Track.weight, reverse=True):
    for person in people:
      ordered = sorted([*person, track], key=lambda track: track.numbers[0])
      if all(map(same_person, ordered, ordered[1:])):
        person[:] = ordered
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
  if first.numbers[-1] >= second.numbers[0]:
    return False
  end, start = first.last[1], second.boxes[0]
  near = np.hypot(*(end[:2] + end[2:] / 2 - start[:2] - start[2:] / 2)) <= NEAR * max(end[2], start[2])
  return near and 0.5 <= end[2] / start[2] <= 2


def join(person):
  """One Track of several, in order of time."""
  joined = Track()
  for track in person:
    joined.extend(track)
  return joined


def fill(track, times, apart, cuts):
  """The place of a face in every frame of a film of which not every frame was looked at.

  Args:
    track: Track, or None.
    times: (n,) in seconds.
    apart: frames between which a face that is in both is also in those between, where it goes straight on.
    cuts: frames with which a new scene begins: until there it stays where it was.

  Returns boxes (n,4) and points (n,5,2) in pixels, NaN where there is none.
  """
  places = np.full((len(times), 14), np.nan)
  if track:
    frames, known = track.frames, np.concatenate([track.boxes, track.points.reshape(-1, 10)], axis=1)
    places[frames] = known
    for k in np.flatnonzero(np.diff(frames) > 1):
      first, last = frames[k], frames[k + 1]
      if last - first <= apart:
        share = np.zeros(last - first - 1) if last in cuts else (times[first + 1:last] - times[first]) / (times[last] - times[first])
        places[first + 1:last] = known[k] + share[:, None] * (known[k + 1] - known[k])
  return places[:, :4], places[:, 4:].reshape(-1, 5, 2)
