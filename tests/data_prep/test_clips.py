"""Tests that a clip whose files do not fit together, or are broken, is refused by name."""

import os

import numpy as np
import pytest
from official_set import ANNOTATIONS, tone, write_video

from avjax.data import records
from avjax.errors import InputError
from data_prep import build, clips
from data_prep.sources import SOURCES

LAYOUT = records.Layout(12, 8, 16)


def decode(source, name, tolerate=()):
  args = build.parse_args(
    ['--source', str(source), '--data_dir', 'unused', '--tolerate', ','.join(tolerate)]
  )
  planned = SOURCES[args.layout].plan(args)
  (job,) = (job for jobs in planned.values() for job in jobs if job.clip.name == name)
  return clips.decode_clip(job, LAYOUT)


def annotate(source, name, rows):
  text = '\n'.join(['valence,arousal', *['0.1,0.2'] * rows])
  (source / ANNOTATIONS / 'Train_Set' / f'{name}.txt').write_text(text)


def test_lengths_may_differ_by_thirty_frames(broken):
  for rows, kept in ((20 + 30, 20), (15, 15)):
    annotate(broken, '104', rows)
    np.testing.assert_array_equal(decode(broken, '104').frames, np.arange(1, kept + 1))
  annotate(broken, '104', 20 + 31)
  with pytest.raises(
    InputError, match=r'104.txt has 51 rows, but .*104.avi has 20 frames.*--tolerate length'
  ):
    decode(broken, '104')
  assert len(decode(broken, '104', ['length']).frames) == 20


def test_crops_far_beyond_the_video_are_refused(broken):
  (broken / 'cropped_aligned/104/00020.jpg').rename(broken / 'cropped_aligned/104/00051.jpg')
  with pytest.raises(InputError, match=r'goes up to frame 51, but .*104.avi has 20 frames'):
    decode(broken, '104')


def test_broken_files_are_named(broken):
  os.truncate(broken / 'cropped_aligned/104/00007.jpg', 300)
  with pytest.raises(InputError, match=r'104/00007.jpg cannot be read as an image'):
    decode(broken, '104')
  (broken / 'unreadable.txt').write_text('104/00007.jpg\n')
  clip = decode(broken, '104')
  assert clip.unreadable == 1 and np.flatnonzero(~clip.face_present).tolist() == [6]
  os.truncate(broken / 'batch1/103.mp4', 3000)
  with pytest.raises(InputError, match=r'103.mp4 cannot be read as a video'):
    decode(broken, '103')


def test_an_empty_folder_of_crops_is_refused(broken):
  for path in (broken / 'cropped_aligned/104').glob('*.jpg'):
    path.unlink()
  with pytest.raises(InputError, match='104 holds no crops'):
    decode(broken, '104')


def test_sound_that_is_absent_silent_short_or_late_is_masked(broken):
  path = broken / 'batch1/104.avi'
  write_video(path, 20)
  assert not decode(broken, '104').audio_present.any()
  write_video(path, 20, 0 * tone(20))
  assert not decode(broken, '104').audio_present.any()
  write_video(path, 20, tone(20)[: 44_100 // 25 * 12])
  clip = decode(broken, '104')
  np.testing.assert_array_equal(clip.audio_present, np.arange(20) < 12)
  path.unlink()
  write_video(broken / 'batch1/104.mp4', 20, tone(20), sound_delay=0.2)
  clip = decode(broken, '104')
  np.testing.assert_array_equal(clip.audio_present, np.arange(20) >= 5)


def test_a_variable_rate_takes_sound_by_time(broken):
  (broken / 'batch1/104.avi').unlink()
  pts = np.cumsum([0, *[40, 80] * 9, 40])
  write_video(broken / 'batch1/104.mp4', 20, tone(40), pts=pts)
  clip = decode(broken, '104')
  np.testing.assert_allclose(clip.times, pts / 1000, atol=1e-4)
  heard = clip.log_mel[clip.window_starts].argmax(axis=1) - 18  # which of the 40 ms tones sounds
  assert np.abs(heard - pts / 40).max() <= 1
