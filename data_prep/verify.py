"""Compares every file of the records with the manifest: python -m data_prep.verify DIR"""

import argparse
import os

from avjax import errors, files
from avjax.data import manifest
from avjax.errors import InputError


def main(argv=None):
  parser = argparse.ArgumentParser(prog='python -m data_prep.verify', description=__doc__)
  parser.add_argument('dir', help='folder of the records')
  print(verify(parser.parse_args(argv).dir))
  return 0


def verify(data_dir: str | os.PathLike[str]) -> str:
  """Checks names, sizes, SHA-256 and record counts, and returns a summary.

  Raises InputError, naming what is damaged.
  """
  folder, made = manifest.version_folder(data_dir), manifest.check_sizes(data_dir, 'DIR')
  for name, digest in made['metadata'].items():
    if not (folder / name).is_file() or files.sha256(folder / name) != digest:
      raise InputError(f'{folder / name} is missing or changed; {manifest.REMEDY}')
  for name, shard in made['shards'].items():
    if files.sha256(folder / name) != shard['sha256']:
      raise InputError(
        f'shard {folder / name} is damaged: its SHA-256 is not that of the manifest; '
        f'{manifest.REMEDY}'
      )
  # Imported late, so that damage is reported without waiting for TensorFlow.
  from data_prep import tfds_builder

  for name, shard in made['shards'].items():
    if tfds_builder.count_records(folder / name) != shard['records']:
      raise InputError(
        f'shard {folder / name} does not hold the {shard["records"]} records of the manifest; '
        f'{manifest.REMEDY}'
      )
  records, size = (
    sum(shard[key] for shard in made['shards'].values()) for key in ('records', 'bytes')
  )
  return f'OK: {len(made["shards"])} shards, {records:,} records, {size / 1e6:,.1f} MB in {folder}'


def run():
  """Runs the console command avjax-verify."""
  errors.run_command(main)


if __name__ == '__main__':
  run()
