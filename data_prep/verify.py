"""Compares every file of the records with the manifest: python -m data_prep.verify DIR"""

import argparse
import collections
import os
import pathlib
import tempfile

from absl import logging

from avjax import errors, files
from avjax.data import manifest
from avjax.data.dataset import Records
from avjax.data.records import Layout, tfds_features
from avjax.errors import InputError


def main(argv=None):
  parser = argparse.ArgumentParser(prog='python -m data_prep.verify', description=__doc__)
  parser.add_argument('dir', help='folder of the records')
  logging.set_verbosity(logging.ERROR)  # silences the remarks of TFDS
  print(verify(parser.parse_args(argv).dir))
  return 0


def verify(data_dir: str | os.PathLike[str]) -> str:
  """Checks names, sizes, SHA-256, record counts and every record, and returns a summary.

  Raises InputError, naming what is damaged.
  """
  folder, made = manifest.version_folder(data_dir), manifest.check_sizes(data_dir, 'DIR')
  for name, digest in made.get('metadata', {}).items():
    manifest.check_inside(data_dir, folder / name)
    if not (folder / name).is_file() or files.sha256(folder / name) != digest:
      raise InputError(f'{folder / name} is missing or changed; {manifest.REMEDY}')
  for name, shard in made['shards'].items():
    if files.sha256(folder / name) != shard['sha256']:
      raise InputError(
        f'shard {folder / name} is damaged: its SHA-256 is not that of the manifest; '
        f'{manifest.REMEDY}'
      )
  check_description(folder / 'features.json', Layout(**made['layout']))
  data = Records(folder, made['layout'], 'DIR')
  for split in made['chunks']:
    collections.deque(data.batches([split], 1), maxlen=0)
  records, size = (
    sum(shard[key] for shard in made['shards'].values()) for key in ('records', 'bytes')
  )
  return f'OK: {len(made["shards"])} shards, {records:,} records, {size / 1e6:,.1f} MB in {folder}'


def check_description(path: pathlib.Path, layout: Layout) -> None:
  """Raises InputError unless features.json, if there is one, is what a build of this layout writes.

  avjax does not read it, but TFDS imports every module that it names.
  """
  with tempfile.TemporaryDirectory() as folder:
    tfds_features(layout).save_config(folder)
    own = files.read_json(pathlib.Path(folder, path.name))
  if path.exists() and files.read_json(path) != own:
    raise InputError(f'{path} does not describe the records; {manifest.REMEDY}')


def run():
  """Runs the console command avjax-verify."""
  errors.run_command(main)


if __name__ == '__main__':
  run()
