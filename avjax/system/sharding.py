"""Splits batches over all devices of all processes and replicates everything else.

The mesh has one axis, `data`. Every process reads every batch whole and puts its own rows on its
devices, so that the order of the data is the same however many processes there are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from avjax.errors import InputError


def start(
  coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
  """Joins the processes of one run. Must be called before any other use of JAX.

  On a TPU slice, under Slurm or under Open MPI, JAX finds the arguments by itself. Process 0
  listens for the others on all its addresses, but only on this machine's own if `coordinator` is
  one of these, such as 127.0.0.1.

  Args:
    coordinator: host:port of process 0.
    processes: how many there are.
    process: the number of this one, from 0.

  Raises InputError if the processes do not find each other.
  """
  try:
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')  # of no effect on accelerators
    bind = coordinator if is_local(coordinator) else None
    jax.distributed.initialize(coordinator, processes, process, coordinator_bind_address=bind)
  except (RuntimeError, ValueError, TypeError) as error:
    raise InputError(
      f'the processes of this run do not find each other: {error}; '
      'give --coordinator, --processes and --process'
    ) from error


def is_local(coordinator: str | None) -> bool:
  """Tells whether host:port names this machine in a way that no other machine can use."""
  host = (coordinator or '').rpartition(':')[0].strip('[]')
  try:
    return host == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:  # the name of a host
    return False


def is_primary() -> bool:
  """Tells whether this is the process that writes logs, metrics and results.

  All processes write checkpoints together.
  """
  return jax.process_index() == 0


def wait_for_others() -> None:
  """Waits until every process of the run has come here."""
  multihost_utils.sync_global_devices('avjax')  # returns at once if there is one


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Makes a mesh of all devices over the axis `data`.

  Its axis is Auto, since an explicit one, the default, breaks Linen's dropout.
  """
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
  )


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts every leaf whole on every device."""
  return place(tree, NamedSharding(mesh, PartitionSpec()))


def shard(batch: Any, mesh: Mesh) -> Any:
  """Splits the leading axis of every array over the devices.

  The batch size must be a multiple of their number.
  """
  return place(batch, NamedSharding(mesh, PartitionSpec('data')))


def place(tree: Any, sharding: Sharding) -> Any:
  """Builds global arrays from host arrays that every process holds in full.

  With several processes, jax.device_put would make arrays that Orbax does not take.
  """

  def put(x):
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    return jax.make_array_from_callback(np.shape(x), sharding, np.asarray(x).__getitem__)

  return jax.tree.map(put, tree)


def gather(tree: Any) -> Any:
  """Returns every array whole, as a NumPy array, on every process."""
  return multihost_utils.process_allgather(tree, tiled=True)


def padded_size(batch_size: int, mesh: Mesh) -> int:
  """Returns the smallest multiple of the number of devices that holds batch_size rows."""
  return -(-batch_size // mesh.size) * mesh.size


def pad_rows(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
  """Pads a dict of arrays with zeros up to `size` rows.

  `real` and `annotated` are False in these rows, so that they do not count.
  """
  missing = size - len(next(iter(batch.values())))
  if not missing:
    return dict(batch)
  return {name: np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for name, x in batch.items()}
