"""Reads and writes the manifest, which marks a data set as complete and describes its files."""

import os
import pathlib
from typing import Any

from avjax import files
from avjax.errors import InputError

NAME, VERSION = 'affwild2', '1.0.0'
MANIFEST = 'manifest.json'
REMEDY = 'copy it again, or build the records again in another folder'


def version_folder(data_dir: str | os.PathLike[str]) -> pathlib.Path:
  """Returns the folder of the shards, given it or a folder one or two levels above it."""
  data_dir = pathlib.Path(data_dir)
  folders = data_dir, data_dir / VERSION, data_dir / NAME / VERSION
  return next((folder for folder in folders if (folder / MANIFEST).is_file()), folders[-1])


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
  shards    {file name: {'records': n, 'bytes': n, 'sha256': hex}}
  metadata  {file name: sha256} of the files that describe the records
  masked    numbers of frames without a face, with a broken crop and without sound, each frame of a
            clip counted once; and of annotated rows beyond the end of their video, which are left
            out
  log_mel_bytes  bytes of all stored spectrograms
  versions  of the packages that shaped the bytes
  """
  path = version_folder(data_dir) / MANIFEST
  if not path.exists():
    where = '' if os.path.isabs(data_dir) else ', seen from this folder'
    raise InputError(
      f'{data_dir} holds no finished records{where}; name their folder with {option}, or make '
      f'them: python -m data_prep.build --source AFFWILD2 --data_dir {data_dir}'
    )
  files.check_readable(path)
  try:
    manifest = files.read_json(path)
    for key in ('layout', 'max_rows', 'chunks', 'shards'):
      if key not in manifest:
        raise InputError(f'{path} is damaged: it lacks {key}')
  except InputError as error:
    raise InputError(f'{error}; {REMEDY}') from error
  return manifest


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
    if not path.is_file():
      raise InputError(f'shard {path} is missing; {REMEDY}')
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
