"""Pictures of a run: its curves over epochs, and the traces of validation clips against their annotation."""

import warnings

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager

from avjax.reports import legend
from avjax.targets import TARGETS

COLOURS = {name: target.colour for name, target in TARGETS.items()}
LABEL = '#555555'
# For names of files that matplotlib's own font cannot write: whichever of these is installed.
MORE_FONTS = ('Noto Sans CJK SC', 'Noto Sans CJK JP', 'WenQuanYi Zen Hei', 'Droid Sans Fallback', 'PingFang SC', 'Hiragino Sans', 'Microsoft YaHei',
              'Yu Gothic', 'Malgun Gothic', 'Noto Sans Arabic', 'Noto Sans Devanagari', 'Arial Unicode MS')


def curves(history, targets, path):
  """Validation CCC, training loss and rate over epochs; a line where a group of layers opens. history: lines of metrics.jsonl."""
  epochs = [row['epoch'] + 1 for row in history]
  figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, height_ratios=(3, 2, 1), layout='constrained')
  for target in targets:
    axes[0].plot(epochs, [row[f'validation_ccc_{target}'] for row in history], 'o-', ms=3, color=COLOURS[target], label=target)
  axes[0].plot(epochs, [row['best_ccc'] for row in history], '--', color=LABEL, lw=1, label='best mean')
  axes[0].set_ylabel('validation CCC')
  axes[0].legend(loc='lower right', frameon=False)
  axes[1].plot(epochs, [row.get('train_loss', np.nan) for row in history], 'o-', ms=3, color=LABEL)
  axes[1].set_ylabel('training loss')
  axes[2].semilogy(epochs, [row['rate'] for row in history], 'o-', ms=3, color=LABEL)
  axes[2].set_ylabel('rate')
  axes[2].set_xlabel('epoch')
  axes[2].xaxis.get_major_locator().set_params(integer=True)
  for before, row in zip(history, history[1:]):
    if row['stage'] != before['stage']:
      for axis in axes:
        axis.axvline(row['epoch'] + 0.5, color='#aaaaaa', lw=1, ls=':')
      axes[0].annotate(f'group {row["stage"]} opens', (row['epoch'] + 0.5, 0), xycoords=('data', 'axes fraction'), rotation=90,
                       fontsize=8, color=LABEL, ha='right', va='bottom')
  save(figure, axes, path)


def traces(series, scores, targets, path, most=4):
  """Prediction and annotation over time for the best, the worst and the clips between, a row a clip, a column a target."""
  mean = {clip: np.mean([scores[t]['per_clip'][clip] for t in targets]) for clip in scores[targets[0]]['per_clip']}
  ranked = sorted(mean, key=mean.get, reverse=True)
  shown = [ranked[i] for i in sorted({round(x) for x in np.linspace(0, len(ranked) - 1, min(most, len(ranked)))})]
  figure, axes = plt.subplots(len(shown), len(targets), figsize=(5 * len(targets) + 1, 1.9 * len(shown) + 0.6), squeeze=False,
                              sharey=True, layout='constrained')
  for row, clip in zip(axes, shown):
    s = series[clip]
    for axis, (i, target) in zip(row, enumerate(targets)):
      label = np.where(s.annotated, s.labels[:, TARGETS[target].column], np.nan)
      axis.plot(s.times, label, color=LABEL, lw=1, label='annotation')
      axis.plot(s.times, s.prediction[:, i], color=COLOURS[target], lw=1.5, label=target)
      axis.set_title(f'{clip}   {target} CCC {scores[target]["per_clip"][clip]:.2f}', fontsize=9, loc='left')
      axis.set_ylim(-1, 1)
  for axis in axes[0]:
    axis.legend(loc='lower right', bbox_to_anchor=(1, 1), borderpad=0, fontsize=8, frameon=False, ncols=2)
  for axis in axes[-1]:
    axis.set_xlabel('seconds')
  save(figure, axes, path)


def clip(result, title, path):
  """Valence and arousal of a `predict.Prediction` over time, spans without a face shaded, and the gates under them."""
  gates = [(legend.gate_words(name, result.gates[name].shape[1]), result.gates[name]) for name in legend.in_order(result.gates)]
  columns = [scores.shape[1] for _, scores in gates]
  end = result.times[-1] + (result.times[-1] / max(len(result.times) - 1, 1) or 1)
  figure, axes = plt.subplots(1 + len(gates), 1, figsize=(9, 3 + sum(0.5 + 0.22 * k for k in columns)), sharex=True, squeeze=False,
                              height_ratios=[3, *(0.3 + 0.22 * k for k in columns)], layout='constrained')
  top, *below = axes[:, 0]
  for target, style in zip(result.targets, ('-', '--') if len(result.targets) > 1 else ('-',)):
    top.plot(result.times, getattr(result, target), style, color=COLOURS[target], lw=1.5, label=target)
  ends = [*result.times[1:], end]  # a frame lasts until the next
  for absent, look, label in ((~result.face_found, {'color': '#dddddd', 'lw': 0}, 'no face'),
                              (~result.audio_present, {'facecolor': 'none', 'edgecolor': '#bbbbbb', 'hatch': '..', 'lw': 0}, 'no sound')):
    for i, (first, last) in enumerate(spans(absent)):
      top.axvspan(result.times[first], ends[last], label=None if i else label, **look)
  top.axhline(0, color=LABEL, lw=0.5)
  top.set_ylim(-1, 1)
  installed = {font.name for font in font_manager.fontManager.ttflist}
  top.set_title(title, fontsize=10, loc='left', parse_math=False, family=['DejaVu Sans', *(name for name in MORE_FONTS if name in installed)])
  top.legend(loc='lower right', bbox_to_anchor=(1, 1), borderpad=0, fontsize=8, frameon=False, ncols=4)
  for axis, ((of, words), scores) in zip(below, gates):
    step = -(-len(scores) // 2000)  # more columns than the picture has pixels cost memory alone
    heat = axis.pcolormesh([*result.times[::step], end], np.arange(scores.shape[1] + 1), scores[::step].T, vmin=0, vmax=1, cmap='cividis',
                           rasterized=True)
    axis.set_yticks(np.arange(scores.shape[1]) + 0.5, [f'{of}: {word}' for word in words], fontsize=7)
    axis.invert_yaxis()
  if gates:
    figure.colorbar(heat, ax=below, label='trust', fraction=0.02, pad=0.01)
  axes[-1, 0].set_xlabel('seconds')
  save(figure, top, path)


def spans(where):
  """[(first, last)] of the runs of True in a mask, last included."""
  edges = np.flatnonzero(np.diff(np.concatenate([[0], where.astype(int), [0]])))
  return list(zip(edges[::2], edges[1::2] - 1))


def save(figure, axes, path):
  for axis in np.ravel(axes):
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='#eeeeee')
    axis.set_axisbelow(True)
  with warnings.catch_warnings():
    warnings.filterwarnings('ignore', 'Glyph .* missing')  # a box stands for it, and the page has the name
    figure.savefig(path, dpi=120)
  plt.close(figure)
