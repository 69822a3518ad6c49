"""Compiles configs for slices of TPUs; writes docs/scale.json, and docs/scale.md from it.

python -m benchmarks.scale [CASE ...]

It needs the extra `tpu`, and no TPU. A case, such as 'grjca v5e:4x4 12x', is a config, a slice and
the clips of a step, as in avjax.preflight. Without any it compiles all of CASES, two at a time,
about five minutes of a processor each.
"""

import concurrent.futures
import importlib.metadata
import json
import math
import pathlib
import subprocess
import sys

from avjax.command_line import load_config
from avjax.preflight import TOO_LARGE
from avjax.training.ahead import KINDS, Devices, Sizes, roofline
from avjax.training.estimate import read_by_a_host, summarize
from benchmarks.pages import fill
from benchmarks.performance import table

ROOT = pathlib.Path(__file__).parents[1]
FIGURES, PAGE = ROOT / 'docs' / 'scale.json', ROOT / 'docs' / 'scale.md'
OF_THE_PAPER = ('grjca', 'hgrjca', 'dca', 'rjca', 'jca')
# {kind: (what JAX calls it, the slice whose compiled programs stand for those of its slices)}.
COMPILED = {
  'v5e': ('TPU v5 lite', 'v5e:4x4'),
  'v6e': ('TPU v6 lite', 'v6e:4x4'),
  'v5p': ('TPU v5', 'v5p:2x2x4'),
}
CASES = [
  'grjca v5e:4x4 12x',
  'grjca v5e:1x1 12x',
  'grjca v5e:4x4 12',
  'grjca v6e:4x4 12x',
  'grjca v5p:2x2x4 12x',
  *(f'{name} {slice_} 12x' for slice_ in ('v5e:4x4', 'v5e:1x1') for name in OF_THE_PAPER[1:]),
  'grjca v5e:16x16 12x',
]
PLANE = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
CUBE = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8')
OF_A_HOST = 4  # chips


def compile_case(case):
  """Returns what avjax.preflight says of a case."""
  config, topology, batch = case.split()
  words = [f'--config=configs/{config}.py', f'--topology={topology}', f'--batch={batch}', '--json']
  command = [sys.executable, '-m', 'avjax.preflight', *words]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  if done.returncode not in (0, TOO_LARGE):
    sys.exit(f'{case}: {done.stderr[-2000:]}')
  return json.loads(done.stdout)


def on_slice(found, kind, sides):
  """Returns what preflight would say of configs/grjca.py on a slice, by proportion.

  Each chip runs the program that was compiled for another slice, with the same clips a chip, at the
  rates of its own kind. The collectives have the same bytes on any number of chips but one.

  found: of the slice whose programs were compiled.
  """
  count, old = math.prod(map(int, sides.split('x'))), found['devices']['count']
  name = COMPILED[kind][0]
  devices = Devices(name, count, math.ceil(count / OF_A_HOST), KINDS[name].memory)
  config = load_config(['--config=configs/grjca.py'])
  config.batch_size = found['batch'] // old * count
  sizes = Sizes(**found['records'])
  rows = {}
  for name, row in found['programs'].items():
    collectives = row['collectives'] if count > 1 else {}
    runs = math.ceil(row['runs'] * old / count)
    if row['trains']:
      runs = math.ceil(sizes.training / config.batch_size)
    rows[name] = row | {'collectives': collectives, 'runs': runs}
    rows[name]['seconds'] = roofline(rows[name], devices, 'float32')
  about = {'devices': vars(devices), 'batch': config.batch_size, 'records': found['records']}
  return {**about, 'programs': rows, **summarize(config, devices, sizes, rows)}


def stages(found):
  """Returns the rows of the training steps."""
  return [row for row in found['programs'].values() if row['trains']]


def reading(found):
  """Returns the bytes/s that each host reads."""
  batch = found['batch'] * found['records']['record']
  return read_by_a_host(batch, found['devices']['hosts'], stages(found))


def programs_block(found):
  """Formats the programs of GRJCA on 16 chips."""
  found, rows = found['grjca v5e:4x4 12x'], []
  for name, row in found['programs'].items():
    kinds = (
      f'{count} {kind}, {size / 1e6:.3g} MB' for kind, (count, size) in row['collectives'].items()
    )
    rows.append(
      [
        name,
        f'{row["memory"] / 1e9:.2f}',
        f'{row["flops"] / 1e12:.3g}',
        f'{row["accessed"] / 1e9:.3g}',
        '; '.join(kinds),
        f'{1e3 * row["seconds"]:.3g}',
      ]
    )
  head = ['program', 'memory, GB', 'TFLOP', 'GB read and written', 'collectives', 'roofline, ms']
  return table(head, rows)


