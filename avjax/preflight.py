"""Compiles every program of a run ahead of time, and says what it takes:

  python -m avjax.preflight --config=configs/grjca.py --topology=v5e:4x4 --batch=12x

For a TPU slice it needs the extra `tpu`, which has the compiler, and no TPU; without --topology it
compiles for the devices that are here. Nothing is written.
"""

from __future__ import annotations

import json
import math
import os
import sys

from absl import flags

from avjax import command_line, errors
from avjax.errors import InputError

# Of a fold of Aff-Wild2: training records, and frames of the validation partition.
RECORDS, VALIDATION_FRAMES = 12_700, 500_000
ROWS_A_SECOND, RATE, MARGIN = 100, 30, 104  # log-mel rows of a record of L frames at 30 a second
READ = 1.1e9  # bytes/s of records that a host reads on two cores (docs/performance.md)
RUNS = 12  # of the protocol: two targets, six folds
HEAD = 'program               memory   of it state   largest batch     TFLOP    step    collectives'


def main(argv):
  """Runs the command; returns its exit status, 1 if a program does not fit."""
  values = define_flags()
  if {'--help', '-h'} & set(argv):
    lines = [f'  --{name:<12}{values[name].help}' for name in values]
    print(__doc__, *lines, sep='\n')
    return 0
  config, values = read(values, argv[1:])
  if values.topology:
    os.environ['JAX_PLATFORMS'] = 'cpu'  # no accelerator that is here has a part in this
  if values.quick:
    os.environ['JAX_OPTIMIZATION_LEVEL'] = 'O0'
  command_line.start_jax()
  from avjax.system import sharding
  from avjax.training import ahead

  mesh = sharding.make_mesh(ahead.tpu_devices(values.topology) if values.topology else None)
  config.batch_size = batch_size(values.batch, config.batch_size, mesh.size)
  length = config.data.length
  rows = values.rows or math.ceil(length * ROWS_A_SECOND / RATE) + MARGIN
  chip = ahead.CHIPS.get(mesh.devices.flat[0].device_kind)
  report = Report(config, mesh.size, chip, values)
  for name, function, arguments in ahead.programs(config, mesh, rows):
    try:
      report.add(name, ahead.compile_program(function, arguments))
    except ahead.DoesNotFit as error:
      report.refuse(name, str(error))
  report.end(ahead.record_bytes(config, rows))
  return 1 if report.refused else 0


def define_flags():
  """Returns the absl flags of the command."""
  values = command_line.define_config_flag()
  flags.DEFINE_string('topology', None, 'a TPU slice, such as v5e:4x4 or v5p:2x2x1', values)
  flags.DEFINE_string('batch', None, 'clips a step; 12x is 12 a device', values)
  flags.DEFINE_integer('rows', None, 'most log-mel rows of a record', flag_values=values)
  flags.DEFINE_integer('records', RECORDS, 'training records', flag_values=values)
  flags.DEFINE_bool('json', False, 'print JSON in place of the table', values)
  flags.DEFINE_bool('quick', False, 'compile with less effort; memory is an upper bound', values)
  return values


def read(values, words):
  """Returns (config, flags); InputError for a mistake."""
  configs = command_line.read_configs(values, words)
  if len(configs) > 1:
    raise InputError(f'--config describes {len(configs)} runs; give one target and one fold')
  for name in ('rows', 'records'):
    number = values[name].value
    if number is not None and not 1 <= number <= 1_000_000_000:
      raise InputError(f'--{name}={number} is out of range: it is 1 or more')
  return configs[0], values


def batch_size(words, default, devices):
  """Returns the clips of a step that --batch describes; None is the default."""
  if words is None:
    return default
  number = words.removesuffix('x')
  if not number.isascii() or not number.isdigit() or not 1 <= int(number) <= 100_000:
    raise InputError(f'--batch={words} is no number of clips, such as 12, or 12x for 12 a device')
  return int(number) * (devices if words.endswith('x') else 1)


