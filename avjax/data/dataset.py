"""Records -> NumPy batches. The only file of avjax that imports TensorFlow, once a batch is asked for, and off the accelerator."""

import functools
import pathlib

import numpy as np

from avjax.data import manifest
from avjax.errors import InputError

SHUFFLE_BUFFER = 256  # records in memory: 2 MB each at 48 pixels and L = 300


@functools.cache
def tensorflow():
  import tensorflow as tf
  tf.config.set_visible_devices([], 'GPU')
  return tf


class Records:
  """The records under `data_dir`, checked against their manifest when opened.

  manifest: what `data_prep.manifest.read_manifest` returns. Raises InputError where shards are missing or cut short, or
  where the records are not of the sizes in `layout` (a mapping with length, stride, face and features, such as config.data).
  """

  def __init__(self, data_dir, layout):
    self.manifest = manifest.check_sizes(data_dir)
    for name in ('length', 'stride', 'face'):
      size = layout[name]
      if self.manifest['layout'][name] != size:
        raise InputError(f'records in {data_dir} have {name} {self.manifest["layout"][name]}, the config has {size}; '
                         f'build them with --{name} {size}, or pass --config.data.{name}={self.manifest["layout"][name]}')
    self.folder = manifest.version_folder(data_dir)
    wanted = layout.get('features', {})
    for name, width in self.widths(wanted).items():
      if width != wanted[name]:
        raise InputError(f'records in {data_dir} have features {name} of width {width}, the run has {wanted[name]}')

  def widths(self, names):
    """{name: width} of features of other backbones. InputError for one that the records do not have."""
    stored = self.manifest['layout'].get('features', {})
    for name in names:
      if name not in stored:
        raise InputError(f'records in {self.folder} have no features {name!r}, only {", ".join(stored) or "faces and log-mel"}; '
                         f'build them with --features {name}=DIR')
    return {name: stored[name] for name in names}

  @functools.cached_property
  def features(self):
    """How TFDS reads a record."""
    import tensorflow_datasets as tfds
    return tfds.builder_from_directory(str(self.folder)).info.features

  def size(self, splits):
    """The number of records in these splits."""
    for split in splits:
      if split not in self.manifest['chunks']:
        raise InputError(f'records in {self.folder} have no split {split!r}, only {", ".join(self.manifest["chunks"])}')
    return sum(self.manifest['chunks'][split]['records'] for split in splits)

  def batches(self, splits, batch_size, seed=None, skip=0):
    """Yields batches, dicts of arrays (B, ...) with the fields of `data_prep.records`; the last one may be smaller.

    With a seed the order is shuffled, and is a function of the seed and the records alone; without, records come in the
    order of the shards. `skip` batches are left out at the start. log_mel is padded to the longest of the data set.
    Raises InputError naming a damaged shard.
    """
    tf = tensorflow()
    files = sorted(name for name in self.manifest['shards'] if any(name.startswith(f'affwild2-{s}.') for s in splits))
    files = [str(self.folder / name) for name in files]
    if seed is None:
      data = tf.data.TFRecordDataset(files)
    else:
      files = [files[i] for i in np.random.default_rng(seed).permutation(len(files))]
      data = tf.data.Dataset.from_tensor_slices(files).interleave(tf.data.TFRecordDataset, cycle_length=8)
      data = data.shuffle(SHUFFLE_BUFFER, seed=seed, reshuffle_each_iteration=False)
    data = data.skip(skip * batch_size)
    data = data.map(self._parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    data = data.batch(batch_size).prefetch(2)
    try:
      yield from data.as_numpy_iterator()
    except tf.errors.OpError as error:
      damaged = next((path for path in map(pathlib.Path, files) if files.sha256(path) != self.manifest['shards'][path.name]['sha256']),
                     self.folder)
      raise InputError(f'{damaged} is damaged; copy it again, or build the records anew in another folder') from error

  def _parse(self, serialized):
    record = self.features.deserialize_example(serialized)
    tf = tensorflow()
    rows, longest = tf.shape(record['log_mel'])[0], self.manifest['max_rows']
    mel = tf.pad(record['log_mel'], [[0, longest - rows], [0, 0]])
    record['log_mel'] = tf.ensure_shape(mel, (longest, mel.shape[1]))
    return record