def cases_block(found):
  """Formats what was compiled, a line for each case, and names the cases that were not."""
  rows = []
  for case in CASES:
    if case in found:
      one = found[case]
      last = stages(one)[-1]
      count, size = last['collectives'].get('all-reduce', (0, 0))
      memory = max(row['memory'] for row in stages(one))
      rows.append(
        [
          *case.split()[:2],
          one['batch'],
          f'{memory / 1e9:.2f} of {one["devices"]["memory"] / 1e9:.0f}',
          one['largest_batch'],
          ' / '.join(f'{1e3 * row["seconds"]:.0f}' for row in stages(one)),
          f'{count}, {size / 1e6:.0f} MB' if count else 'none',
          f'{one["hours"]:.2f}',
          f'{one["protocol_chip_hours"]:.0f}',
        ]
      )
  head = [
    'config',
    'slice',
    'clips a step',
    'memory of a chip, GB',
    'clips that fit, about',
    'roofline of a step in each stage, ms',
    'all-reduces of the last stage',
    'hours a training',
    'chip-hours of all 12',
  ]
  versions = found['versions']
  effort = 'least effort (`JAX_OPTIMIZATION_LEVEL=O0`)'
  missing = ', '.join(case for case in CASES if case not in found)
  missing = missing and f'\n\nNot compiled yet: {missing}.'
  return (
    f'jax {versions["jax"]}, libtpu {versions["libtpu"]}, {effort}, full size, float32:\n\n'
    f'{table(head, rows)}{missing}'
  )


def slices_block(found):
  """Formats slices of 1 to 256 chips."""
  rows = []
  for kind, (_, compiled) in COMPILED.items():
    for sides in CUBE if kind == 'v5p' else PLANE:
      name = f'{kind}:{sides}'
      known = found.get(f'grjca {name} 12x')
      one = known or on_slice(found[f'grjca {compiled} 12x'], kind, sides)
      last = stages(one)[-1]
      rows.append(
        [
          name,
          one['devices']['count'],
          one['batch'],
          f'{1e3 * last["seconds"]:.0f}',
          f'{one["batch"] / last["seconds"]:,.0f}',
          f'{one["hours"]:.2f}',
          f'{one["protocol_chip_hours"]:.0f}',
          f'{reading(one) / 1e9:.1f}',
          'compiled' if known else f'program of {compiled}',
        ]
      )
  head = [
    'slice',
    'chips',
    'clips a step',
    'stage 3, ms',
    'clips a second',
    'hours a training',
    'chip-hours of all 12',
    'GB a second read by each host',
    'how',
  ]
  return table(head, rows)


def rates_block():
  """Formats the rates that times are estimated with."""
  rows = [
    [
      kind,
      f'{rates.memory / 1e9:.0f}',
      f'{rates.bandwidth / 1e9:,.0f}',
      f'{rates.float32 / 1e12:.0f}',
      f'{rates.network / 1e9:.0f}',
    ]
    for kind, rates in KINDS.items()
    if kind.startswith('TPU')
  ]
  return table(['JAX calls it', 'GB', 'GB/s of memory', 'TFLOP/s', 'GB/s in an all-reduce'], rows)


def blocks(found):
  """Returns {name: Markdown} of the generated blocks of the page."""
  return {
    'programs': programs_block(found),
    'cases': cases_block(found),
    'slices': slices_block(found),
    'rates': rates_block(),
  }


def write():
  """Writes the page."""
  text = PAGE.read_text()
  for name, block in blocks(json.loads(FIGURES.read_text())).items():
    text = fill(text, name, block)
  PAGE.write_text(text)


def main(cases):
  found = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    waiting = {pool.submit(compile_case, case): case for case in cases}
    for done in concurrent.futures.as_completed(waiting):
      found[waiting[done]] = done.result()
      found['versions'] = {name: importlib.metadata.version(name) for name in ('jax', 'libtpu')}
      FIGURES.write_text(json.dumps(found, indent=1) + '\n')
      print(waiting[done], flush=True)
  write()


if __name__ == '__main__':
  main(sys.argv[1:] or CASES)
