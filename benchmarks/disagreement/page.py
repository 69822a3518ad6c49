"""Fills docs/evidence.md from the JSON of the other steps."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from avjax.errors import InputError
from benchmarks.disagreement import statistics
from benchmarks.pages import fill
from benchmarks.performance import table

DOCS = pathlib.Path(__file__).parents[2] / 'docs'
TUNING, FIGURES, FIRST, FULL_PATH = (
  DOCS / f'disagreement{name}.json' for name in ('_tuning', '', '_first', '_full_path')
)
PAGE = DOCS / 'evidence.md'
RHOS = (0, 0.2, 0.4, 0.6)
GATED = ('dca', 'grjca', 'hgrjca', 'raav', 'dcmmoe', 'joint_context, gated')


def key(rho: float, kappa: float = 1.0) -> str:
  """Returns the name of a setting in the JSON and on the page."""
  return f'rho {rho:g}, kappa {kappa:g}'


MIDDLE = key(0.4)


def best_trial(row):
  """Returns the (rate, factor, score) of the best validation CCC of an entry's tuning."""
  return max(row['trials'], key=lambda trial: trial[2])


def scores(row):
  """Returns the mean CCC over valence and arousal of each seed."""
  return (np.array(row['valence']) + np.array(row['arousal'])) / 2


def at_all_settings(entries):
  """Returns the names of the entries that are tested at every setting."""
  return [name for name, rows in entries.items() if len(rows) > 1]


def spread(values):
  """Formats the mean of values and their standard deviation."""
  return f'{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}'


def within(values):
  """Formats the mean of values with its 95 % interval."""
  low, high = statistics.interval(values)
  return f'{np.mean(values):.3f} [{low:.3f}, {high:.3f}]'


def scores_table(entries):
  settings = list(entries['concatenation'])
  rows = [
    [name, *(spread(scores(entries[name][setting])) for setting in settings)]
    for name in at_all_settings(entries)
  ]
  return table(['system', *settings], rows)


def differences(entries, pairs, what='mean CCC', of=scores):
  """Formats {(one, other): settings} as a table of paired differences of of(row).

  Those of one setting are a family for Holm.
  """
  chosen, families = {}, {}
  for (one, other), settings in pairs.items():
    for setting in settings:
      pair = of(entries[one][setting]), of(entries[other][setting])
      chosen[one, other, setting] = None  # keeps the order
      families.setdefault(setting, {})[one, other, setting] = pair
  for family in families.values():
    chosen |= statistics.compare(family)
  rows = [
    [
      f'{one} − {other}',
      setting,
      '{:+.3f} [{:+.3f}, {:+.3f}]'.format(found['difference'], *found['interval']),
      f'{found["holm"]:.3f}',
      f'{found["visible"]:.3f}',
    ]
    for (one, other, setting), found in chosen.items()
  ]
  return table(['difference', 'setting', what, 'p (Holm)', 'could have been seen'], rows)


def against(entries, other, names):
  settings = list(entries['concatenation'])
  return differences(entries, {(name, other): settings for name in names})


def slopes(rows):
  """Returns how the mean CCC of each seed changes with rho, per unit of rho."""
  return np.polyfit(RHOS, [scores(rows[key(rho)]) for rho in RHOS], 1)[0]


def gating_block(entries):
  gated = ('dca', 'grjca', 'hgrjca')
  over_rho = {name: {'over rho, kappa 1': entries[name]} for name in ('rjca', *gated)}
  pairs = {(name, 'rjca'): ['over rho, kappa 1'] for name in gated}
  growth = differences(over_rho, pairs, 'growth of the mean CCC per unit of rho', slopes)
  return f'{against(entries, "rjca", gated)}\n\n{growth}'


def recursions_block(entries):
  """Formats the shape of the paper's Table 2: M from 1 to 4."""
  systems = ('rjca', 'grjca', 'hgrjca')
  names = {(s, m): s if m == 3 else f'{s}, M = {m}' for s in systems for m in (1, 2, 3, 4)}
  names |= {('rjca', 1): 'jca', ('hgrjca', 1): 'grjca, M = 1'}
  rows = [
    [m, *(spread(scores(entries[names[s, m]][MIDDLE])) for s in systems)] for m in (1, 2, 3, 4)
  ]
  pairs = {(names[s, m], names[s, 3]): [MIDDLE] for s in systems for m in (1, 2, 4)}
  return f'{table(["M", *systems], rows)}\n\n{differences(entries, pairs)}'


def gates_block(entries):
  """Formats how well gates find the lies."""
  rows = []
  for name in GATED:
    for setting, row in entries[name].items():
      if row['auc']:
        found = [np.array(row['auc'][m]) for m in ('visual', 'audio')]
        either_way = (f'{np.mean(0.5 + np.abs(aucs - 0.5)):.3f}' for aucs in found)
        rows.append([name, setting, *map(within, found), *either_way])
  head = (
    'system',
    'setting',
    'a lying face',
    'a lying voice',
    'face, either way',
    'voice, either way',
  )
  return table(list(head), rows)


def temperature_block(entries):
  rows = []
  for t in (0.05, 0.1, 1, 5):
    row = entries['grjca' if t == 0.1 else f'grjca, T = {t:g}'][MIDDLE]
    rows.append(
      [f'{t:g}', spread(scores(row)), within(row['jumps'])]
      + [within(row['auc'][m]) for m in ('visual', 'audio')]
    )
  for name in ('rjca', 'concatenation'):
    row = entries[name][MIDDLE]
    rows.append([f'({name})', spread(scores(row)), within(row['jumps']), '', ''])
  head = ['T', 'mean CCC', 'jumps', 'AUC, face', 'AUC, voice']
  others = ['rjca', *(f'grjca, T = {t:g}' for t in (0.05, 1, 5))]
  pairs = {(name, 'grjca'): [MIDDLE] for name in others}
  return '\n\n'.join(
    (
      table(head, rows),
      differences(entries, pairs),
      differences(entries, pairs, 'jumps', lambda row: np.array(row['jumps'])),
    )
  )


