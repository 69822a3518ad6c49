"""Reads and writes the manifest, which marks a data set as complete and describes its files."""

import hashlib
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from avjax import errors, files
from avjax.data import records
from avjax.data.names import check_name
from avjax.errors import InputError, as_input_error

NAME, VERSION = 'affwild2', '1.0.0'
MANIFEST = 'manifest.json'
FRAMING = 16  # bytes around each record of a shard
MOST_BYTES = 1 << 50  # of a shard
REMEDY = 'copy it again, or build the records again in another folder'


def version_folder(data_dir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of the shards, given it or a folder one or two levels above it."""
  data_dir = pathlib.Path(data_dir)
  folders = data_dir, data_dir / VERSION, data_dir / NAME / VERSION
  return next((folder for folder in folders if (folder / MANIFEST).is_file()), folders[-1])


def bring_manifest(data_dir: str) -> tuple[files.Bucket, pathlib.Path]:
  """Copies the manifest of records on a bucket, gs://BUCKET/RECORDS, to this machine.

  Returns the folder of the shards on the bucket, and the folder of this machine for their copies,
  where the manifest is. It is in the cache folder of the user, under the SHA-256 of the manifest,
  and stays there for later commands. Raises InputError if there is no manifest.
  """
  for place in ('', f'/{VERSION}', f'/{NAME}/{VERSION}'):
    bucket = files.Bucket(f'{data_dir.rstrip("/")}{place}')
    content, _ = bucket.read(f'/{MANIFEST}')
    if content is not None:
      folder = files.cache_folder('records') / hashlib.sha256(content).hexdigest()
      errors.COPIED_FROM[str(folder)] = bucket.address
      files.copy_to_cache(bucket, f'/{MANIFEST}', folder / MANIFEST)
      return bucket, folder
  raise InputError(f'{data_dir} holds no finished records; name the folder they were copied to')


def bring_shards(
  bucket: files.Bucket, folder: pathlib.Path, manifest: dict[str, Any], names: Iterable[str]
) -> None:
  """Copies those of the shards from a bucket that are not in a folder of this machine yet.

  Raises InputError for one that is missing or does not have the SHA-256 of the manifest.
  """
  shards = manifest['shards']

  def bring(name):
    sha256 = shards[name]['sha256']
    files.copy_to_cache(bucket, f'/{name}', folder / name, sha256, hint=f'; {REMEDY}')

  def is_here(path, size):
    return path.exists() and path.stat().st_size == size

  missing = [name for name in names if not is_here(folder / name, shards[name]['bytes'])]
  files.at_once(bring, missing, f'copying {bucket.address}')


def read_manifest(
  data_dir: str | os.PathLike[str], option: str = '--config.data.dir'
) -> dict[str, Any]:
  """Returns the manifest of a finished data set as a dict.

  Raises InputError if there is none, with the option of the command that names another data_dir and
  the command that makes one, or if it is damaged.

  layout    length, stride, face and features of records.Layout
  max_rows  the largest R of all records
  source    fingerprint of the names, annotations and sizes that went in
  chunks    {split: {'records': n, 'clips': {clip: frames kept}}}; splits.py makes folds of them
  subjects  {clip: who it shows} of the clips whose subject is known; absent where there are none
  shards    {file name: {'records': n, 'bytes': n, 'sha256': hex}}
  metadata  {file name: sha256} of the files that describe the records
  masked    numbers of frames without a face, with a broken crop and without sound, each frame of a
            clip counted once; and of annotated rows beyond the end of their video, which are left
            out
  log_mel_bytes  bytes of all stored spectrograms
  versions  of the packages that shaped the bytes
  """
  path = version_folder(data_dir) / MANIFEST
  if not os.path.lexists(path):
    where = '' if os.path.isabs(data_dir) else ', seen from this folder'
    raise InputError(
      f'{data_dir} holds no finished records{where}; name their folder with {option}, or make '
      f'them: python -m data_prep.build --source AFFWILD2 --data_dir {data_dir}'
    )
  check_inside(data_dir, path)
  files.check_readable(path)
  try:
    manifest = files.read_json(path)
    with as_input_error(f'{path} is damaged'):
      check_entries(manifest, f'{path} is damaged')
  except InputError as error:
    raise InputError(f'{error}; {REMEDY}') from error
  return manifest


def check_entries(manifest: dict[str, Any], where: str) -> None:
  """Raises InputError, beginning with `where`, for entries that no manifest of a build has.

  Names are those of `check_name`, sizes those of `records.check_layout`; counts of records fit the
  sizes of the shards. For an entry that is missing or of another type it may also raise KeyError,
  TypeError, ValueError or AttributeError.
  """
  layout = records.Layout(**manifest['layout'])
  records.check_layout(vars(layout), f'{where}: layout')
  for name in (*layout.features, *manifest['chunks'], *manifest.get('metadata', ())):
    check_name(name, where)
  in_shards = dict.fromkeys(manifest['chunks'], 0)
  numbers = {'max_rows': (manifest['max_rows'], records.WINDOW_ROWS * layout.length)}
  for name, shard in manifest['shards'].items():
    split = split_of(name)
    if split not in in_shards:
      raise InputError(f'{where}: {ascii(name)[:60]} is not a shard of one of its splits')
    in_shards[split] += shard['records']
    numbers |= {
      f'bytes of {name}': (shard['bytes'], MOST_BYTES),
      f'records of {name}': (shard['records'], shard['bytes'] // FRAMING),
    }
  digests = {name: shard['sha256'] for name, shard in manifest['shards'].items()}
  for name, digest in {**digests, **manifest.get('metadata', {})}.items():
    if not isinstance(digest, str):
      raise InputError(f'{where}: the SHA-256 of {name} is not a text')
  for split, chunk in manifest['chunks'].items():
    if chunk['records'] != in_shards[split]:
      raise InputError(f'{where}: the shards of {split} do not have its number of records')
    for clip, frames in chunk['clips'].items():
      numbers[f'frames of {check_name(clip, where)}'] = frames, records.MOST_FRAMES
  clips = {clip for chunk in manifest['chunks'].values() for clip in chunk['clips']}
  for clip, subject in manifest.get('subjects', {}).items():
    if clip not in clips:
      raise InputError(f'{where}: {ascii(clip)[:60]} has a subject, but is not a clip of a split')
    check_name(subject, f'{where}: the subject of {clip}')
  for name, (number, most) in numbers.items():
    if type(number) is not int or not 0 <= number <= most:
      raise InputError(f'{where}: {name} is not a whole number from 0 to {most}')


def split_of(shard: str) -> str:
  """Returns the split that a shard belongs to by its name, or '' for what is no name of one."""
  found = re.fullmatch(rf'{NAME}-(.+)\.tfrecord-\d{{5}}-of-\d{{5}}', shard, re.ASCII)
  return found[1] if found else ''


def check_inside(data_dir: str | os.PathLike[str], path: pathlib.Path) -> None:
  """Raises InputError where a link within data_dir leads out of it; data_dir itself may be a link.

  Records of other people cannot name files of this machine in this way.
  """
  data_dir = os.path.realpath(data_dir)
  if not pathlib.Path(os.path.realpath(path)).is_relative_to(data_dir):
    raise InputError(
      f'{path} leads out of {data_dir} by a link; put the file or folder itself there, or name '
      'the folder that it is in'
    )


def check_sizes(
  data_dir: str | os.PathLike[str], option: str = '--config.data.dir'
) -> dict[str, Any]:
  """Compares the shards with the manifest without reading them, and returns the manifest.

  Raises InputError as `read_manifest` does, and naming a shard that is missing, cut short or
  unknown. It is fast enough for every start.
  """
  folder, manifest = version_folder(data_dir), read_manifest(data_dir, option)
  for name, shard in manifest['shards'].items():
    path = folder / name
    check_inside(data_dir, path)
    if not path.is_file():
      problem = 'is not a file' if path.exists() else 'is missing'
      raise InputError(f'shard {path} {problem}; {REMEDY}')
    if path.stat().st_size != shard['bytes']:
      raise InputError(
        f'shard {path} has {path.stat().st_size} bytes instead of {shard["bytes"]}; {REMEDY}'
      )
  for path in sorted(folder.glob(f'{NAME}-*')):
    if path.name not in manifest['shards']:
      raise InputError(f'shard {path} is not in the manifest; remove it')
  return manifest


def write_manifest(folder: pathlib.Path, manifest: dict[str, Any]) -> None:
  """Writes the manifest in one step: a reader sees all of it or nothing."""
  files.write_json(folder / MANIFEST, manifest)
