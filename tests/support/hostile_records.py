"""Changes records as a stranger could: whatever is changed, the manifest fits it."""

import json
import pathlib
import shutil

import tensorflow as tf

from avjax import files
from avjax.data import manifest


def copy_records(records, folder):
  """Returns (the folder of the shards in a copy of records, the path of a shard of chunk5)."""
  copy = manifest.version_folder(shutil.copytree(records, folder))
  return copy, copy / 'affwild2-chunk5.tfrecord-00000-of-00001'


def edit_manifest(folder, change):
  """Applies change(manifest) to the manifest in a folder."""
  path = pathlib.Path(folder, manifest.MANIFEST)
  made = json.loads(path.read_text())
  change(made)
  path.write_text(json.dumps(made))


def sign(path):
  """Enters the size and the SHA-256 of a changed file into the manifest beside it."""

  def enter(made):
    if path.name in made['shards']:
      made['shards'][path.name] |= {'bytes': path.stat().st_size, 'sha256': files.sha256(path)}
    else:
      made['metadata'][path.name] = files.sha256(path)

  edit_manifest(path.parent, enter)


def edit_records(shard, change):
  """Applies change(fields, index) to each record of a shard; fields are those of tf.train.Example.

  The shard is written with right checksums, and signed.
  """
  examples = [
    tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(shard))
  ]
  with tf.io.TFRecordWriter(str(shard)) as writer:
    for index, example in enumerate(examples):
      change(example.features.feature, index)
      writer.write(example.SerializeToString(deterministic=True))
  sign(shard)


def set_array(fields, name, values):
  """Sets a field that is stored as bytes."""
  fields[name].bytes_list.value[:] = [values.tobytes()]


def masked_crc(data):
  """Returns the checksum that TFRecord has after a length, which a stranger can compute as well."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc ^= byte
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
  crc ^= 0xFFFFFFFF
  return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, 'little')
