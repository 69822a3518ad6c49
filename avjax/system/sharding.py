"""One mesh axis, `data`: batches are split over all devices of all processes, everything else is replicated.

Every process reads every batch whole and puts its own rows on its devices, so that the order of the data is the same however
many processes there are.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from avjax.errors import InputError


def start(coordinator=None, processes=None, process=None):
  """Joins the processes of one run; on a TPU slice, under Slurm or under Open MPI the arguments are found by themselves.

  coordinator: host:port of process 0. To be called before anything else of JAX.
  """
  try:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')  # of no effect on accelerators
    jax.distributed.initialize(coordinator, processes, process)
  except (RuntimeError, ValueError, TypeError) as error:
    raise InputError(f'the processes of this run do not find each other: {error}; give --coordinator, --processes and --process') from error


def is_primary():
  """Whether this is the process that writes: logs, metrics, results. All write checkpoints together."""
  return jax.process_index() == 0


def make_mesh(devices=None):
  """A mesh of all devices over the axis `data`. Auto axes: explicit ones, the default, break Linen's dropout."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh((len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def replicate(tree, mesh):
  """Puts every leaf whole on every device."""
  return place(tree, NamedSharding(mesh, PartitionSpec()))


def shard(batch, mesh):
  """Splits the leading axis of every array over the devices; the batch size must be a multiple of their number."""
  return place(batch, NamedSharding(mesh, PartitionSpec('data')))


def place(tree, sharding):
  """Lays out every leaf, of which each process has the whole. (jax.device_put gives several processes arrays that Orbax refuses.)"""
  def put(x):
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    return jax.make_array_from_callback(np.shape(x), sharding, np.asarray(x).__getitem__)
  return jax.tree.map(put, tree)


def gather(tree):
  """The whole of every array, as NumPy's, on every process."""
  return multihost_utils.process_allgather(tree, tiled=True)


def padded_size(batch_size, mesh):
  """The smallest multiple of the number of devices that holds batch_size rows."""
  return -(-batch_size // mesh.size) * mesh.size


def pad_rows(batch, size):
  """Fills a dict of arrays up to `size` rows with zeros: `real` and `annotated` are False there, so nothing counts."""
  missing = size - len(next(iter(batch.values())))
  return {k: np.pad(v, [(0, missing)] + [(0, 0)] * (v.ndim - 1)) if missing else v for k, v in batch.items()}
