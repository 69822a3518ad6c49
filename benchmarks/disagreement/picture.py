"""Draws the figure of docs/evidence.md from what the test has found."""

from __future__ import annotations

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.disagreement import page, statistics

PICTURE = page.DOCS / 'disagreement.png'


def draw():
  """Draws the mean CCC over rho, and what gates find."""
  entries = page.read(page.FIGURES)['entries']
  figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
  shown = (
    'concatenation, told',
    'joint_context',
    'concatenation, wide',
    'concatenation',
    'rjca',
    'grjca',
    'hgrjca',
    'raav',
    'dcmmoe',
  )
  for name, color in ((name, f'C{i}') for i, name in enumerate(shown)):
    values = [page.scores(entries[name][page.key(rho)]) for rho in page.RHOS]
    low, high = zip(*map(statistics.interval, values), strict=True)
    left.plot(
      page.RHOS, [v.mean() for v in values], marker='o', markersize=3, color=color, label=name
    )
    left.fill_between(page.RHOS, low, high, color=color, alpha=0.12, linewidth=0)
  left.set(
    xlabel='rho, share of the time in which one modality lies',
    ylabel='CCC of the test, mean of both targets',
    xticks=page.RHOS,
  )
  left.set_ylim(top=0.8)
  left.legend(fontsize=8, frameon=False, loc='upper right', ncols=2)
  for k, (modality, color) in enumerate(
    zip(('visual', 'audio'), ('tab:blue', 'tab:orange'), strict=True)
  ):
    for i, name in enumerate(page.GATED):
      values = entries[name][page.MIDDLE]['auc'][modality]
      low, high = statistics.interval(values)
      y = len(page.GATED) - i + 0.15 - 0.3 * k
      right.plot([low, high], [y, y], color=color)
      right.plot(
        np.mean(values),
        y,
        'o',
        color=color,
        label={'visual': 'a lying face', 'audio': 'a lying voice'}[modality] if i == 0 else None,
      )
  right.axvline(0.5, color='grey', linewidth=0.8, linestyle=':')
  right.set(
    xlim=(0.2, 1),
    yticks=range(len(page.GATED), 0, -1),
    yticklabels=page.GATED,
    xlabel='AUC with which the gates find the lie',
  )
  right.legend(fontsize=8, frameon=False, loc='upper right')
  for axis in (left, right):
    axis.spines[['top', 'right']].set_visible(False)
  figure.tight_layout()
  figure.savefig(PICTURE, dpi=110)
  plt.close(figure)
