"""Writes docs/performance.md and its picture from docs/performance.json and docs/gpu.json.

python -m benchmarks.performance
"""

import json
import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.pages import fill

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGE, PICTURE = DOCS / 'performance.md', DOCS / 'performance.png'
FIGURES, GPU = DOCS / 'performance.json', DOCS / 'gpu.json'
# Rows of the table of a GPU, and its columns.
WORK = {
  'train 1': 'stage 1',
  'train 2': 'stage 2',
  'train 3': 'stage 3',
  'predict': 'prediction',
  'visual': 'IR-50 alone, forward',
  'folded': 'the same, norms folded',
  'audio': 'VGGish alone, forward',
}
WAYS = {
  'avjax bfloat16': 'avjax, bfloat16 towers',
  'avjax float32': 'avjax, float32',
  'torch compiled': 'PyTorch, tuned and compiled',
  'torch eager': 'PyTorch, tuned, eager',
  'torch predecessors': "PyTorch, the predecessors' way",
}


def rounded(value):
  """Returns a tree of figures with four digits each."""
  if isinstance(value, dict):
    return {name: rounded(inner) for name, inner in value.items()}
  return float(f'{value:.4g}') if isinstance(value, float) else value


def table(head, rows):
  """Formats a Markdown table."""
  lines = [head, ['---'] * len(head), *rows]
  return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def gpu_block(found):
  """Formats what was measured on a GPU."""
  rows = []
  for work, title in WORK.items():
    cells = [found['cases'].get(f'{way} {work}') for way in WAYS]
    if any(cells):
      rows.append([title, *(cell['median_ms'] if cell else '' for cell in cells)])
  memory = [
    f'{title} {cell["temporary_gib"]} GiB'
    for work, title in WORK.items()
    if (cell := found['cases'].get(f'avjax bfloat16 {work}')) and work in ('train 1', 'train 3')
  ]
  peer = found['cases'].get('torch compiled train 3', {}).get('peak_gib')
  first = found['cases']['avjax bfloat16 train 3']['first_s']
  text = (
    f'Milliseconds a step on one {found["device"]} (jax {found["jax"]}, torch {found["torch"]}), '
    f'`configs/grjca.py`, {found["clips"]} clips of 300 frames:\n\n'
    f'{table(["", *WAYS.values()], rows)}\n\n'
    f'Temporary memory with bfloat16 towers: {", ".join(memory)} (PyTorch compiled: at most {peer} '
    f'GiB in stage 3, with its weights). The first step of stage 3 took {first:.0f} s to compile.'
  )
  if found.get('sketch'):
    text = (
      '**These figures are of a sketch**, not of the code that stands here: of avjax before '
      '`config.precision`, with the towers changed to bfloat16 by hand, one run of each. They '
      'stay until `python -m benchmarks.gpu` has run on a GPU.\n\n' + text
    )
  return text


def machine_line(found):
  """Tells what the figures of a processor were measured on."""
  machine = found['machine']
  return (
    f'{machine["processor"]}, {machine["cores"]} cores, Python {machine["python"]}, jax '
    f'{machine["jax"]}: {machine["gflops"]:.0f} GFLOP/s in float32 products of matrices, '
    f'{machine["gb_a_second"]:.0f} GB/s in copies.'
  )


def programs_block(found):
  """Formats the parts of a prediction of full size."""
  rows = []
  for name, row in found['programs'].items():
    rate = row['gflop'] / row['ms'] * 1e3
    cells = row['ms'], row['gflop'], row['mb'], rate
    share = rate / found['machine']['gflops']
    rows.append([name, *(f'{cell:,.3g}' for cell in cells), f'{share:.0%}'])
  head = ['program', 'ms', 'GFLOP', 'MB', 'GFLOP/s', 'of the processor']
  return f'{machine_line(found)}\n\n{table(head, rows)}'


def training_block(found):
  """Formats a step of the demo in each stage, and where its time goes."""
  training, rows = found['training'], []
  ways = [way for way in next(iter(training.values())) if way != 'avjax']
  for stage, row in training.items():
    own = row['avjax']['ms']
    peers = (f'{row[way]["ms"]:.0f} ({row[way]["ms"] / own:.2f} times)' for way in ways)
    rows.append([stage, f'{own:.0f}', *peers, f'{row["avjax"]["gflop"]:.1f}'])
  head = ['stage', 'avjax, ms', *(f'PyTorch {way}, ms' for way in ways), 'GFLOP']
  names = list(dict.fromkeys(part for row in training.values() for part in row['avjax']['parts']))
  shares = []
  for name in names:
    parts = [row['avjax']['parts'] for row in training.values()]
    shares.append([name, *(f'{part.get(name, 0) / sum(part.values()):.1%}' for part in parts)])
  return (
    f'{table(head, rows)}\n\nThe trace of one such step, as shares of the time of all threads:\n\n'
    f'{table(["", *(f"stage {stage}" for stage in training)], shares)}'
  )


def draw(found, gpu):
  """Draws the roofline of the processor, and the steps of the GPU over their floor."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout='constrained')
  peak, bandwidth = found['machine']['gflops'], found['machine']['gb_a_second']
  intensity = np.logspace(-1, 3, 100)
  left.loglog(intensity, np.minimum(peak, bandwidth * intensity), color='black', lw=1)
  rows = {name: (row, 'C0') for name, row in found['programs'].items()}
  rows |= {
    f'stage {stage} of the demo': (row['avjax'], 'C1') for stage, row in found['training'].items()
  }
  for name, (row, colour) in rows.items():
    place = 1e3 * row['gflop'] / row['mb'], 1e3 * row['gflop'] / row['ms']
    left.plot(*place, 'o', color=colour)
    left.annotate(name, place, (5, -11), textcoords='offset points', fontsize=8)
  left.set(xlabel='FLOP a byte', ylabel='GFLOP/s', xlim=(0.1, 1000))
  left.set_title(f'this processor, {found["machine"]["cores"]} cores', fontsize=10, loc='left')
  bars = []
  for work, title in WORK.items():
    floor = gpu['cases'].get(f'avjax bfloat16 {work}', {}).get('tflop', 0)
    for way, kind in WAYS.items():
      case = gpu['cases'].get(f'{way} {work}')
      if case and floor:
        floor_ms = 1e3 * floor / gpu['bfloat16_tflops']
        bars.append((f'{title}\n{kind}', case['median_ms'], floor_ms))
  names, milliseconds, floors = zip(*reversed(bars), strict=True)
  colours = ['C0' if 'avjax' in name else '0.7' for name in names]
  right.barh(range(len(names)), milliseconds, color=colours)
  for y, floor in enumerate(floors):
    right.plot([floor, floor], [y - 0.4, y + 0.4], color='black', lw=1.5)
  right.set_yticks(range(len(names)), names, fontsize=7)
  sketch = ', a sketch' if gpu.get('sketch') else ''
  title = f'{gpu["device"]}{sketch}: ms, and the floor of its products (line)'
  right.set_title(title, fontsize=10, loc='left')
  for axis in (left, right):
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(PICTURE, dpi=110)


def blocks(found, gpu):
  """Returns {name: Markdown} of the generated blocks of the page."""
  return {
    'gpu': gpu_block(gpu),
    'programs': programs_block(found),
    'training': training_block(found),
  }


def write():
  """Writes the page and its picture."""
  found, gpu = json.loads(FIGURES.read_text()), json.loads(GPU.read_text())
  text = PAGE.read_text()
  for name, block in blocks(found, gpu).items():
    text = fill(text, name, block)
  PAGE.write_text(text)
  draw(found, gpu)


if __name__ == '__main__':
  write()