class Report:
  """Prints what each program takes as it is known, and at the end what that means for a run."""

  def __init__(self, config, devices, chip, values):
    self.config, self.devices, self.chip, self.values = config, devices, chip, values
    self.found, self.refused, self.warnings = {}, {}, []
    self.clips = -(-config.batch_size // devices)  # of a device
    if not values.json:
      print(f'{devices} devices, {config.batch_size} clips a step\n{HEAD}', flush=True)

  def add(self, name, program):
    """Takes a program that was compiled."""
    row = {
      'gb': program.memory / 1e9,
      'state_gb': program.state / 1e9,
      'tflop': program.flops / 1e12,
      'gb_accessed': program.accessed / 1e9,
      'collectives': program.collectives,
      'compile_s': program.seconds,
      'replicated': program.replicated,
    }
    if self.chip:
      row['step_s'] = program.step_seconds(self.chip, self.devices)
      # What grows with the clips, by proportion.
      grows = (program.inputs + program.temporary) / self.clips
      row['largest_batch'] = int((self.chip.memory - program.state) / grows) * self.devices
    self.found[name] = row
    if not self.values.json:
      print(line(name, row), flush=True)

  def refuse(self, name, why):
    """Takes a program that does not fit in the memory of a device."""
    self.refused[name] = why
    if not self.values.json:
      print(f'{name:20s}  does not fit: {why}', flush=True)

  def end(self, record_bytes):
    """Prints hours and warnings, or all of it as JSON. record_bytes: of a record."""
    hours = self.hours()
    self.warn(record_bytes)
    if self.values.json:
      found = {'devices': self.devices, 'batch': self.config.batch_size, 'programs': self.found}
      found |= {'refused': self.refused, 'hours': hours, 'warnings': self.warnings}
      print(json.dumps(found, indent=1))
      return
    if hours:
      print(
        f'at most {hours:.1f} hours for a run, {hours * self.devices:,.0f} chip-hours, and '
        f'{RUNS * hours * self.devices:,.0f} for all {RUNS}: {self.values.records:,} records for '
        f'{self.config.schedule.max_epochs} epochs of the longest stage. Steps are the least that '
        'products, memory and network allow; half as fast is more likely'
      )
    for warning in self.warnings:
      print(f'note: {warning}')

  def hours(self):
    """Returns the most hours of a run, None where they are not known."""
    stages = [row for name, row in self.found.items() if name.startswith('stage')]
    if self.refused or not self.chip:
      return None
    batches = math.ceil(self.values.records / self.config.batch_size)
    towers, windows = (self.found[f'evaluation, {name}'] for name in ('towers', 'windows'))
    blocks = VALIDATION_FRAMES / towers['frames'] if 'frames' in towers else 0
    epoch = batches * max(row['step_s'] for row in stages)
    epoch += blocks * towers['step_s'] + batches / 5 * windows['step_s']  # a fifth are validated
    return self.config.schedule.max_epochs * epoch / 3600

  def warn(self, record_bytes):
    """Adds what should be known before anybody pays."""
    padded = self.clips * self.devices - self.config.batch_size
    if padded:
      self.warnings.append(
        f'{padded} of {self.clips * self.devices} rows of a batch are padding: a multiple of '
        f'{self.devices} clips wastes nothing'
      )
    stage = self.found.get('stage 1', {})
    if 'step_s' in stage:
      needed = self.config.batch_size * record_bytes / stage['step_s']
      if needed > READ:
        self.warnings.append(
          f'every host reads all records, {needed / 1e9:.1f} GB a second at this rate, and two '
          f'cores read {READ / 1e9:.1f}'
        )
    if not all(row['replicated'] for row in self.found.values()):
      self.warnings.append('a state is not whole on every device: its steps would be compiled anew')


def line(name, row):
  """Formats a program as a line of the table."""
  kinds = (
    f'{count} {kind}, {size / 1e6:.1f} MB' for kind, (count, size) in row['collectives'].items()
  )
  cells = [
    f'{name:20s}{row["gb"]:6.2f} GB{row["state_gb"]:10.2f} GB',
    f'{row.get("largest_batch", ""):>13}{row["tflop"]:10.2f}',
    f'{1e3 * row["step_s"]:5.0f} ms' if 'step_s' in row else ' ' * 8,
    '; '.join(kinds) or 'none',
  ]
  return '   '.join(cells)


def run():
  """Runs the console command avjax-preflight."""
  errors.run_command(main, sys.argv)


if __name__ == '__main__':
  run()
