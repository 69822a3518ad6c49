"""Writes records as a TFDS data set of TFRecord files.

This is the only module of data_prep that imports TensorFlow.
"""

import contextlib
import io
import os

# Set before the import: otherwise TensorFlow prints a page of remarks.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import tensorflow as tf
import tensorflow_datasets as tfds
from absl import logging

from avjax.data import manifest, records

tf.config.set_visible_devices([], 'GPU')  # writing files must not take a device from a training run
tfds.disable_progress_bar()
logging.set_verbosity(logging.ERROR)


class Affwild2(tfds.core.GeneratorBasedBuilder):
  """Windows of Aff-Wild2 clips. `examples` maps each split that is not empty to an iterable of
  (key, record).
  """

  name = manifest.NAME
  VERSION = tfds.core.Version(manifest.VERSION)

  def __init__(self, layout, examples, data_dir):
    self.layout, self.examples = layout, examples
    super().__init__(data_dir=data_dir)

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      # This text must not change, although records.py is now in avjax/data: it is part of
      # dataset_info.json, whose SHA-256 is in the manifest.
      description='Windows of annotated frames of Aff-Wild2; '
      'data_prep/records.py says what each field is.',
      features=records.tfds_features(self.layout),
    )

  def _split_generators(self, dl_manager):
    return self.examples

  def _generate_examples(self):
    raise NotImplementedError('the splits come with their examples')

  def _example_writer(self):
    return SortingWriter(self.info.file_format)


class SortingWriter(tfds.core.writer.ExampleWriter):
  """Writes the fields of each record in order of name.

  TFDS would leave them in an order that changes between runs.
  """

  def write(self, path, examples):
    return super().write(path, ((key, sort_fields(example)) for key, example in examples))


def sort_fields(example):
  """Returns a serialized record with its fields in order of name."""
  return tf.train.Example.FromString(example).SerializeToString(deterministic=True)


def write(layout, examples, data_dir, max_shard_mib):
  """Writes the TFDS data set under data_dir/affwild2/1.0.0.

  Args:
    layout: the records.Layout.
    examples: {split: iterable of (key, record)}, without empty splits.
    data_dir: folder of the data set.
    max_shard_mib: largest size of one file.

  Returns {split: records in each of its shards}.
  """
  builder = Affwild2(layout, examples, data_dir)
  config = tfds.download.DownloadConfig(
    try_download_gcs=False,
    max_shard_size=max_shard_mib << 20,
    min_shard_size=(max_shard_mib << 20) // 2,
  )
  # Silences TFDS, which announces a download that does not take place.
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(
      download_dir=data_dir, download_config=config, file_format='tfrecord'
    )
  return {split: info.shard_lengths for split, info in builder.info.splits.items()}
