"""Reads records into batches of NumPy arrays.

TensorFlow, which reads TFRecord files, is imported when the first batch is asked for, and never
uses the accelerator.
"""

import functools
import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from avjax import files
from avjax.data import manifest
from avjax.data.records import MOST_FRAMES, WINDOW_ROWS, Layout, fields, most_bytes
from avjax.data.splits import fold_chunks
from avjax.data.tfrecords import find_records, read_windows
from avjax.errors import InputError

SHUFFLE_BUFFER = 256  # the next record is one of so many; another number is another order
SHARDS_AT_ONCE = 8  # from which records come in turn, before they are shuffled
PARSED_AT_ONCE = 2  # batches
FIELD_NAMES = 1 << 16  # most bytes of a record that are not of its arrays
# What is checked as integers of the same size: bool, so that 0 and 1 are its only bytes, and
# float16, which NumPy compares slowly.
INTEGERS = {np.bool_: np.uint8, np.float16: np.uint16}
NO_SIGN = 0x7FFF  # all bits of a float16 but its sign
LARGEST_FLOAT16 = 0x7BFF  # without their sign, infinity and NaN have larger bits


@functools.cache
def tensorflow():
  """Imports TensorFlow, without its GPU, and returns it."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


Place = tuple[str, int]  # the path of a shard, and the byte at which a record begins in it


def by_window(records: Sequence[Place], without: Collection[str] = ()) -> list[Place]:
  """Sorts records by clip and window, without those of some clips. TFDS has shuffled them."""
  windows, left_out = read_windows(records), {clip.encode() for clip in without}
  ordered = sorted(zip(windows, records, strict=True))
  return [place for (clip, _), place in ordered if clip not in left_out]


def shuffled(shards: Sequence[Sequence[Place]], seed: int) -> list[Place]:
  """Shuffles the records of shards, within SHUFFLE_BUFFER records that come from them in turn."""
  tf, records = tensorflow(), [*itertools.chain(*shards)]
  ends = np.cumsum([0, *map(len, shards)])
  order = tf.data.Dataset.from_tensor_slices((ends[:-1], ends[1:])).interleave(
    tf.data.Dataset.range, cycle_length=SHARDS_AT_ONCE
  )
  order = order.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False)
  return [records[i] for i in without_tuning(order).as_numpy_iterator()]


def read_record(path, begin):
  """Returns a dataset of the serialized record at a place, both tensors.

  tf.data.TFRecordDataset, which checks the checksums as well, has no argument for a place.
  """
  tf = tensorflow()
  reader = tf.raw_ops.TFRecordDatasetV2(
    filenames=path[None], compression_type='', buffer_size=0, byte_offsets=begin[None]
  )
  return tf.data.experimental.from_variant(reader, tf.TensorSpec((), tf.string)).take(1)


def without_tuning(data):
  """Returns a dataset whose threads are not tuned.

  The thread that tunes sleeps twice as long each time, and the end of the data waits for it to
  wake: up to 20 s after an epoch of 40 s.
  """
  options = tensorflow().data.Options()
  options.autotune.enabled = False
  return data.with_options(options)


class Records:
  """Reads the records under `data_dir`, and checks them against their manifest when opened.

  manifest is what `avjax.data.manifest.read_manifest` returns. Raises InputError where shards are
  missing or cut short, or where the records are not of the sizes in `layout`: a mapping with
  length, stride, face and perhaps features, such as config.data. option is that of the command
  which names data_dir, for messages.

  Records on a bucket, gs://BUCKET/RECORDS, are copied to this machine, each split when it is first
  read: see `manifest.bring_manifest`.
  """

  def __init__(
    self,
    data_dir: str | os.PathLike[str],
    layout: Mapping[str, Any],
    option: str = '--config.data.dir',
  ):
    self.bucket = None
    if files.is_address(data_dir):
      self.bucket, data_dir = manifest.bring_manifest(os.fspath(data_dir))
      self.manifest = manifest.read_manifest(data_dir, option)
      self._check_names()
    else:
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

  def _check_names(self):
    """Raises InputError where a shard is missing on the bucket."""
    names = {name.removeprefix('/') for name in self.bucket.names()}
    for name in self.manifest['shards']:
      if name not in names:
        raise InputError(f'shard {self.bucket.address}/{name} is missing; {manifest.REMEDY}')

  @property
  def clips(self) -> list[str]:
    """The names of the clips of all splits."""
    return [clip for chunk in self.manifest['chunks'].values() for clip in chunk['clips']]

  @property
  def subjects(self) -> dict[str, str]:
    """The subject of each clip, as far as the records name them."""
    return self.manifest.get('subjects', {})

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
    self,
    splits: Sequence[str],
    batch_size: int,
    seed: int | None = None,
    skip: int = 0,
    rows: Sequence[int] | None = None,
    without: Collection[str] = (),
  ) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches, dicts of arrays (B, ...) with the fields of `avjax.data.records`.

    The last batch may be smaller.

    Args:
      splits: names of splits of the manifest.
      batch_size: B.
      seed: shuffles; the order is a function of the seed and the records. None reads one clip
        after another, by name, and the windows of each in order.
      skip: how many batches are left out at the start.
      rows: which rows of each batch are read, ascending; the others are left out, and a batch may
        have none. None reads all.
      without: names of clips that are not read, which needs the order of clips. There are as many
        batches as with them, and the last ones have no record.

    log_mel is padded to the longest of the data set. Raises InputError for a damaged shard, and for
    a record that is of none of the clips of its split, or holds what no build writes.
    """
    if without and seed is not None:
      raise ValueError('clips are left out only where one is read after another')
    tf = tensorflow()
    names = [name for name in sorted(self.manifest['shards']) if manifest.split_of(name) in splits]
    if self.bucket:
      manifest.bring_shards(self.bucket, self.folder, self.manifest, names)
    if seed is not None:
      names = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    shards = [self._find_records(name) for name in names]
    # The order is drawn before anything is read, so that no record waits in memory for its turn.
    every = [*itertools.chain(*shards)]
    order = by_window(every, without) if seed is None else shuffled(shards, seed)
    order = order[skip * batch_size :]
    count = max(-(-len(every) // batch_size) - skip, 0)
    if rows is not None:
      rows = [row for row in rows if row < batch_size]
      firsts = range(0, len(order), batch_size)
      order = [order[first + row] for first in firsts for row in rows if first + row < len(order)]
      batch_size = len(rows)
    paths, begins = zip(*order, strict=True) if order else ((), ())
    without_autograph = tf.autograph.experimental.do_not_convert  # it only costs time here
    data = tf.data.Dataset.from_tensor_slices(
      (tf.constant(paths, tf.string), tf.constant(begins, tf.int64))
    )
    data = data.flat_map(without_autograph(read_record)).batch(max(batch_size, 1))
    data = data.map(
      without_autograph(self._parse), num_parallel_calls=PARSED_AT_ONCE, deterministic=True
    )
    data = without_tuning(data.prefetch(1))
    clips = {clip for split in splits for clip in self.manifest['chunks'][split]['clips']}
    clips -= {*without}
    viewed = {name: dtype for name, (_, dtype) in self.fields.items() if dtype in INTEGERS}
    try:
      for batch in data.as_numpy_iterator():
        self._check(batch, clips)
        yield batch | {name: batch[name].view(dtype) for name, dtype in viewed.items()}
        count -= 1
    except tf.errors.OpError as error:
      changed = (
        path
        for path in (self.folder / name for name in names)
        if files.sha256(path) != self.manifest['shards'][path.name]['sha256']
      )
      damaged = next(changed, self.folder)
      if self.bucket and damaged != self.folder:
        damaged.unlink()
        raise InputError(f'the copy of {damaged} was damaged; start again') from error
      raise InputError(f'{damaged} is damaged; {manifest.REMEDY}') from error
    for _ in range(count):  # the last batches have none of these rows or clips
      yield {name: np.zeros((0, *shape), dtype) for name, (shape, dtype) in self.fields.items()}

  def _find_records(self, name) -> list[Place]:
    """Returns the places of the records of a shard.

    Raises InputError unless there are as many as the manifest says.
    """
    wanted, path = self.manifest['shards'][name]['records'], self.folder / name
    begins = find_records(path, most_bytes(self.layout) + FIELD_NAMES)
    if len(begins) != wanted:
      raise InputError(
        f'shard {path} does not hold the {wanted} records of the manifest; {manifest.REMEDY}'
      )
    return [(str(path), begin) for begin in begins]

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
    """Returns {name: (shape, dtype)} of a record in a batch, where log_mel is padded."""
    longest = self.manifest['max_rows']
    return {
      name: (tuple(longest if size is None else size for size in shape), dtype)
      for name, (shape, dtype) in fields(self.layout).items()
    }

  def _parse(self, serialized):
    """Parses the records (B,) of a batch and pads their log_mel.

    Fields of the types in INTEGERS stay integers.
    """
    tf = tensorflow()
    kinds = dict.fromkeys(self.fields, tf.string) | {'window': tf.int64}
    batch = tf.io.parse_example(
      serialized, {name: tf.io.FixedLenFeature((), kind) for name, kind in kinds.items()}
    )
    batch['window'] = tf.cast(batch['window'], tf.int32)
    for name, (shape, dtype) in self.fields.items():
      if not shape:
        continue
      size, checks = None, []
      if name == 'log_mel':  # its decoding would cut what is too long
        row = shape[1] * np.dtype(dtype).itemsize
        size, sizes = shape[0] * row, tf.strings.length(batch[name])
        checks = [
          tf.debugging.assert_less_equal(sizes, size),
          tf.debugging.assert_equal(sizes % row, 0),
        ]
      with tf.control_dependencies(checks):
        values = tf.io.decode_raw(batch[name], INTEGERS.get(dtype, dtype), fixed_length=size)
      batch[name] = tf.reshape(values, (tf.shape(serialized)[0], *shape))
    return batch
