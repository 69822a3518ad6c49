"""Splits batches over all devices of all processes and replicates everything else.

The mesh has one axis, `data`. In training every process reads those rows of a batch that lie on its
devices; the order of the data is the same however many processes there are. In evaluation every
process has a mesh of its own devices, and clips of its own: see avjax.evaluation.shares.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from avjax.errors import InputError, PassingError, one_line, print_error

LONGEST_LINE = 2000  # bytes of an error that processes tell one another
# Seconds in which what one process does alone must be done, such as to wait for the lock of a dead
# one, and to copy a run from a bucket. Whether the process still lives is seen by other means.
LONGEST_WAIT = 3600
WAITS = itertools.count()  # each of them has a name of its own, the same in all processes
SILENT = 30  # seconds without a sign of life after which a process counts as lost
# The exit status where another process was lost; 75 is that of launch/run.sh after a stop.
LOST = 76
# How messages begin that a process gets which cannot reach another one.
UNREACHABLE = re.compile(r'(UNKNOWN|UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|INTERNAL): ')


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
    jax.distributed.initialize(
      coordinator,
      processes,
      process,
      coordinator_bind_address=bind,
      heartbeat_timeout_seconds=SILENT,
    )
  except (RuntimeError, ValueError, TypeError) as error:
    raise InputError(
      f'the processes of this run do not find each other: {error}; '
      'give --coordinator, --processes and --process'
    ) from error


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
  """Ends one of several processes at once where an error leaves the context in it only.

  Python would wait at its end for the other processes, which may wait for this one. An error that
  all have, such as one of the config, is raised.
  """
  try:
    yield
  except Exception as error:
    missing = jax.process_count() > 1 and missing_processes()
    if not missing:
      raise
    if isinstance(error, InputError):
      print_error(error)
      status = error.status
    elif UNREACHABLE.match(str(error)):  # a JaxRuntimeError, or a ValueError of gathering arrays
      line = (
        f'process {missing} of this run is lost; start the same command again for every process: '
        f'the run goes on from what is saved ({one_line(error)})'
      )
      print_error(InputError(line))
      status = LOST
    else:
      traceback.print_exc()
      status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def missing_processes() -> str:
  """Returns the numbers of the processes that do not ask this within ten seconds, such as '1, 3'.

  Those whose work together has failed all ask.
  """
  import orbax.checkpoint as ocp  # late, since only a run in trouble needs it

  everyone = set(range(jax.process_count()))  # without it, devices would be asked
  try:
    ocp.multihost.sync_global_processes('who is left', timeout=10, processes=everyone)
  except Exception as error:
    # Its message ends with their names, a line each, and an empty line.
    names = str(error).partition('timed out task names:')[2].lstrip().partition('\n\n')[0]
    return ', '.join(re.findall(r'(\d+)$', names, re.MULTILINE)) or 'one'
  return ''


def is_local(coordinator: str | None) -> bool:
  """Tells whether host:port names this machine in a way that no other machine can use."""
  host = (coordinator or '').rpartition(':')[0].strip('[]')
  try:
    return host == 'localhost' or ipaddress.ip_address(host).is_loopback
  except ValueError:  # the name of a host
    return False


def is_primary() -> bool:
  """Tells whether this is the process that writes: logs, metrics, checkpoints and results."""
  return jax.process_index() == 0


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Raises an InputError that leaves the context in one process in every process of the run.

  Where only one is refused, as by the lock of a folder, the others would wait for it. Every
  process must come here; none goes on before all have.
  """
  own = np.zeros(1 + LONGEST_LINE, np.uint8)  # the status and the line
  try:
    yield
  except InputError as error:
    text = str(error).encode(errors='replace')[:LONGEST_LINE]
    own[0], own[1 : 1 + len(text)] = error.status, np.frombuffer(text, np.uint8)
  wait_for_all()
  for status, *line in multihost_utils.process_allgather(own).reshape(-1, len(own)):
    if status:
      kind = PassingError if status == PassingError.status else InputError
      raise kind(bytes(line).rstrip(b'\0').decode(errors='replace'))


def wait_for_all() -> None:
  """Waits until every process has come here, for LONGEST_WAIT seconds at most.

  Exchanging arrays waits, too, but on CPUs, at first, not for as long as a lock may take.
  """
  if jax.process_count() > 1:
    import orbax.checkpoint as ocp  # late, since one process does without it

    everyone = set(range(jax.process_count()))  # without it, devices would be asked
    name = f'all have come {next(WAITS)}'
    ocp.multihost.sync_global_processes(name, timeout=LONGEST_WAIT, processes=everyone)


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Makes a mesh of all devices over the axis `data`.

  Its axis is Auto, since an explicit one, the default, breaks Linen's dropout.
  """
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(jax.sharding.AxisType.Auto,), devices=devices
  )


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts every leaf whole on every device.

  A leaf that is whole on these and on more devices stays where it is, and nothing is copied.
  """
  return place(tree, NamedSharding(mesh, PartitionSpec()))


def own_rows(size: int, mesh: Mesh) -> list[int]:
  """Returns which rows of a batch of `size` rows lie on the devices of this process, in order.

  `size` must be a multiple of the number of devices.
  """
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  places: dict[Any, Any] = dict(sharding.addressable_devices_indices_map((size,)))
  return sorted(row for (rows,) in places.values() for row in range(*rows.indices(size)))


def shard(batch: Any, mesh: Mesh, rows: Sequence[int] | None = None) -> Any:
  """Splits the leading axis of every array over the devices of all processes.

  The batch size must be a multiple of their number.

  rows: which rows of the batch the arrays hold, as `own_rows` returns them; None if they hold all.
  """
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  if rows is None:
    return place(batch, sharding)
  size = len(rows) // mesh.local_mesh.size * mesh.size

  def put(x):
    def part(index):
      start, stop, _ = index[0].indices(size)
      return x[slice(*np.searchsorted(rows, (start, stop)))]

    return jax.make_array_from_callback((size, *x.shape[1:]), sharding, part)

  return jax.tree.map(put, batch)


def place(tree: Any, sharding: Sharding) -> Any:
  """Builds global arrays from host arrays that every process holds in full.

  With several processes, jax.device_put would make arrays that Orbax does not take.
  """

  def put(x):
    if isinstance(x, jax.Array) and x.sharding == sharding:
      return x
    if isinstance(x, jax.Array) and x.is_fully_replicated and sharding.is_fully_replicated:
      here = {part.device: part.data for part in x.addressable_shards}
      if sharding.device_set <= here.keys():
        parts = [here[device] for device in sharding.device_set]
        return jax.make_array_from_single_device_arrays(x.shape, sharding, parts)
    return jax.make_array_from_callback(np.shape(x), sharding, np.asarray(x).__getitem__)

  return jax.tree.map(put, tree)


def exchange(own: bytes) -> list[bytes]:
  """Returns what each process gave, in the order of their numbers; waits for all of them."""
  content = np.frombuffer(own, np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(content))).reshape(-1)
  padded = np.pad(content, (0, sizes.max() - len(content)))
  rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
  return [row[:size].tobytes() for row, size in zip(rows, sizes, strict=True)]


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
