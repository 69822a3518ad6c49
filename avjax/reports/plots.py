"""Draws the figures of a run and of a video with matplotlib: PNG files, and inline SVG for pages.

`curves`, `traces` and `clip` write PNG files. The figures of a page are drawn by the same `draw_*`
functions, each on axes of its own from `svg.page_axes`; `svg.to_html` turns them into HTML.
"""

import itertools
import warnings

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure  # without pyplot, which takes long to import and keeps figures

from avjax.reports import legend
from avjax.reports.legend import BLACK, GREY, GRID, STAGE_LINE
from avjax.targets import TARGETS, criterion, value_range

SCATTER_CELLS = 50  # along each axis
# The font of matplotlib lacks many scripts that occur in file names; these are used if installed.
MORE_FONTS = (
  'Noto Sans CJK SC',
  'Noto Sans CJK JP',
  'WenQuanYi Zen Hei',
  'Droid Sans Fallback',
  'PingFang SC',
  'Hiragino Sans',
  'Microsoft YaHei',
  'Yu Gothic',
  'Malgun Gothic',
  'Noto Sans Arabic',
  'Noto Sans Devanagari',
  'Arial Unicode MS',
)


def draw_scores(axes, history, targets):
  """Draws the first metric of each target, CCC for valence and arousal, over epochs.

  history: the lines of metrics.jsonl.
  """
  for target in targets:
    column = f'validation_{TARGETS[target].metrics[0]}_{target}'
    _draw_column(axes, history, column, TARGETS[target].colour, label=target)


def draw_loss(axes, history):
  """Draws the training loss over epochs."""
  _draw_column(axes, history, 'train_loss', GREY)


def draw_rate(axes, history):
  """Draws the learning rate over epochs on a logarithmic axis."""
  axes.set_yscale('log', nonpositive='mask')
  _draw_column(axes, history, 'rate', GREY)


def _draw_column(axes, history, name, colour, label=None):
  """Draws one column of metrics.jsonl; epochs that lack it leave a gap."""
  epochs = [row['epoch'] + 1 for row in history]
  values = np.array([row.get(name) for row in history], float)
  axes.plot(epochs, values, 'o-', ms=3, color=colour, label=label)


def draw_stages(axes, history, named=True):
  """Draws a vertical line wherever a group of layers opens."""
  for before, row in itertools.pairwise(history):
    if row['stage'] != before['stage']:
      text = f'group {row["stage"]} opens' if named else ''
      draw_vertical(axes, row['epoch'] + 0.5, text, GREY, color=STAGE_LINE, ls=':')


def draw_vertical(axes, x, text, text_colour, **line):
  """Draws a vertical line at x, with a text along it."""
  axes.axvline(x, lw=1, **line)
  if text:
    axes.annotate(
      text,
      (x, 0),
      xycoords=('data', 'axes fraction'),
      rotation=90,
      fontsize=8,
      color=text_colour,
      ha='right',
      va='bottom',
      parse_math=False,
    )


def draw_trace(axes, times, label, prediction, target):
  """Draws prediction and annotation of a target over time; all (N,), NaN where there is none."""
  axes.plot(times, label, color=GREY, lw=1, label='annotation')
  axes.plot(times, prediction, color=TARGETS[target].colour, lw=1.5, label=target)
  axes.set_ylim(TARGETS[target].lowest, TARGETS[target].highest)


def draw_scatter(axes, prediction, annotation, target):
  """Draws how many frames have which annotation (across) and prediction (up), both (N,).

  The more frames in a cell, the stronger its colour. On the dashed line the two are equal.
  """
  ends = TARGETS[target].lowest, TARGETS[target].highest
  counts, edges, _ = np.histogram2d(annotation, prediction, SCATTER_CELLS, [ends, ends])
  across, up = np.nonzero(counts)
  opacity = 0.2 + 0.8 * np.sqrt(counts[across, up] / counts.max())
  size = (ends[1] - ends[0]) / SCATTER_CELLS
  axes.bar(
    edges[across],
    size,
    size,
    bottom=edges[up],
    align='edge',
    color=[(TARGETS[target].colour, alpha) for alpha in opacity.round(2)],
  )
  axes.plot(ends, ends, color=BLACK, lw=1, ls='--')
  axes.set(xlim=ends, ylim=ends)


def curves(history, targets, path):
  """Writes a PNG of validation scores, training loss and rate over epochs.

  history: the lines of metrics.jsonl.
  """
  figure = Figure(figsize=(8, 7), layout='constrained')
  axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 1))
  draw_scores(axes[0], history, targets)
  metric = criterion(targets)
  axes[0].plot(
    [row['epoch'] + 1 for row in history],
    [row[f'best_{metric}'] for row in history],
    '--',
    color=GREY,
    lw=1,
    label='best mean',
  )
  axes[0].set_ylabel(f'validation {metric.upper()}')
  # Above the axes, where neither a curve nor the name of a stage can be.
  axes[0].legend(loc='lower right', bbox_to_anchor=(1, 1), ncols=len(targets) + 1, frameon=False)
  draw_loss(axes[1], history)
  axes[1].set_ylabel('training loss')
  draw_rate(axes[2], history)
  axes[2].set_ylabel('rate')
  axes[2].set_xlabel('epoch')
  axes[2].xaxis.get_major_locator().set_params(integer=True)
  for axis in axes:
    draw_stages(axis, history, named=axis is axes[0])
  save(figure, axes, path)


