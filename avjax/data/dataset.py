"""Reads records into batches of NumPy arrays.

TensorFlow, which reads TFRecord files, is imported when the first batch is asked for, and never
uses the accelerator.
"""

import functools
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from avjax import files
from avjax.data import manifest
from avjax.data.records import MOST_FRAMES, WINDOW_ROWS, Layout, most_bytes, tfds_features
from avjax.data.splits import fold_chunks
from avjax.data.tfrecords import locate_records, read_windows
from avjax.errors import InputError

SHUFFLE_BUFFER = 256  # records in memory: 2 MB each at 48 pixels and L = 300
PARSED_AT_ONCE = 8  # records
READ_AHEAD = 1 << 18  # bytes
FIELD_NAMES = 1 << 16  # most bytes of a record that are not of its arrays


@functools.cache
def tensorflow():
  """Imports TensorFlow, without its GPU, and returns it."""
  import tensorflow as tf

  tf.config.set_visible_devices([], 'GPU')
  return tf


def record_at(path, at):
  """Returns the serialized record that begins at byte `at` of a shard, both tensors.

  tf.data.TFRecordDataset, which checks the checksums as well, has no argument for a place.
  """
  ops, shape = tensorflow().raw_ops, {'output_types': [tensorflow().string], 'output_shapes': [()]}
  rest = ops.TFRecordDatasetV2(
    filenames=[path], compression_type='', buffer_size=READ_AHEAD, byte_offsets=[at]
  )
  one = ops.TakeDataset(input_dataset=rest, count=np.int64(1), **shape)
  return ops.DatasetToSingleElement(dataset=one, **shape)[0]


def in_order(located: Mapping[str, list[int]]) -> list[tuple[str, int]]:
  """Sorts records, {path of a shard: where each begins}, by clip and window -> (path, place).

  In the shards they are shuffled, which TFDS does when it writes them.
  """
  found = [
    (*window, path, at)
    for path, places in located.items()
    for window, at in zip(read_windows(pathlib.Path(path), places), places, strict=True)
  ]
  return [(path, at) for *_, path, at in sorted(found)]


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

  @functools.cached_property
  def features(self):
    """The TFDS description of a record, which can parse one."""
    return tfds_features(self.layout)

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
      seed: shuffles; the order is a function of the seed and the records. None reads one clip
        after another, by name, and the windows of each in order.
      skip: how many batches are left out at the start.

    log_mel is padded to the longest of the data set. Raises InputError for a damaged shard, and for
    a record that is of none of the clips of its split, or holds what no build writes.
    """
    tf = tensorflow()
    names = [name for name in sorted(self.manifest['shards']) if manifest.split_of(name) in splits]
    located = {str(self.folder / name): self._locate(name) for name in names}
    paths = list(located)
    parse = tf.autograph.experimental.do_not_convert(self._parse)  # it only costs time here
    if seed is None:
      places = in_order(located)
      data = tf.data.Dataset.from_tensor_slices(
        (
          tf.constant([path for path, _ in places], tf.string),
          tf.constant([at for _, at in places], tf.int64),
        )
      )

      @tf.autograph.experimental.do_not_convert
      def parse(path, at):
        return self._parse(record_at(path, at))
    else:
      paths = [paths[i] for i in np.random.default_rng(seed).permutation(len(paths))]
      data = tf.data.Dataset.from_tensor_slices(paths).interleave(
        tf.data.TFRecordDataset, cycle_length=8
      )
      data = data.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False)
    data = data.skip(skip * batch_size)
    data = data.map(parse, num_parallel_calls=PARSED_AT_ONCE, deterministic=True)
    data = data.batch(batch_size).prefetch(2)
    # The thread that tunes sleeps twice as long each time, and the end of the data waits for it to
    # wake: up to 20 s after an epoch of 40 s.
    options = tf.data.Options()
    options.autotune.enabled = False
    data = data.with_options(options)
    clips = {clip for split in splits for clip in self.manifest['chunks'][split]['clips']}
    try:
      for batch in data.as_numpy_iterator():
        self._check(batch, clips)
        yield batch
    except tf.errors.OpError as error:
      changed = (
        path
        for path in map(pathlib.Path, paths)
        if files.sha256(path) != self.manifest['shards'][path.name]['sha256']
      )
      raise InputError(f'{next(changed, self.folder)} is damaged; {manifest.REMEDY}') from error

  def _locate(self, name):
    """Returns where the records of a shard begin.

    Raises InputError unless it has the number of records that is in the manifest.
    """
    wanted, path = self.manifest['shards'][name]['records'], self.folder / name
    located = locate_records(path, most_bytes(self.layout) + FIELD_NAMES)
    if len(located) != wanted:
      raise InputError(
        f'shard {path} does not hold the {wanted} records of the manifest; {manifest.REMEDY}'
      )
    return located

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
      'frames': (1, MOST_FRAMES, batch['frames'][batch['real']]),
      'times': (-largest, largest, batch['times']),
      'va': (-1, 1, batch['va']),
      'starts': (0, last_start, batch['starts']),
      **{
        name: (-largest, largest, values)
        for name, values in batch.items()
        if name == 'log_mel' or name.startswith('features/')
      },
    }
    for name, (least, most, values) in ranges.items():
      if not ((values >= least) & (values <= most)).all():  # NaN is in no range
        raise InputError(
          f'{self.folder} has a record with {name} that no build writes; {manifest.REMEDY}'
        )

  def _parse(self, serialized):
    """Parses one record and pads its log_mel."""
    record = self.features.deserialize_example(serialized)
    tf = tensorflow()
    rows, longest = tf.shape(record['log_mel'])[0], self.manifest['max_rows']
    log_mel = tf.pad(record['log_mel'], [[0, longest - rows], [0, 0]])
    record['log_mel'] = tf.ensure_shape(log_mel, (longest, log_mel.shape[1]))
    return record
