"""Tests whose face is followed, on made-up boxes that move, vanish, come back and cross."""

import numpy as np
import pytest

from avjax.errors import InputError
from avjax.media import tracking


def video(frames, **people):
  """Returns (frame, boxes, points) of each frame, of people {name: frame -> (left, top, width) or
  None}; a face is as high as it is wide.
  """
  for frame in range(frames):
    boxes = [
      (left, top, width, width)
      for left, top, width in filter(None, (place(frame) for place in people.values()))
    ]
    yield (
      frame,
      np.array(boxes, float).reshape(-1, 4),
      np.repeat(np.array(boxes, float).reshape(-1, 4)[:, None, :2], 5, axis=1),
    )


def chosen(frames, which='largest', rate=25, **people):
  track = tracking.choose(tracking.link(np.arange(frames) / rate, video(frames, **people)), which)
  return track and list(
    zip(
      track.frames,
      (box[0] for box in track.boxes),
      (points[0][0] for points in track.points),
      strict=True,
    )
  )


def test_the_larger_of_two_and_the_one_on_either_side():
  people = {'left': lambda f: (100 + f, 50, 40), 'right': lambda f: (400 - f, 60, 60)}
  expected = {
    'left': [(f, 100 + f, 100 + f) for f in range(50)],
    'right': [(f, 400 - f, 400 - f) for f in range(50)],
  }
  assert (
    chosen(50, **people)
    == chosen(50, 1, **people)
    == chosen(50, 'right', **people)
    == expected['right']
  )
  assert chosen(50, 'left', **people) == chosen(50, '2', **people) == expected['left']
  with pytest.raises(InputError, match='there is no face 3: 2 people are seen'):
    chosen(50, 3, **people)
  with pytest.raises(InputError, match='no face 0'):
    chosen(50, '0', **people)


def test_steady_counts_for_more_than_large():
  people = {
    'passer': lambda f: (10 + 9 * f, 0, 90) if f < 8 else None,
    'speaker': lambda f: (300, 50, 50),
  }
  assert {left for _, left, _ in chosen(60, **people)} == {300}
  # And a passer at the edge is not the person on the left.
  assert {left for _, left, _ in chosen(60, 'left', **people)} == {300}


def test_a_face_that_is_missed_or_leaves_and_comes_back_is_the_same():
  # Hands before the face for two seconds.
  seen = lambda f: (200 + f, 50, 50) if f % 7 and not 40 <= f < 90 else None
  track = chosen(130, person=seen)
  assert [frame for frame, *_ in track] == [f for f in range(130) if seen(f)]
  # Far away, or in another size, or at the same time, it is somebody else.
  other = lambda f: (500, 50, 50) if f >= 90 else None
  first = lambda f: (200, 50, 60) if f < 60 else None
  assert [frame for frame, *_ in chosen(130, first=first, other=other)] == list(range(60))


def test_two_who_pass_each_other_keep_their_names():
  """Where boxes overlap for a moment, each track goes on with the nearest."""
  people = {'a': lambda f: (100 + 4 * f, 50, 40), 'b': lambda f: (300 - 4 * f, 75, 41)}
  track = chosen(50, 'largest', **people)
  assert [left for _, left, _ in track] == [300 - 4 * f for f in range(50)]


def test_mistakes_of_the_detector_do_not_count_unless_there_is_nothing_else():
  blink = lambda f: (600, 0, 200) if f == 20 else None
  assert {left for _, left, _ in chosen(40, person=lambda f: (100, 0, 40), blink=blink)} == {100}
  assert [frame for frame, *_ in chosen(40, blink=blink)] == [20]
  assert chosen(40) is None


def test_between_looks_a_face_goes_straight_on():
  """Between two detections a face moves on a straight line, by time and not by frame number.

  It does not where a frame between them was searched in vain, or where the face jumped.
  """
  times = np.array([0, 1, 3, 4, 5, 6, 7, 8, 9.0]) / 25

  def looks():
    for frame, left in ((0, 10.0), (2, 13.0), (4, None), (6, 15.0), (7, 80.0), (8, 81.0)):
      boxes = np.array([] if left is None else [[left, 0, 20, 20]]).reshape(-1, 4)
      yield frame, boxes, np.repeat(boxes[:, None, :2], 5, axis=1)

  tracks = tracking.link(times, looks())
  assert [(list(track.frames), list(track.boxes[:, 0]), track.looks) for track in tracks] == [
    ([0, 1, 2, 6], [10, 11, 13, 15], 3)
  ]
  np.testing.assert_array_equal(tracks[0].points[1], np.tile([11, 0], (5, 1)))


def test_many_short_tracks_are_chosen_from_in_reasonable_time():
  """A track is compared with its neighbours only, not with all tracks of a person."""
  compared, original = [0], tracking.same_person
  tracks = []
  for k in range(400):
    tracks.append(tracking.Track())
    for frame in range(10 * k, 10 * k + 3):
      tracks[-1].add(frame, np.tile([5.0, 5, 20, 20], 4)[:14])

  def counted(*pair):
    compared[0] += 1
    return original(*pair)

  tracking.same_person = counted
  try:
    assert len(tracking.choose(tracks).frames) == 1200
  finally:
    tracking.same_person = original
  assert compared[0] < 1000
