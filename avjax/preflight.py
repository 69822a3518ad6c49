"""Compiles every program of a run ahead of time, and says what it takes:

  python -m avjax.preflight --config=configs/grjca.py --topology=v5e:4x4 --batch=12x

Nothing is run or written. A slice of TPUs need not be there: its compiler is in the extra `tpu`.
Without --topology it compiles for the devices that are here.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import sys

from avjax import command_line, errors
from avjax.errors import InputError, one_line

# Of JAX, for TPUs that are not here: no other device has a part in this, and JAX keeps what it
# compiles for them, but cannot read it again.
SETTINGS = {'JAX_PLATFORMS': 'cpu', 'JAX_COMPILATION_CACHE_DIR': ''}
# The least effort of their compiler takes a minute or two for a step of full size, and its default
# many. Memory is an upper bound then.
EFFORT = {'JAX_OPTIMIZATION_LEVEL': 'O0'}
TOO_LARGE = 4  # exit status; 3 is that of avjax.main for a loss that is not finite
HEAD = 'program                of memory     TFLOP      ms   compiled in   collectives'


def main(argv):
  """Runs the command; returns its exit status, TOO_LARGE if a program does not fit."""
  arguments, words = read(argv)
  config = command_line.load_config(words)
  clips, of_a_device = config.batch_size, False
  if arguments.batch is not None:
    clips, of_a_device = read_batch(arguments.batch)
  topology = arguments.topology
  if topology:
    os.environ.update({**EFFORT, **os.environ, **SETTINGS})
  command_line.start_jax()
  from avjax.inference.stream import BLOCK_FRAMES
  from avjax.system import sharding
  from avjax.system.system import precision_of
  from avjax.training import ahead, estimate, plan

  mesh = ahead.tpu_slice(topology) if topology else sharding.make_mesh()
  devices = ahead.describe(mesh)
  config.batch_size = clips * (devices.count if of_a_device else 1)
  plan.check_ranges(config)
  config, sizes = estimate.record_sizes(config)
  about = {
    'devices': dataclasses.asdict(devices),
    'batch': config.batch_size,
    'records': dataclasses.asdict(sizes),
  }
  if not arguments.json:
    print(
      f'{devices.count} {devices.kind} in {devices.hosts} host(s), {config.batch_size} clips a '
      f'step\n\n{HEAD}',
      flush=True,
    )
  rows = {}
  for job in ahead.jobs(config, mesh, sizes, BLOCK_FRAMES):
    row = rows[job.name] = ahead.measure(job, devices, precision_of(config)['towers'])
    if not arguments.json:
      print(line(job.name, row, devices.memory), flush=True)
  found = estimate.summarize(config, devices, sizes, rows)
  if arguments.json:
    print(json.dumps({**about, 'programs': rows, **found}, indent=1))
  else:
    print(*summary(config, sizes, found), sep='\n')
  return 0 if all(row['fits'] for row in rows.values()) else TOO_LARGE


def read(argv):
  """Returns (arguments, the words that describe a config)."""
  parser = argparse.ArgumentParser(
    prog='python -m avjax.preflight',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument(
    '--config', metavar='FILE:ARGUMENT', help='as of avjax.main; --config.KEY=VALUE changes a key'
  )
  parser.add_argument('--topology', metavar='SLICE', help='of TPUs, as v5e:4x4 or v5p:2x2x1')
  parser.add_argument('--batch', metavar='CLIPS', help='of a step; 12x is 12 a device')
  parser.add_argument('--json', action='store_true', help='print JSON in place of the table')
  arguments, words = parser.parse_known_args(argv[1:])
  return arguments, [*([f'--config={arguments.config}'] if arguments.config else []), *words]


def read_batch(word):
  """Returns (clips, whether each device has so many) for a word such as 12 or 12x."""
  found = re.fullmatch(r'([1-9][0-9]{0,5})(x?)', word)
  if not found:
    raise InputError(
      f'--batch={one_line(word)} is not a number of clips, such as 12, or 12x for 12 a device'
    )
  return int(found[1]), bool(found[2])


def line(name, row, memory):
  """Formats a program as a line of the table."""
  start = f'{name:20}{row["memory"] / 1e9:6.2f} GB{row["memory"] / memory:5.0%}'
  if not row['fits']:
    return f'{start}   does not fit'
  time = '' if row['seconds'] is None else f'{1e3 * row["seconds"]:.1f}'
  kinds = (
    f'{count} {kind}, {size / 1e6:.3g} MB' for kind, (count, size) in row['collectives'].items()
  )
  return f'{start}{row["flops"] / 1e12:10.2f}{time:>8}{row["compile_seconds"]:12.0f} s   ' + (
    '; '.join(kinds) or 'none'
  )


def summary(config, sizes, found):
  """Returns what the programs mean for a run, in lines."""
  lines = [
    '',
    'Memory, FLOP and collectives are of one device in one run of a program, by its compiler.',
    f'About {found["largest_batch"]:,} clips a step fit, by proportion.',
  ]
  if 'hours' in found:
    lines += [
      'ms is a roofline: all FLOP at the peak rate, or all bytes at that of the memory, whichever',
      'takes longer, and then the collectives in a ring. A real step takes longer.',
      f'At that rate a training takes {found["hours"]:.2f} hours, {found["chip_hours"]:,.1f} '
      f'chip-hours, and the {found["trainings"]} of the protocol',
      f'{found["protocol_chip_hours"]:,.0f} chip-hours: {config.schedule.max_epochs} epochs, all '
      f'in the slowest stage, of {sizes.training:,} records and',
      f'{sizes.validation:,} for validation, those of {config.data.dir or "Aff-Wild2"}.',
    ]
  return lines + [f'note: {note}' for note in found['notes']]


def run():
  """Runs the console command avjax-preflight."""
  errors.run_command(main, sys.argv, buckets=('--config.data.dir',))


if __name__ == '__main__':
  run()
