"""Reads records into batches of NumPy arrays.

TensorFlow, which reads TFRecord files, is imported when the first batch is asked for, and never
uses the accelerator.
"""

import functools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from avjax import files
from avjax.data import manifest
from avjax.data.records import MOST_FRAMES, WINDOW_ROWS, Layout, fields, most_bytes
from avjax.data.splits import fold_chunks
from avjax.data.tfrecords import count_records
from avjax.errors import InputError

SHUFFLE_BUFFER = 256  # records in memory: 2 MB each at 48 pixels and L = 300
PARSED_AT_ONCE = 2  # batches
FIELD_NAMES = 1 << 16  # most bytes of a record that are not of its arrays
# What is checked as integers of the same size: bools, so that no other byte than 0 and 1 becomes
# one, and float16, which NumPy compares forty times as slowly.
INTEGERS = {np.bool_: np.uint8, np.float16: np.uint16}
LARGEST_FLOAT16 = 0x7BFF  # its bits; those of infinity and NaN are larger, but for the sign
NO_SIGN = 0x7FFF


@functools.cache
def tensorflow():
  """Imports TensorFlow, without its GPU, and returns it."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


class Records:
  """Reads the records under `data_dir`, and checks them against their manifest when opened.

  manifest is what `avjax.data.manifest.read_manifest` returns. Raises InputError where shards are
  missing or cut short, or where the records are not of the sizes in `layout`: a mapping with
  length, stride, face and perhaps features, such as config.data. option is that of the command
  which names data_dir, for messages.
  """

  def __init__(
    self,
    data_dir: str | os.PathLike[str],
    layout: Mapping[str, Any],
    option: str = '--config.data.dir',
  ):
    self.manifest = manifest.check_sizes(data_dir, option)
    for name in ('length', 'stride', 'face'):
      stored, wanted = self.manifest['layout'][name], layout[name]
      if stored != wanted:
        raise InputError(
          f'records in {data_dir} have {name} {stored}, the config has {wanted}; '
          f'build them with --{name} {wanted}, or pass --config.data.{name}={stored}'
        )
    self.layout = Layout(**self.manifest['layout'])
    self.folder = manifest.version_folder(data_dir)
    features = layout.get('features', {})
    for name, width in self.widths(features).items():
      if width != features[name]:
        raise InputError(
          f'records in {data_dir} have features {name} of width {width}, '
          f'the run has {features[name]}'
        )

  def fold(self, k: int) -> tuple[tuple[str, ...], str]:
    """Returns (the training splits, the validation split) of fold k of these records.

    Raises InputError if there is none.
    """
    return fold_chunks(k, self.manifest['chunks'])

  def widths(self, names: Iterable[str]) -> dict[str, int]:
    """Returns {name: width} of features of other backbones.

    Raises InputError for one that the records do not have.
    """
    stored = self.manifest['layout'].get('features', {})
    for name in names:
      if name not in stored:
        found = ', '.join(stored) or 'faces and log-mel'
        raise InputError(
          f'records in {self.folder} have no features {name!r}, only {found}; '
          f'build them with --features {name}=DIR'
        )
    return {name: stored[name] for name in names}

  def size(self, splits: Sequence[str]) -> int:
    """Returns the number of records in these splits.

    Raises InputError for one that the records do not have.
    """
    chunks = self.manifest['chunks']
    for split in splits:
      if split not in chunks:
        raise InputError(
          f'records in {self.folder} have no split {split!r}, only {", ".join(chunks)}'
        )
    return sum(chunks[split]['records'] for split in splits)

  def batches(
    self, splits: Sequence[str], batch_size: int, seed: int | None = None, skip: int = 0
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches, dicts of arrays (B, ...) with the fields of `avjax.data.records`.

    The last batch may be smaller.

    Args:
      splits: names of splits of the manifest.
      batch_size: B.
      seed: shuffles; the order is a function of the seed and the records. None keeps the order of
        the shards.
      skip: how many batches are left out at the start.

    log_mel is padded to the longest of the data set. Raises InputError for a damaged shard, and for
    a record that is of none of the clips of its split, or holds what no build writes.
    """
    tf = tensorflow()
    names = [name for name in sorted(self.manifest['shards']) if manifest.split_of(name) in splits]
    for name in names:
      self._check_count(name)
    paths = [str(self.folder / name) for name in names]
    if seed is None:
      data = tf.data.TFRecordDataset(paths)
    else:
      paths = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
      data = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset, cycle_length=8
      )
      data = data.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False)
    data = data.batch(batch_size).skip(skip)
    parse = tf.autograph.experimental.do_not_convert(self._parse)  # it only costs time here
    data = data.map(parse, num_parallel_calls=PARSED_AT_ONCE, deterministic=True).prefetch(1)
    # The thread that tunes sleeps twice as long each time, and the end of the data waits for it to
    # wake: up to 20 s after an epoch of 40 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)
    clips = {clip for split in splits for clip in self.manifest['chunks'][split]['clips']}
    viewed = {name: dtype for name, (_, dtype) in self.fields.items() if dtype in INTEGERS}
    try:
      for batch in data.as_numpy_iterator():
        self._check(batch, clips)
        yield batch | {name: batch[name].view(dtype) for name, dtype in viewed.items()}
    except tf.errors.OpError as error:
      changed = (
        path
        for path in map(pathlib.Path, paths)
        if files.sha256(path) != self.manifest['shards'][path.name]['sha256']
      )
      raise InputError(f'{next(changed, self.folder)} is damaged; {manifest.REMEDY}') from error

  def _check_count(self, name):
    """Raises InputError unless a shard has the number of records that is in the manifest."""
    wanted, path = self.manifest['shards'][name]['records'], self.folder / name
    if count_records(path, most_bytes(self.layout) + FIELD_NAMES) != wanted:
      raise InputError(
        f'shard {path} does not hold the {wanted} records of the manifest; {manifest.REMEDY}'
      )

  def _check(self, batch, clips):
    """Raises InputError for a record of none of these clips, or with values that none can have."""
    for clip in batch['clip']:
      if clip.decode('utf-8', 'replace') not in clips:
        raise InputError(
          f'{self.folder} has a record of {ascii(clip)[1:60]}, which is not a clip of its split in '
          f'the manifest; {manifest.REMEDY}'
        )
    largest = np.finfo(np.float32).max
    last_start = max(self.manifest['max_rows'] - WINDOW_ROWS, 0)
    ranges = {
      'frames': (1, MOST_FRAMES, batch['frames'][batch['real'] > 0]),
      'va': (-1, 1, batch['va']),
      'starts': (0, last_start, batch['starts']),
      'log_mel': (0, LARGEST_FLOAT16, batch['log_mel'] & NO_SIGN),
    }
    for name, (_, dtype) in self.fields.items():
      if dtype is np.bool_:
        ranges[name] = 0, 1, batch[name]
      elif dtype is np.float32 and name not in ranges:
        ranges[name] = -largest, largest, batch[name]
    for name, (least, most, values) in ranges.items():
      # The least and the most of values with a NaN are NaN, which is in no range.
      if values.size and not (values.min() >= least and values.max() <= most):
        raise InputError(
          f'{self.folder} has a record with {name} that no build writes; {manifest.REMEDY}'
        )

  @functools.cached_property
  def fields(self):
    """The shapes and types of the fields of a record, with log_mel as long as the longest."""
    longest = self.manifest['max_rows']
    return {
      name: (tuple(longest if size is None else size for size in shape), dtype)
      for name, (shape, dtype) in fields(self.layout).items()
    }

  def _parse(self, serialized):
    """Parses records, (B,) bytes, and pads their log_mel; INTEGERS says what stays of integers."""
    tf = tensorflow()
    scalars = {'clip': tf.string, 'window': tf.int64}
    stored = tf.io.parse_example(
      serialized,
      {name: tf.io.FixedLenFeature((), scalars.get(name, tf.string)) for name in self.fields},
    )
    batch = {'clip': stored['clip'], 'window': tf.cast(stored['window'], tf.int32)}
    for name in self.fields.keys() - scalars:
      shape, dtype = self.fields[name]
      values, size, checks = stored[name], None, []
      if name == 'log_mel':
        size, row = math.prod(shape) * np.dtype(dtype).itemsize, shape[1] * np.dtype(dtype).itemsize
        sizes = tf.strings.length(values)  # checked here, since the decoding would cut what is long
        checks = [
          tf.debugging.assert_less_equal(sizes, size),
          tf.debugging.assert_equal(sizes % row, 0),
        ]
      with tf.control_dependencies(checks):
        values = tf.io.decode_raw(values, INTEGERS.get(dtype, dtype), fixed_length=size)
      batch[name] = tf.reshape(values, (tf.shape(serialized)[0], *shape))
    return batch
