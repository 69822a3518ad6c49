"""Generates a small synthetic Aff-Wild2 in the official layout, or as a folder of one's own.

Drawn faces and synthesised voices show valence and arousal, so a small model can learn to predict
them. Everything that is awkward in the real set occurs here too. Scores on this set say nothing
about Aff-Wild2.

This file lists the videos and says where their files go. video.py makes one video from what
latents.py, face.py and voice.py invent, and film.py encodes it. `python -m data_prep.mini` is the
command.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

from avjax import files
from avjax.errors import InputError
from avjax.media import faces
from data_prep import parallel
from data_prep.mini.latents import DEFAULT_DIALS, PRESETS, Dials
from data_prep.mini.video import BROKEN_FRAME, Places, Video, make_video
from data_prep.sources import affwild2, plain

VERSION = 1  # raise it whenever the same settings give other files
PLAIN_RATE = 15  # frames per second of a plain video, unless another is asked for
# These are always made, however many videos are asked for. Each has one quirk; '' is a plain video
# whose frame rate no other has.
AWKWARD = (
  Video('105', 'train', 30, '.mp4', 'gaps'),  # -5 at the start, inside, in only one column
  Video('video12_1', 'train', 25, '.avi', 'missing_faces'),  # at the start, two runs, one frame
  Video('10-60-1280x720', 'train', 25, '.mp4', 'two_subjects'),  # _left and _right, one sound
  Video('102', 'train', 25, '.avi', 'tiny'),  # 40 frames
  Video('212', 'train', 24, '.mp4', 'short'),  # at most 170 frames
  Video('24-30-1920x1080', 'train', 29.97, '.mp4', 'short_annotation'),  # a row fewer than frames
  Video('171', 'train', 24, '.avi', 'no_sound'),
  Video('239', 'train', 24, '.mp4', 'silent'),
  Video('video84', 'train', 24, '.mp4', 'short_sound'),  # ends after 80 % of the video
  Video('54-30-1080x1920', 'train', 30, '.mp4', 'late_video'),  # begins 0.3 s after the sound
  Video('286', 'train', 25, '.mp4', 'late_sound'),  # begins 0.4 s after the first frame
  Video('17-24-1920x1080', 'train', 24, '.mp4', 'variable_rate'),
  Video('40-60-1280x720', 'train', 60, '.mp4'),
  Video('303', 'validation', 15, '.avi', 'broken_crop'),  # half a jpg, listed in unreadable.txt
  Video('video63', 'validation', 23.976, '.mp4', 'long_annotation'),  # two rows more than frames
  Video('318', 'test', 25, '.avi'),
  Video('96-30-1280x720', 'test', 30, '.mp4'),
)
ANNOTATIONS = '8th ABAW Annotations/VA_Estimation_Challenge'
ANNOTATION_FOLDERS = {'train': 'Train_Set', 'validation': 'Validation_Set', 'test': None}
TEST_LIST = (
  'test_set/names_of_videos_in_each_test_set/'
  'Valence_Arousal_Estimation_Challenge_test_set_release.txt'
)
TEST_SAMPLE = 'test_set/prediction_files_format/CVPR_8th_ABAW_VA_test_set_sample.txt'
FOLDERS = (
  ('batch1', 'cropped_aligned'),
  ('batch1', 'cropped_aligned'),
  ('batch2', 'cropped_aligned'),
  ('batch2', 'cropped_aligned'),
  ('new_vids', 'cropped_aligned_new_50_vids'),
)
OFFICIAL, PLAIN = LAYOUTS = 'official', 'plain'  # how the files are laid out
DONE, BEGUN = 'mini.json', 'mini.partial.json'


def list_videos(count, rate=PLAIN_RATE):
  """Returns `count` videos: the awkward ones, and plain ones of `rate` frames/s.

  Every third plain one is for validation.
  """
  if count < len(AWKWARD):
    raise InputError(
      f'--videos must be at least {len(AWKWARD)}, the awkward ones that are always there, '
      f'not {count}'
    )
  plain = []
  for i in range(count - len(AWKWARD)):
    name = (f'{400 + i}', f'video{100 + i}', f'{100 + i}-{rate:g}-640x480')[i % 3]
    plain.append(
      Video(name, 'validation' if i % 3 == 2 else 'train', rate, '.avi' if i % 7 == 3 else '.mp4')
    )
  return [*AWKWARD, *plain]


def generate(
  output: str | os.PathLike[str],
  seed: int = 0,
  videos: int = 40,
  *,
  seconds: float = 16.0,
  rate: float = PLAIN_RATE,
  dials: Dials = DEFAULT_DIALS,
  workers: int | None = None,
  layout: str = OFFICIAL,
) -> dict[str, int]:
  """Writes the data set, the same bytes for the same settings.

  Args:
    output: folder, new or empty. A complete mini set of the same settings stays as it is; an
      interrupted one is finished.
    seed: any int.
    videos: how many, at least len(AWKWARD).
    seconds: length of each, 6 to 300. Videos above 24 frames/s and two short ones are shorter.
    rate: frames per second of the plain videos, 5 to 60.
    dials: what faces and voices show, and how often they contradict each other.
    workers: processes; None is one per core. Their number does not change the files.
    layout: one of LAYOUTS: that of Aff-Wild2, or that of data_prep/sources/plain.py with the same
      videos, crops, labels and splits.

  Returns {'videos', 'clips', 'frames'}: their numbers; frames are counted per clip.
  Raises InputError where a setting is out of range or `output` holds anything else.
  """
  check_settings(seconds, rate, dials)
  table = list_videos(videos, rate)
  settings = {
    'version': VERSION,
    'seed': seed,
    'videos': videos,
    'seconds': float(seconds),
    'rate': float(rate),
    'layout': layout,
    **dataclasses.asdict(dials),
  }
  counts = {
    'videos': len(table),
    'clips': sum(len(video.clips) for video in table),
    'frames': sum(len(video.clips) * video.frame_count(seconds) for video in table),
  }

  output = pathlib.Path(output)
  if read_settings(output / DONE) == settings:
    return counts
  files.remove_abandoned(output)
  occupied = output.exists() and files.visible(files.existing_folder(output))
  if occupied and read_settings(output / BEGUN) != settings:
    raise InputError(
      f'{output} is not empty and not a mini data set of these settings; name another folder'
    )

  output.mkdir(parents=True, exist_ok=True)
  files.write_text(output / BEGUN, json.dumps(settings, indent=2) + '\n')
  jobs = [
    (i, video, find_places(output, i, video, layout), seed, seconds, dials)
    for i, video in enumerate(table)
  ]
  for _, _, places, *_ in jobs:
    for place in filter(None, (places.videos, places.crops, places.annotations, places.truth)):
      place.mkdir(parents=True, exist_ok=True)
  # The longest first, so that all processes end at about the same time.
  jobs.sort(key=lambda job: -job[1].frame_count(seconds) * len(job[1].clips))
  with parallel.spawned_pool(workers or parallel.core_count()) as pool:
    list(pool.map(make_video, *zip(*jobs, strict=True)))
  if layout == PLAIN:
    write_plain_lists(output, table)
  else:
    write_lists(output, table, seconds)
  os.replace(output / BEGUN, output / DONE)
  return counts


def check_settings(seconds, rate, dials):
  """Raises InputError, naming the option of the command, for a setting that is out of range."""
  if not 6 <= seconds <= 300:
    raise InputError(f'--seconds must be between 6 and 300, not {seconds:g}')
  if not 5 <= rate <= 60:
    raise InputError(f'--rate must be between 5 and 60, not {rate:g}')
  if dials.preset not in PRESETS:
    raise InputError(f'--preset must be one of {", ".join(PRESETS)}, not {dials.preset!r}')
  for name in ('rho', 'anti', 'kappa'):
    if not 0 <= getattr(dials, name) <= 1:
      raise InputError(f'--{name} must be between 0 and 1, not {getattr(dials, name):g}')


def read_settings(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the settings that `generate` wrote to a file, or None where it wrote none."""
  try:
    # Version 0.1.0 had no `rate`, and version 0.2.0 no `layout`.
    return {'rate': PLAIN_RATE, 'layout': OFFICIAL, **files.read_json(path)}
  except InputError:
    return None