def at_the_middle(entries, names, other):
  """Formats entries at the middle setting, with their difference to another one."""
  rows = [[name, spread(scores(entries[name][MIDDLE]))] for name in (other, *names)]
  pairs = {(name, other): [MIDDLE] for name in names}
  return f'{table(["system", "mean CCC"], rows)}\n\n{differences(entries, pairs)}'


def windows_block(entries):
  rows = []
  for name in at_all_settings(entries):
    found = entries[name][MIDDLE].get('windows')
    if found:
      whole, short = (np.mean(found[x]) for x in ('whole', 'short'))
      rows.append(
        [name]
        + [f'{np.mean(found[x]):.3f}' for x in ('plain', 'shifted', 'overlapping', 'difference')]
        + [f'{np.mean(found[x]):.2f}' for x in ('first', 'last')]
        + [f'{whole:.3f}', f'{short:.3f}', f'{np.mean(found["film"]):.3f}' if found['film'] else '']
      )
  head = (
    'system', 'windows', 'half a window later', 'mean of both', 'difference between them',
    'error, first frames', 'error, last frames', 'first half, in a whole window', 'by itself',
    'films, whole',
  )  # fmt: skip
  return table(list(head), rows)


def full_path_block(found):
  """Formats the runs through towers: the mean CCC of each seed."""
  rows = {}
  for name, parts in found['rows'].items():
    system, rho, _ = name.split(', ')
    for part, row in parts.items():
      mean = np.mean([row[target]['ccc'] for target in ('valence', 'arousal')])
      rows.setdefault(system, {}).setdefault(f'{part}, {rho}', []).append(f'{mean:.3f}')
  heads = sorted(next(iter(rows.values())))
  lines = [[name, *(' / '.join(row[head]) for head in heads)] for name, row in rows.items()]
  return table(['system', *heads], lines)


def budget_block(tuned):
  rows = []
  for name, row in tuned['entries'].items():
    rate, factor, score = best_trial(row)
    tried = ' '.join(f'{trial[2]:.3f}' for trial in row['trials'])
    rows.append([name, f'{row["parameters"]:,}', tried, f'{rate:g}', f'{factor:g}', f'{score:.3f}'])
  head = ['system', 'parameters', 'validation CCC of the trials', 'rate', 'factor', 'best']
  return table(head, rows)


def about_block(tuned, found):
  replicas = sum(len(rows) for name, rows in found['entries'].items() if name != 'mean of both')
  versions = ', '.join(f'{name} {version}' for name, version in found['versions'].items())
  a_seed = [
    row['seconds']
    for rows in found['entries'].values()
    for row in rows.values()
    if 'seconds' in row
  ]
  return (
    f'{len(found["seeds"])} seeds, {len(tuned["entries"])} systems and variants, '
    f'{replicas * len(found["seeds"])} trainings in the test and '
    f'{sum(len(row["trials"]) for row in tuned["entries"].values()) * len(tuned["seeds"])} in the '
    f'tuning; Python {found["python"]}, {versions}, {found["cores"]} cores. Tuning took '
    f'{tuned["seconds"] / 60:.0f} minutes and the test {found["seconds"] / 60:.0f}, with '
    f'compilation: {min(a_seed):.1f} to {max(a_seed):.1f} seconds of training a seed.'
  )


def blocks(tuned, found, first, full_path):
  """Returns {name: the block of the page}."""
  entries = found['entries']
  others = [
    name for name, rows in entries.items()
    if len(rows) == 1 and not name.startswith(('rjca,', 'grjca', 'hgrjca'))
  ]  # fmt: skip
  simple = [
    name
    for name in at_all_settings(entries)
    if name not in ('concatenation', 'visual', 'audio', 'mean of both')
  ]
  parts = ('grjca, no ReLU', 'grjca, Xavier', 'grjca, one rate')
  return {
    'about': about_block(tuned, found),
    'scores': scores_table(entries),
    'first': scores_table(first['entries']),
    'gating': gating_block(entries),
    'hierarchy': against(entries, 'grjca', ['hgrjca']),
    'recursions': recursions_block(entries),
    'gates': gates_block(entries),
    'temperature': temperature_block(entries),
    'parts': at_the_middle(entries, parts, 'grjca'),
    'simple': against(entries, 'concatenation', simple),
    'equal': against(
      entries, 'concatenation, wide', [name for name in simple if 'concatenation' not in name]
    ),
    'ours': against(entries, 'joint_context', ['joint_context, gated']),
    'others': at_the_middle(entries, others, 'concatenation'),
    'windows': windows_block(entries),
    'full path': full_path_block(full_path),
    'budget': budget_block(tuned),
  }


def read(path):
  """Reads what another step has written; raises InputError if it is not there."""
  if not path.is_file():
    raise InputError(f'{path} is missing: docs/evidence.md says which command writes it')
  return json.loads(path.read_text())


def committed():
  """Returns what was found in the tuning, the test, the first test, and through towers."""
  return [read(path) for path in (TUNING, FIGURES, FIRST, FULL_PATH)]


def write():
  """Writes the page."""
  text = PAGE.read_text()
  for name, block in blocks(*committed()).items():
    text = fill(text, name, block)
  PAGE.write_text(text)
