"""Predicts for a split of records, of which each process of a run reads its share of the clips."""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import jax
import numpy as np

from avjax.data.dataset import Records
from avjax.evaluation.series import Series, predict_records
from avjax.system import System, sharding

GATES = 'gates/'  # begins the name of gates among the arrays of a Series


def predict_split(
  records: Records,
  split: str,
  system: System,
  variables,
  *,
  batch_size: int,
  smooth: int | Sequence[int],
  watch: Callable[[Iterable], Iterable],
) -> dict[str, Series]:
  """Predicts for all clips of a split.

  Each process predicts its share of the clips on its own devices, since the programs of an
  evaluation exchange nothing. Then all processes have all clips.

  Args:
    records: the opened records.
    split: name of a split of theirs.
    system: the System that predicts.
    variables: of the model, on the host or whole on every device.
    batch_size: windows that all processes decode together.
    smooth: frames of the moving average, as `smoothing_widths` takes them.
    watch: passes on the batches of this process, of which every process has as many.

  Returns {clip: Series} in order of name.
  """
  count = jax.process_count()
  shares = share_out(records.manifest['chunks'][split]['clips'], count)
  others = [
    clip for number, share in enumerate(shares) if number != jax.process_index() for clip in share
  ]
  mesh, batch_size = sharding.make_mesh(jax.local_devices()), math.ceil(batch_size / count)
  series = predict_records(
    watch(records.batches([split], batch_size, without=others)),
    system,
    sharding.replicate(variables, mesh),
    mesh,
    batch_size=batch_size,
    smooth=smooth,
  )
  if count == 1:
    return series
  found = {clip: one for part in sharding.exchange(pack(series)) for clip, one in unpack(part)}
  return {clip: found[clip] for clip in sorted(found)}


def share_out(clips: Mapping[str, int], count: int) -> list[list[str]]:
  """Shares clips out among so many processes, so that each has about as many frames.

  The longest clip comes first, and each goes to the process that has the fewest frames so far.

  clips: {name: frames}. Returns the names of each process, of which there may be none.
  """
  shares: list[tuple[int, int, list[str]]] = [(0, number, []) for number in range(count)]
  for clip in sorted(clips, key=lambda clip: (-clips[clip], clip)):
    frames, number, share = heapq.heappop(shares)
    heapq.heappush(shares, (frames + clips[clip], number, [*share, clip]))
  return [share for _, _, share in sorted(shares, key=lambda entry: entry[1])]


def pack(series: Mapping[str, Series]) -> bytes:
  """Returns {clip: Series} as the bytes of an npz file."""
  arrays = {}
  for clip, one in series.items():
    fields = {**vars(one), **{f'{GATES}{name}': x for name, x in one.gates.items()}}
    del fields['gates']
    arrays |= {f'{clip}/{name}': x for name, x in fields.items()}  # no clip has a / in its name
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def unpack(content: bytes) -> Iterator[tuple[str, Series]]:
  """Yields (clip, Series) of what `pack` returned."""
  clips: dict[str, dict[str, np.ndarray]] = {}
  with np.load(io.BytesIO(content), allow_pickle=False) as file:
    for key, x in file.items():
      clip, _, name = key.partition('/')
      clips.setdefault(clip, {})[name] = x
  for clip, fields in clips.items():
    gates = {name: fields.pop(name) for name in [*fields] if name.startswith(GATES)}
    gates = {name.removeprefix(GATES): x for name, x in gates.items()}
    yield clip, Series(**fields, gates=gates)