def find_places(output, i, video, layout):
  """Returns the Places of the i-th video.

  In the official layout, of every five videos two are in batch1, two in batch2 and one in new_vids.
  """
  if layout == PLAIN:
    labels = None if video.partition == 'test' else output / plain.LABELS
    folders = output / plain.VIDEOS, output / plain.CROPS, labels, output / '_truth'
    return Places(*folders, by_frame=True)
  videos, crops = FOLDERS[i % len(FOLDERS)]
  folder = ANNOTATION_FOLDERS[video.partition]
  return Places(
    output / 'videos' / videos,
    output / crops,
    folder and output / ANNOTATIONS / folder,
    output / '_truth',
  )


def write_lists(output, table, seconds):
  """Writes the files that belong to no video.

  These are the test list, the template of a submission, the list of broken crops, and the .DS_Store
  files that macOS leaves in folders.
  """
  tests = [
    (clip, video.frame_count(seconds))
    for video in table
    if video.partition == 'test'
    for clip in video.clips
  ]
  rows = [
    'image_location,valence,arousal',
    *(f'{clip}/{k:05d}.jpg,,' for clip, n in tests for k in range(1, n + 1)),
  ]
  for path, lines in (
    (TEST_LIST, [clip for clip, _ in tests]),
    (TEST_SAMPLE, rows),
    (faces.UNREADABLE_LIST, broken_crops(table)),
  ):
    (output / path).parent.mkdir(parents=True, exist_ok=True)
    (output / path).write_text('\n'.join(lines) + '\n')
  for folder in sorted({crops for _, crops in FOLDERS}):
    for place in (
      output / folder,
      min(path for path in (output / folder).iterdir() if path.is_dir()),
    ):
      (place / '.DS_Store').write_bytes(b'\0\0\0\1Bud1\0')


def broken_crops(table):
  """Returns the crops that are half a file, as unreadable.txt lists them."""
  return [f'{video.name}/{BROKEN_FRAME:05d}.jpg' for video in table if video.quirk == 'broken_crop']


def write_plain_lists(output, table):
  """Writes the tables of the plain layout: the splits of the official one, persons, broken crops.

  Every clip shows a subject of its own.
  """
  clips = [
    (name, video, affwild2.Clip(name, pathlib.Path(video.name), output, None, video.partition))
    for video in table
    for name in video.clips
  ]
  splits = affwild2.split_clips(sorted((clip for *_, clip in clips), key=lambda clip: clip.name))
  for path, lines in (
    (
      plain.SPLITS,
      [
        'name,split,subject',
        *(f'{clip.name},{split},{clip.name}' for split in splits for clip in splits[split]),
      ],
    ),
    (
      plain.PERSONS,
      [
        'name,face,video',
        *(
          f'{name},{name.rpartition("_")[2]},{video.name}'
          for name, video, _ in clips
          if name != video.name
        ),
      ],
    ),
    (faces.UNREADABLE_LIST, broken_crops(table)),
  ):
    (output / path).write_text('\n'.join(lines) + '\n')
