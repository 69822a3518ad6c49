"""Draws the schedule of staged unfreezing; writes docs/schedule.png.

python -m benchmarks.timeline

It shows two runs under each reading of the paper: one whose validation CCC never improves, and one
that improves until epoch 40.
"""

import pathlib

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from avjax.training.unfreezing import Schedule

BATCHES = 20  # per epoch
READINGS = {
  'paper (default)': {},
  "author (the authors' code)": {'warmup': 'author', 'release': 'below_minimum'},
  'linear5': {'warmup': 'linear5'},
}
RUNS = {
  'never improves': lambda epoch: 0.0,
  'improves until epoch 40': lambda epoch: min(epoch, 40) / 100,
}
GROUPS = ('#deebf7', '#9ecae1', '#4292c6')  # colours for one, two and three open groups


def drive(settings, ccc_of):
  """Runs a schedule on the validation CCC that `ccc_of` gives for each epoch.

  Returns the epochs as fractions, the rates, [(epoch, stage)] at which groups open, and the last
  epoch.
  """
  schedule, times, rates, opened = Schedule(3, **settings), [], [], [(0, 0)]
  while not schedule.done:
    for batch in range(BATCHES):
      times.append(schedule.epoch + batch / BATCHES)
      rates.append(schedule.rate(batch, BATCHES))
    schedule.observe(ccc_of(schedule.epoch))
    if schedule.stage != opened[-1][1]:
      opened.append((schedule.epoch, schedule.stage))
  return times, rates, opened, schedule.epoch


def main():
  figure, axes = plt.subplots(
    len(READINGS), len(RUNS), figsize=(11, 6.5), sharex=True, sharey=True, layout='constrained'
  )
  for row, (reading, settings) in zip(axes, READINGS.items(), strict=True):
    for axis, (run, ccc_of) in zip(row, RUNS.items(), strict=True):
      times, rates, opened, end = drive(settings, ccc_of)
      for (first, stage), (last, _) in zip(opened, [*opened[1:], (end, None)], strict=True):
        axis.axvspan(first, last, color=GROUPS[stage], lw=0)
        axis.text(first + 0.7, 1.6e-5, f'group {stage + 1}\nfrom {first}', fontsize=8, va='bottom')
      axis.axvline(end, color='black', lw=1)
      axis.text(end + 0.7, 3e-9, f'ends\n{end}', fontsize=8)
      axis.semilogy(times, [max(rate, 2e-10) for rate in rates], color='#b2182b', lw=0.9)
      axis.set_title(f'{reading}: {run}', fontsize=9, loc='left')
      axis.set_ylim(1e-9, 2e-4)
      axis.set_xlim(0, 106)
      axis.spines[['top', 'right']].set_visible(False)
    row[0].set_ylabel('learning rate')
  for axis in axes[-1]:
    axis.set_xlabel('epoch')
  figure.savefig(pathlib.Path(__file__).parents[1] / 'docs' / 'schedule.png', dpi=110)


if __name__ == '__main__':
  main()
