"""Writes docs/performance.md and its picture from docs/performance.json and docs/gpu.json.

The work of a clip is from docs/systems.json. Figures, but for settings, are only in blocks that are
generated here.

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
FIGURES, GPU, SYSTEMS = (DOCS / f'{name}.json' for name in ('performance', 'gpu', 'systems'))
# Rows of the table of a GPU, and its columns.
WORK = {
  'train 1': 'stage 1',
  'train 2': 'stage 2',
  'train 3': 'stage 3',
  'predict': 'prediction',
  'visual': 'IR-50 only, forward',
  'folded': 'the same, norms folded',
  'audio': 'VGGish only, forward',
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


def steps_table(cases):
  """Formats {case: figures} of a GPU as a table: a row for each kind of work."""
  ways = {way: title for way, title in WAYS.items() if any(case.startswith(way) for case in cases)}
  rows = []
  for work, title in WORK.items():
    cells = [cases.get(f'{way} {work}') for way in ways]
    if any(cells):
      rows.append([title, *(cell['median_ms'] if cell else '' for cell in cells)])
  return table(['', *ways.values()], rows)


def newest(found, *cases):
  """Returns the newest run on a GPU that has all of these cases."""
  return next(run for run in reversed(found['runs']) if set(cases) <= set(run['cases']))


def newest_cases(found):
  """Returns {case: its figures in the newest run on a GPU that has it}."""
  return {case: row for run in found['runs'] for case, row in run['cases'].items()}


def gpu_block(found):
  """Formats what was measured on a GPU."""
  latest, cases = found['runs'][-1], newest_cases(found)
  works = ('train 1', 'train 2', 'train 3', 'predict')
  ratios, gib, peaks = [], [], []
  for case, peer in ((f'avjax bfloat16 {work}', f'torch compiled {work}') for work in works):
    run = newest(found, case, peer)['cases']
    ratios.append(f'{run[peer]["median_ms"] / run[case]["median_ms"]:.2f}')
    gib.append(f'{run[case]["temporary_gib"]:.1f}')
    peaks.append(f'{run[peer]["peak_gib"]:.1f}')
  _, two, three, predict = (cases[f'avjax bfloat16 {work}'] for work in works)
  old = cases['torch predecessors train 3']
  first = [f'{row["first_s"]:.0f} s' for row in (three, predict, two)]
  second = [f'{row["second_s"]:.1f}' for row in (three, predict, two)]
  traced = newest(found, 'avjax bfloat16 train 1')['cases']
  traces = [traced[f'avjax bfloat16 train {stage}']['parts_ms'] for stage in (1, 3)]
  names = sorted(traces[1], key=lambda name: -traces[1][name])
  parts = [[name, *(f'{row[name]:.1f}' for row in traces)] for name in names]
  float32, bfloat16 = (
    found['sketch'][f'avjax {kind} train 3']['median_ms'] for kind in ('float32', 'bfloat16')
  )

  def listed(values):
    return f'{", ".join(values[:-1])} and {values[-1]}'

  return (
    f'Milliseconds a step on one {latest["device"]} (jax {latest["jax"]}, torch '
    f'{latest["torch"]}), `configs/grjca.py`, {latest["clips"]} clips of 300 frames:\n\n'
    f'{steps_table(cases)}\n\n'
    'They are of three runs on cards of that kind: stage 1 and the towers alone of the first (the '
    'towers on another card than stage 1), stages 2 and 3 and prediction of the second, the '
    "predecessors' way of the third.\n\n"
    f'Stages 1 to 3 run {listed(ratios[:3])} times as fast as PyTorch at its best, and prediction '
    f'{ratios[3]} times, each in one run on one card; 1.3 times was the aim, and is missed. '
    'PyTorch computes its TCNs in bfloat16 there, and avjax in float32. Stage 3 is '
    f"{old['median_ms'] / three['median_ms']:.1f} times as fast as PyTorch in the predecessors' "
    'way, which was timed in another run; 4.5 times was the aim, and is missed, too.\n\n'
    f'Temporary memory: {listed(gib)} GiB in stages 1 to 3 and in prediction (PyTorch, with its '
    f"weights: at most {listed(peaks)}; in the predecessors' way {old['peak_gib']:.1f} in stage "
    '3).\n\n'
    f'In the second run, the first program to be compiled took {first[0]} (stage 3; 60 s was the '
    'aim, and is missed), most of it to try the ways of each convolution; prediction after it took '
    f'{first[1]}, and stage 2 {first[2]}. At a second start, which finds what the first one kept, '
    f'they took {listed(second)} s; at most 10 s was the aim, and is met.\n\n'
    'Milliseconds by part of the model, from traces of the first run:\n\n'
    f'{table(["", "stage 1", "stage 3"], parts)}\n\n'
    'Float32, and PyTorch that is tuned but not compiled, were not measured in these runs. **Of a '
    'sketch**, before `config.precision`, on a card of that kind: its towers were changed to '
    'bfloat16 by hand, and products behind them had ten bits. That made stage 3 '
    f'{float32 / bfloat16:.2f} times as fast.\n\n'
    f'{steps_table(found["sketch"])}'
  )


def gpu_work_block(found, systems):
  """Tells what the work of a step is, the least time that it takes on a GPU, and what is left."""
  whole, behind = (systems['grjca'][part]['flops'] for part in ('whole', 'without_towers'))
  one, two, three = (found['tflop'][f'train {stage}'] for stage in (1, 2, 3))
  runs = [newest(found, f'avjax bfloat16 train {stage}') for stage in (1, 2, 3)]
  rates = [run['bfloat16_tflops'] for run in runs]
  floors = [f'{1e3 * work / rate:.0f}' for work, rate in zip((one, two, three), rates, strict=True)]
  parts = runs[0]['cases']['avjax bfloat16 train 1']['parts_ms']
  towers = sum(value for name, value in parts.items() if 'tower' in name)
  temporal = sum(value for name, value in parts.items() if 'temporal' in name)
  rest = sum(value for name, value in parts.items() if name.startswith(('fusion', 'head')))
  total = sum(parts.values())
  gib = runs[2]['cases']['avjax bfloat16 train 3']['temporary_gib'] / runs[2]['clips']
  return (
    'The work of a step, counted by hand with the zeros around each map: a clip of 300 frames is '
    f'{whole / 1e9:,.0f} GFLOP forward, and {runs[0]["clips"]} clips are {one:.1f} TFLOP. Stages 2 '
    f'and 3 add the gradients of what they open, {two - one:.1f} and {three - two:.1f} TFLOP. At '
    f'the rate of a large product of matrices in the same run, {rates[0]:.0f} TFLOP/s for stage 1 '
    f'and {rates[2]:.0f} for stages 2 and 3, this is {floors[0]}, {floors[1]} and {floors[2]} ms. '
    f'What is behind the towers is {behind / whole:.1%} of the work and '
    f'{(temporal + rest) / total:.0%} of the time of stage 1, '
    'since it is in float32. `tests/avjax/system/test_step.py` compares the towers, and what each '
    'stage adds to a step, with counts by hand.\n\n'
    "**Why not 1.3 times.** The convolutions of both towers are cuDNN's in avjax and in PyTorch. "
    f'The towers take {towers:.0f} of the {total:.0f} ms of stage 1 in its trace, and the TCNs '
    f'{temporal:.0f} ms. Products of ten bits behind the towers (TensorFloat-32) might save most '
    'of the latter; then predictions and gates would not have the digits that '
    '`config.precision.rest` promises. '
    '`python -m benchmarks.gpu --output FOLDER --only "avjax tensorfloat32 train 1"` measures it, '
    'which was not done.\n\n'
    f'Temporary memory grows with the number of clips; in stage 3 it is {gib:.1f} GiB a clip. '
    '`python -m avjax.preflight` tells what fits.'
  )


def gpu_tried_block(found):
  """Formats what was tried on a GPU, and what came of it."""
  cases, tried = newest_cases(found), found['tried']

  def ms(row):
    return f'{row["median_ms"]:.1f} ms'

  dilated, now = tried['train 1, dilated convolutions in the TCN'], cases['avjax bfloat16 train 1']
  temporal = sum(value for name, value in now['parts_ms'].items() if 'temporal' in name)
  shared = tried["audio, VGGish's first layer shared by windows"]
  convolution = tried["audio, VGGish's first layer as a convolution"]
  visual, folded, audio = (cases[f'avjax bfloat16 {x}'] for x in ('visual', 'folded', 'audio'))
  flag = 'xla_gpu_experimental_enable_conv_fusion'
  graphs = [tried[f'{work}, {flag}'] for work in ('visual', 'folded')]
  return (
    '- **The TCN as one product of matrices a layer. Kept.** XLA fills a dilated kernel up with '
    'zeros for a GPU: five taps of dilation 8 became 33. Temporal part with its gradient: '
    f'{dilated["temporal_ms"]} ms of stage 1 before, {temporal:.1f} now.\n'
    f'- **Norms folded into the convolutions of IR-50. Dropped.** {ms(folded)} for {ms(visual)}. '
    'cuDNN takes the shift and the sum with the shortcut into its convolutions, which become '
    'slower by as much.\n'
    f'- **Convolutions as graphs of cuDNN** (`{flag}`). {ms(graphs[0])}, folded {ms(graphs[1])}. '
    'Dropped.\n'
    '- **The first layer of VGGish once for all windows that share a row**, with other kernels at '
    f'their borders: {ms(shared)} for {ms(audio)}, a hundredth of a step. Not built. As a plain '
    f'convolution of one channel it takes {ms(convolution)}; the nine shifted products stay.'
  )


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


def intensity_block(found):
  """Tells why a step of the demo is far from the limits of the processor."""

  def extremes(rows, unit):
    values = sorted(unit(row) for row in rows)
    return values[0], values[-1]

  def per_byte(row):
    return 1e3 * row['gflop'] / row['mb']

  def share(row):
    return 1e3 * row['gflop'] / row['ms'] / found['machine']['gflops']

  demo = extremes([row['avjax'] for row in found['training'].values()], per_byte)
  towers = [found['programs'][f'{kind} tower'] for kind in ('visual', 'audio')]
  full, used = extremes(towers, per_byte), extremes(found['programs'].values(), share)
  return (
    '**PyTorch is faster here**, and this was to be no slower. The towers of the demo have few '
    f'channels, so a step does little with each byte that it moves: {demo[0]:.1f} to {demo[1]:.1f} '
    f'FLOP, where the towers of full size do {full[0]:.0f} to {full[1]:.0f}. It reaches neither '
    'the rate of the memory nor that of the processor, as the picture shows; at full size XLA uses '
    f'{used[0]:.0%} to {used[1]:.0%} of the processor. Three ways were tried and gave nothing '
    'beyond the noise of this machine: XLA without its newer library of kernels (YNNPACK), wider '
    'vectors, and the first convolution of VGGish as shifted products with the gradient of a '
    'convolution.'
  )


def prediction_line(found):
  """Tells how fast the whole command predicts with a model of full size, with each engine."""
  own = found['prediction']['jax']
  others = [
    f'{row["frames_a_second"]:.1f} with `--engine {engine}` '
    f'({row["frames_a_second"] / own["frames_a_second"]:.2f} times as many; its towers '
    f'{row["stages"]["towers"]})'
    for engine, row in found['prediction'].items()
    if engine != 'jax'
  ]
  return (
    f'The whole command of prediction with a model of `configs/grjca.py` handles '
    f'{own["frames_a_second"]:.1f} frames a second with JAX (its towers '
    f'{own["stages"]["towers"]}), '
    f'{" and ".join(others)}. Twice as many was the aim, and is missed: finding the faces takes '
    'as long as the faster towers. The video is one of the synthetic set; '
    '[predict.md](predict.md#speed-and-memory) has a real one.'
  )


def reading_block(found):
  """Formats what reading and building take."""
  reader, build = found['reading']['reader'], found['reading']['build']
  rows = [[name, row['mb'], row['ms']] for name, row in reader['hosts'].items()]
  hosts = table(['hosts', 'MB', 'ms of a core'], rows)
  whole = build['affwild2']
  return (
    f'Reading, shuffled, from local disk on {found["reading"]["cores"]} cores: '
    f'{reader["clips_per_second"]:.0f} clips of 300 frames a second (median of the passes; the '
    f'fastest {reader["most_clips_per_second"]:.0f}; a plain read of the same files '
    f'{reader["plain_clips_per_second"]:,.0f}), the first batch after '
    f'{reader["first_batch_s"]:.2f} s. The files were in the page cache. A second of one busy core '
    f'reads {reader["clips_per_second_of_a_core"]:.0f} clips.\n\n'
    'In training each of several hosts reads its own rows of a batch. Of 24 clips, one reads for a '
    f'step (one host after the other, on this machine):\n\n{hosts}\n\n'
    f'`data_prep.build` with all cores: {build["frames_per_second"]:.0f} frames a second of a '
    f'synthetic set of {build["frames"]:,} frames, its start included. At that rate the '
    f'{whole["frames"] / 1e6:.2f} M frames of Aff-Wild2 take {whole["hours"]} hours; its videos '
    f'have more pixels. They become {whole["records"]:,} records, {whole["gb"]} GB, '
    f'{whole["bytes_per_frame"]:,} bytes a frame, of which those in two windows count twice.'
  )


def folded_block(found):
  """Formats what folding the norms of IR-50 changes."""
  programs, v5e = found['programs'], found['folded on v5e']
  plain, folded = (v5e[name] for name in ('plain', 'folded'))
  here = programs['visual tower, norms folded']['ms'] / programs['visual tower']['ms']
  return (
    '- **Norms folded into the convolutions of IR-50.** Predicted: a fifth of its time on a GPU, '
    'by fewer passes over the maps. On this processor it takes '
    f'{here:.2f} times as long, since kernels are multiplied anew for each block. For a TPU v5e '
    f'its compiler estimates {folded["ms"]:.0f} ms for {plain["ms"]:.0f}, '
    f'{folded["gb"]:.1f} GB that are accessed for {plain["gb"]:.1f}, and '
    f'{folded["temporary_gib"]:.1f} GiB of temporary memory for {plain["temporary_gib"]:.1f} (12 '
    'clips, bfloat16): it fuses norms and convolutions by itself. So the tower stays as it is. '
    '`benchmarks/folded.py` has the folded one, equal within 1e-5.'
  )


def draw(found, gpu):
  """Draws the roofline of the processor, and the steps of the GPU over their floor."""
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout='constrained')
  peak, bandwidth = found['machine']['gflops'], found['machine']['gb_a_second']
  intensity = np.logspace(-1, 3, 100)
  left.loglog(intensity, np.minimum(peak, bandwidth * intensity), color='black', lw=1)
  rows = dict(found['programs'])
  rows |= {f'stage {stage} of the demo': row['avjax'] for stage, row in found['training'].items()}
  for marker, (name, row) in zip('osD^vPX', rows.items(), strict=False):
    place = 1e3 * row['gflop'] / row['mb'], 1e3 * row['gflop'] / row['ms']
    left.plot(*place, marker, label=name)
  left.legend(fontsize=8, loc='lower right', frameon=False)
  left.set(xlabel='FLOP a byte', ylabel='GFLOP/s', xlim=(0.1, 1000))
  left.set_title(f'this processor, {found["machine"]["cores"]} cores', fontsize=10, loc='left')
  bars = []
  for work, floor in gpu['tflop'].items():
    for way, kind in WAYS.items():
      case = f'{way} {work}'
      if case in newest_cases(gpu):
        run = newest(gpu, case)
        floor_ms = 1e3 * floor / run['bfloat16_tflops']
        bars.append((f'{WORK[work]}\n{kind}', run['cases'][case]['median_ms'], floor_ms))
  names, milliseconds, floors = zip(*reversed(bars), strict=True)
  colours = ['C0' if 'avjax' in name else '0.7' for name in names]
  right.barh(range(len(names)), milliseconds, color=colours)
  for y, floor in enumerate(floors):
    right.plot([floor, floor], [y - 0.4, y + 0.4], color='black', lw=1.5)
  right.set_yticks(range(len(names)), names, fontsize=7)
  title = f'{gpu["runs"][-1]["device"]}: ms a step; line: its products only'
  right.set_title(title, fontsize=10, loc='left')
  for axis in (left, right):
    axis.spines[['top', 'right']].set_visible(False)
  figure.savefig(PICTURE, dpi=110)


def blocks(found, gpu, systems):
  """Returns {name: Markdown} of the generated blocks of the page."""
  return {
    'gpu': gpu_block(gpu),
    'gpu work': gpu_work_block(gpu, systems),
    'gpu tried': gpu_tried_block(gpu),
    'programs': programs_block(found),
    'prediction': prediction_line(found),
    'reading': reading_block(found),
    'folded': folded_block(found),
    'training': training_block(found),
    'intensity': intensity_block(found),
  }


def write():
  """Writes the page and its picture."""
  found, gpu, systems = (json.loads(path.read_text()) for path in (FIGURES, GPU, SYSTEMS))
  text = PAGE.read_text()
  for name, block in blocks(found, gpu, systems).items():
    text = fill(text, name, block)
  PAGE.write_text(text)
  draw(found, gpu)


if __name__ == '__main__':
  write()
