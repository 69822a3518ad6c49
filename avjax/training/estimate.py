"""Estimates what a run takes on devices, from what the compiler says of its programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from avjax.config import Config
from avjax.data import records
from avjax.errors import InputError
from avjax.training.ahead import Devices, Sizes
from avjax.training.plan import feature_names, open_records

ANNOTATED_FRAMES = 2_993_081  # of Aff-Wild2, training and validation (docs/performance.json)
FOLDS = 6  # of which one is validated
TRAININGS = 12  # of the protocol: six folds, two targets
FRAMES_A_SECOND, ROWS_A_SECOND = 30, 100  # of a video of Aff-Wild2, and of log-mel
ROWS_BESIDES = 104  # log-mel rows of a record beyond its frames: a window, and what rounding adds
READ = 1.3e9  # bytes/s that two cores read from memory, measured (docs/performance.md)


def record_sizes(config: Config) -> tuple[Config, Sizes]:
  """Returns (config, Sizes) of the records that config.data.dir names, or of Aff-Wild2's if none.

  The config has the widths of the features that the records have. Raises InputError where the
  records cannot be read.
  """
  data, features = config.data, feature_names(config)
  if features and not data.dir:
    raise InputError(
      f'give --config.data.dir, since only records tell how wide their features {features[0]} are'
    )
  if data.dir:
    config, opened = open_records(config)
    training, validation = opened.fold(config.fold)
    counts = opened.size(training), opened.size([validation])
    rows, layout = opened.manifest['max_rows'], opened.layout
  else:
    windows = math.ceil(ANNOTATED_FRAMES / data.stride)
    counts = windows - windows // FOLDS, windows // FOLDS
    rows = math.ceil(data.length * ROWS_A_SECOND / FRAMES_A_SECOND) + ROWS_BESIDES
    layout = records.Layout(data.length, data.stride, data.face)
  record = sum(
    math.prod(rows if size is None else size for size in shape) * np.dtype(dtype).itemsize
    for shape, dtype in records.fields(layout).values()
  )
  return config, Sizes(*counts, rows, record)


def read_by_a_host(batch: float, hosts: int, stages: list[dict[str, Any]]) -> float:
  """Returns the bytes/s that each host reads in the fastest stage.

  batch: bytes of the records of a step. stages: the rows of the training steps.
  """
  return batch / hosts / min(row['seconds'] for row in stages)


def summarize(config: Config, devices: Devices, sizes: Sizes, rows: dict) -> dict[str, Any]:
  """Returns what the programs of a run mean for it.

  Args:
    config, sizes: as for `ahead.jobs`.
    devices: that the run has.
    rows: {name: what `ahead.measure` returns} of its programs.

  Returns:
    largest_batch: clips of a step that fit, by proportion.
    hours: of one training whose epochs are all trained, at the rate of the slowest stage.
    chip_hours, protocol_chip_hours: of one training, and of all of the protocol.
    trainings: how many these are. This and the three before it are absent where the rates of the
      devices are not known, or a program does not fit.
    notes: what should be known before anybody pays.
  """
  count, batch = devices.count, config.batch_size
  clips = math.ceil(batch / count)  # of a device
  stages = [row for row in rows.values() if row['trains']]
  most = min(
    (devices.memory - row['state']) * clips / (row['memory'] - row['state']) for row in stages
  )
  found = {'largest_batch': max(math.floor(most), 0) * count, 'notes': []}
  notes = found['notes']
  for name, row in rows.items():
    if not row['fits']:
      notes.append(
        f'{name} does not fit: it needs {row["memory"] / 1e9:.1f} GB of {devices.memory / 1e9:.1f}'
      )
  if any(not row.get('replicated', True) for row in stages):
    notes.append('a state is not whole on every device, so its steps would be compiled anew')
  if clips * count != batch:
    notes.append(
      f'{clips * count - batch} of {clips * count} rows of a batch are padding: a multiple of '
      f'{count} clips wastes nothing'
    )
  if not devices.rates or not all(row['fits'] for row in rows.values()):
    return found
  epoch = max(row['runs'] * row['seconds'] for row in stages)
  epoch += sum(row['runs'] * row['seconds'] for row in rows.values() if not row['trains'])
  hours = config.schedule.max_epochs * epoch / 3600
  found |= {'hours': hours, 'chip_hours': hours * count, 'trainings': TRAININGS}
  found['protocol_chip_hours'] = TRAININGS * hours * count
  read = read_by_a_host(batch * sizes.record, devices.hosts, stages)
  if read > READ:
    hosts = f'each of {devices.hosts} hosts' if devices.hosts > 1 else 'the host'
    notes.append(
      f'{hosts} reads {read / 1e9:.1f} GB of records a second at this rate; two cores were '
      f'measured to read {READ / 1e9:.1f}'
    )
  return found
