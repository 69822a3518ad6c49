"""One mesh axis, `data`: batches are split over the devices, everything else is replicated."""

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def make_mesh(devices=None):
  """A mesh of all devices over the axis `data`. Auto axes: explicit ones, the default, break Linen's dropout."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicate(tree, mesh):
  """Puts every leaf whole on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard(batch, mesh):
  """Splits the leading axis of every array over the devices; the batch size must be a multiple of their number."""
  return jax.device_put(batch, NamedSharding(mesh, PartitionSpec('data')))


def padded_size(batch_size, mesh):
  """The smallest multiple of the number of devices that holds batch_size rows."""
  return -(-batch_size // mesh.size) * mesh.size


def pad_rows(batch, size):
  """Fills a dict of arrays up to `size` rows with zeros: `real` and `annotated` are False there, so nothing counts."""
  missing = size - len(next(iter(batch.values())))
  return {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) if missing else v for k, v in batch.items()}