def traces(series, scores, targets, path, most=4):
  """Writes a PNG of prediction and annotation over time: a row per clip, a column per target.

  Args:
    series: {clip: Series}.
    scores: {target: {'per_clip': {clip: first metric of the target}}}.
    targets: names of the predicted targets, in the order of the prediction's columns.
    path: the file to write.
    most: how many clips to show: the best, the worst and some between.
  """
  mean = {
    clip: np.mean([scores[target]['per_clip'][clip] for target in targets])
    for clip in scores[targets[0]]['per_clip']
  }
  ranked = sorted(mean, key=mean.get, reverse=True)
  places = sorted({round(x) for x in np.linspace(0, len(ranked) - 1, min(most, len(ranked)))})
  shown = [ranked[place] for place in places]
  size = 5 * len(targets) + 1, 1.9 * len(shown) + 0.6
  figure = Figure(figsize=size, layout='constrained')
  axes = figure.subplots(len(shown), len(targets), squeeze=False, sharey=True)
  for row, clip in zip(axes, shown, strict=True):
    s = series[clip]
    for i, (axis, target) in enumerate(zip(row, targets, strict=True)):
      label = np.where(s.annotated, s.labels[:, i], np.nan)
      draw_trace(axis, s.times, label, s.prediction[:, i], target)
      metric, score = TARGETS[target].metrics[0], scores[target]['per_clip'][clip]
      title = f'{clip}   {target} {metric.upper()} {score:.2f}'
      axis.set_title(title, fontsize=9, loc='left', parse_math=False)
  for axis in axes[0]:
    axis.legend(
      loc='lower right', bbox_to_anchor=(1, 1), borderpad=0, fontsize=8, frameon=False, ncols=2
    )
  for axis in axes[-1]:
    axis.set_xlabel('seconds')
  save(figure, axes, path)


def clip(result, title, path):
  """Writes a PNG of the prediction for a video over time, with its gates below.

  Spans without a face or without sound are marked. result: a VideoPrediction.
  """
  gates = [
    (*legend.describe_gate(name, result.gates[name].shape[1]), result.gates[name])
    for name in legend.sort_gates(result.gates)
  ]
  heights = [0.22 * scores.shape[1] for *_, scores in gates]
  size = 9, 3 + sum(0.5 + height for height in heights)
  ratios = [3, *(0.3 + height for height in heights)]
  figure = Figure(figsize=size, layout='constrained')
  axes = figure.subplots(1 + len(gates), 1, sharex=True, squeeze=False, height_ratios=ratios)
  top, *below = axes[:, 0]
  end = result.times[-1] + (result.times[-1] / max(len(result.times) - 1, 1) or 1)
  _draw_values(top, result, end)
  installed = {font.name for font in font_manager.fontManager.ttflist}
  fonts = ['DejaVu Sans', *(name for name in MORE_FONTS if name in installed)]
  top.set_title(title, fontsize=10, loc='left', parse_math=False, family=fonts)
  top.legend(
    loc='lower right', bbox_to_anchor=(1, 1), borderpad=0, fontsize=8, frameon=False, ncols=4
  )
  for axis, (gate, words, scores) in zip(below, gates, strict=True):
    step = -(-len(scores) // 2000)  # more columns than the figure has pixels only cost memory
    heat = axis.pcolormesh(
      [*result.times[::step], end],
      np.arange(len(words) + 1),
      scores[::step].T,
      vmin=0,
      vmax=1,
      cmap='cividis',
      rasterized=True,
    )
    axis.set_yticks(np.arange(len(words)) + 0.5, [f'{gate}: {word}' for word in words], fontsize=7)
    axis.invert_yaxis()
  if gates:
    figure.colorbar(heat, ax=below, label='trust', fraction=0.02, pad=0.01)
  axes[-1, 0].set_xlabel('seconds')
  save(figure, top, path)


def _draw_values(axes, result, end):
  """Draws the targets of a VideoPrediction over time; marks spans without a face or sound."""
  for target, values in result.predictions.items():
    axes.plot(
      result.times,
      values,
      TARGETS[target].line,
      color=TARGETS[target].colour,
      lw=1.5,
      label=target,
    )
  ends = [*result.times[1:], end]  # a frame lasts until the next
  no_face = {'color': '#dddddd', 'lw': 0}
  no_sound = {'facecolor': 'none', 'edgecolor': '#bbbbbb', 'hatch': '..', 'lw': 0}
  for absent, look, label in (
    (~result.face_found, no_face, 'no face'),
    (~result.audio_present, no_sound, 'no sound'),
  ):
    for i, (first, last) in enumerate(spans(absent)):
      axes.axvspan(result.times[first], ends[last], label=None if i else label, **look)
  axes.axhline(0, color=GREY, lw=0.5)
  axes.set_ylim(*value_range(result.predictions))


def spans(where):
  """Returns the runs of True in a mask (N,) as a list of (first, last), last included."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
  return list(zip(edges[::2], edges[1::2] - 1, strict=True))


def save(figure, axes, path):
  """Finishes the axes of a figure and writes it to a PNG file."""
  for axis in np.ravel(axes):
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color=GRID)
    axis.set_axisbelow(True)
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing')  # drawn as a box; the page has the name
    figure.savefig(path, dpi=120)
