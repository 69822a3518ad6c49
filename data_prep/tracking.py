"""One person in a video: the faces of its frames linked to tracks, and the track of the person that is meant."""

import dataclasses

import numpy as np

from data_prep.detection import overlap
from data_prep.errors import InputError

LINK = 0.2           # least overlap of a face with the one it was
LOST_SECONDS = 1.0   # a face that is gone for longer begins a new track
SHORTEST = 3         # frames; fewer are a mistake of the detector, unless there is nothing else
NEAR = 2.0           # widths of a face: within them, and half to twice the size, somebody who comes back is the same


@dataclasses.dataclass
class Track:
  """A face over time: frames (m,) from 0, ascending; boxes (m,4) and points (m,5,2) as `detection.detector` gives them."""
  frames: list
  boxes: list
  points: list

  def weight(self):
    """Large and steady: the widths of all its boxes together."""
    return float(sum(box[2] for box in self.boxes))

  def centre(self):
    """Where it is on average, from the left."""
    return float(np.mean([box[0] + box[2] / 2 for box in self.boxes]))


def link(times, detections):
  """Links faces from frame to frame by overlap; returns a list of Tracks in order of their first frame.

  times (n,) in seconds. detections: for each frame (boxes, points), the surest first; may be an iterator.
  """
  tracks, open_tracks = [], []
  for frame, (boxes, points) in enumerate(detections):
    open_tracks = [track for track in open_tracks if times[frame] - times[track.frames[-1]] <= LOST_SECONDS]
    pairs = sorted(((overlap(track.boxes[-1], box), -j, i) for i, track in enumerate(open_tracks) for j, box in enumerate(boxes)),
                   reverse=True)
    taken, placed = set(), set()
    for shared, j, i in pairs:
      if shared >= LINK and i not in taken and -j not in placed:
        taken.add(i)
        placed.add(-j)
        extend(open_tracks[i], frame, boxes[-j], points[-j])
    for j in range(len(boxes)):
      if j not in placed:
        track = Track([], [], [])
        extend(track, frame, boxes[j], points[j])
        tracks.append(track)
        open_tracks.append(track)
  steady = [track for track in tracks if len(track.frames) >= SHORTEST]
  return steady or tracks


def extend(track, frame, box, points):
  track.frames.append(frame)
  track.boxes.append(np.asarray(box))
  track.points.append(np.asarray(points))


def choose(tracks, which='largest'):
  """The track of one person, joined with those in which the same person comes back; None where there is no face at all.

  which: 'largest' (large and steady), 'left' or 'right' in the picture, or N, the N-th largest, from 1. InputError where there are
  fewer than N.
  """
  people = []  # each a list of tracks that never overlap in time
  for track in sorted(tracks, key=Track.weight, reverse=True):
    for person in people:
      ordered = sorted([*person, track], key=lambda track: track.frames[0])
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
    seen = [sum(len(track.frames) for track in person) for person in people]
    people = [person for person, frames in zip(people, seen) if frames >= max(seen) / 5]
    people.sort(key=lambda person: np.average([track.centre() for track in person], weights=[len(track.frames) for track in person]))
    return join(people[0 if which == 'left' else -1])
  number = 1 if which == 'largest' else int(which)
  if not 1 <= number <= len(people):
    raise InputError(f'there is no face {number}: {len(people)} {"person is" if len(people) == 1 else "people are"} seen')
  return join(people[number - 1])


def same_person(first, second):
  """Whether a track ends before the next begins, near where that begins and in a like size."""
  if first.frames[-1] >= second.frames[0]:
    return False
  end, start = first.boxes[-1], second.boxes[0]
  near = np.hypot(*(end[:2] + end[2:] / 2 - start[:2] - start[2:] / 2)) <= NEAR * max(end[2], start[2])
  return near and 0.5 <= end[2] / start[2] <= 2


def join(person):
  """One Track of several, in order of time."""
  joined = Track([], [], [])
  for track in person:
    for part in ('frames', 'boxes', 'points'):
      getattr(joined, part).extend(getattr(track, part))
  return joined
