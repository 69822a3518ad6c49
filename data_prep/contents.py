"""Tells whether the files that records are made from have changed, without reading all of them.

Sizes and names do not tell a file from another version of it that is as long. So the SHA-256 of
what each clip is made from is kept beside the records, in source.json, with a digest of sizes and
modification times. While these are the same nothing is read. In a copied data set, whose times may
be others, the files are read once more and the new times are kept. source.json is not a part of the
records, whose bytes do not depend on times.
"""

import contextlib
import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import TypedDict

from avjax import files
from avjax.data.records import Layout
from avjax.errors import InputError, as_input_error
from avjax.media import faces
from data_prep import found_faces, parallel
from data_prep.clips import DecodedClip, Job, decode_clip

NAME = 'source.json'


class Contents(TypedDict):
  """Describes some files: a digest of names, sizes and times, and the SHA-256 of their bytes."""

  times: str
  sha256: str


Known = dict[str, Contents]  # {name of a clip, or features/NAME/clip: Contents}


def read(folder: pathlib.Path) -> Known:
  """Returns what `write` wrote into a folder; nothing where there is no such file."""
  path = folder / NAME
  files.remove_abandoned(folder)
  if not path.exists():
    return {}
  try:
    found = files.read_json(path)
  except InputError as error:
    raise InputError(f'{error}; remove it') from error
  with as_input_error(f'{path} is damaged; remove it'):
    return {
      key: Contents(times=value['times'], sha256=value['sha256']) for key, value in found.items()
    }


def write(folder: pathlib.Path, known: Known) -> None:
  """Writes the contents of all files of a source into a folder."""
  files.write_json(folder / NAME, known)


def times_of(paths: Sequence[pathlib.Path]) -> str:
  """Returns a digest of the names, sizes and modification times of files."""
  digest = hashlib.sha256()
  for path in paths:
    digest.update(f'{path.name} '.encode())
    with contextlib.suppress(OSError):  # decoding tells what cannot be read, or masks a listed crop
      found = path.stat()
      digest.update(f'{found.st_size} {found.st_mtime_ns}'.encode())
  return digest.hexdigest()


def sha256_of(paths: Sequence[pathlib.Path]) -> str:
  """Returns the SHA-256 of the bytes of files in order; one that cannot be read counts as empty."""
  digest = hashlib.sha256()
  for path in paths:
    with contextlib.suppress(OSError), files.open_regular(path) as file:
      while block := file.read(1 << 20):
        digest.update(block)
  return digest.hexdigest()


def examine(paths: Sequence[pathlib.Path], known: Contents | None = None) -> Contents:
  """Returns the Contents of files, which are read only if their times are not those known."""
  times = times_of(paths)  # taken first, so that a change while they are read is noticed later
  if known and known['times'] == times:
    return known
  return Contents(times=times, sha256=sha256_of(paths))


def clip_files(job: Job) -> list[pathlib.Path]:
  """Returns the files that only decoding reads: the video and the crops that come with a clip.

  Crops that are made of the video are left out; they may be removed when the records are there.
  """
  crops = {} if job.face else faces.list_crops(job.clip.crops)
  return [job.clip.video, *crops.values()]


def examine_clip(job: Job) -> Contents:
  """Reads the video and the crops of a clip, and returns their Contents."""
  return examine(clip_files(job))


def decode(job: Job, layout: Layout) -> tuple[DecodedClip, Contents]:
  """Returns a decoded clip, and the Contents of the files that it was decoded from.

  Faces that are to be found are found first, unless that has been done before.
  """
  seen = examine_clip(job)
  if job.face:
    found_faces.keep_faces(job.clip.video, seen['sha256'], job.face, job.clip.crops)
  return decode_clip(job, layout), seen


def fingerprint(
  splits: Mapping[str, Sequence[Job]], tolerate: Sequence[str], known: Known
) -> tuple[str, Known]:
  """Computes a SHA-256 that identifies the source data.

  It covers names and sizes of the videos, which crops there are or whose face is found, subjects,
  annotations and the bytes of feature files. Paths and times are left out, so it does not change
  when a data set is moved.

  Args:
    splits: {split: jobs} that the source has planned.
    tolerate: what is accepted although it is otherwise refused.
    known: Contents of files that need not be read again.

  Returns the SHA-256 and the Contents of the feature files.
  """
  digest, seen = hashlib.sha256(repr(tolerate).encode()), {}
  for split, jobs in splits.items():
    for job in jobs:
      broken = sorted(name for name in job.unreadable if name.startswith(f'{job.clip.name}/'))
      video = job.clip.video
      digest.update(repr((split, job.clip.name, video.name, video.stat().st_size, broken)).encode())
      digest.update(job.crop_ids.tobytes())
      if job.labels is not None and job.annotated is not None:
        digest.update(job.labels.tobytes() + job.annotated.tobytes())
      if job.timed is not None:
        digest.update(job.timed.tobytes())
      if job.face or job.subject:
        digest.update(repr((job.face, job.subject)).encode())
      for name, path in job.features.items():  # by content: two backbones may give equal sizes
        key = f'features/{name}/{job.clip.name}'
        seen[key] = examine([path], known.get(key))
        digest.update(f'{name} {seen[key]["sha256"]}'.encode())
  return digest.hexdigest(), seen


def compare(jobs: Sequence[Job], known: Known, workers: int) -> tuple[Known, list[str]]:
  """Compares videos and crops with those that records were made from.

  Args:
    jobs: of the clips that are in the records.
    known: what `read` returned; clips that are not in it are left out.
    workers: processes that read the files whose times differ.

  Returns the Contents of the clips, and the names of those that have changed.
  """
  now = {job.clip.name: known[job.clip.name] for job in jobs if job.clip.name in known}
  touched = [
    job
    for job in jobs
    if job.clip.name in now and now[job.clip.name]['times'] != times_of(clip_files(job))
  ]
  if touched:
    with parallel.ordered(examine_clip, touched, workers, 'compared clip') as found:
      now |= {job.clip.name: seen for job, seen in zip(touched, found, strict=True)}
  return now, [name for name in now if now[name]['sha256'] != known[name]['sha256']]
