"""Writes the report of a training run: one HTML page that needs no other file and no network."""

import math
import pathlib

import numpy as np

from avjax import errors, files
from avjax.config import flatten
from avjax.errors import InputError
from avjax.reports import legend, page_scores, plots, svg, templates
from avjax.reports.page_scores import number as _number
from avjax.runs import folder as run_folder
from avjax.runs.history import History
from avjax.targets import TARGETS, criterion

TRACE_POINTS = 1200  # at most, in one figure
TRACED_CLIPS = 3  # best clips, and as many of the worst


def write(workdir, config, results, series, *, parameter_count, has_input):
  """Writes workdir/report.html.

  Args:
    workdir: folder of the run, with metrics.jsonl and versions.json.
    config: the run's config.
    results: what `avjax.evaluation.results.write_results` returns for a partition.
    series: {clip: Series} of that partition.
    parameter_count: how many parameters the model has.
    has_input: function of face_present and audio_present, both (N,) bool, that returns in which
      frames the model has an input.

  Raises InputError where no frame of the partition is annotated.
  """
  folder = pathlib.Path(workdir)
  if not results['frames']:
    raise InputError(
      f'{folder}: no frame of the {results["partition"]} partition is annotated; '
      'a report needs annotations'
    )
  targets = list(config.targets)
  history = History(folder, 0, primary=False).history()
  versions = files.read_json(folder / run_folder.VERSIONS)
  clips = results[targets[0]]['per_clip']
  ranked = sorted(clips, key=lambda clip: -_mean_score(results, targets, clip))
  system = config.model.fusion.name
  notes = [
    f'run {folder.name}',
    f'{results["partition"]} partition',
    f'system {system}',
    f'trained {len(history)} epochs' if history else 'no metrics.jsonl',
  ]
  rules = templates.StyleRules()
  figures = {
    'curves': _curves(history, results, targets, rules),
    'scatters': [_scatter(results, series, i, target, rules) for i, target in enumerate(targets)],
    'traces': _traces(results, targets, series, ranked, rules),
    'ranking': _ranking(results, targets, series, ranked, rules),
  }
  with errors.writing(folder), files.replacing(folder / run_folder.REPORT) as partial:
    templates.write(
      partial,
      'run_report.html',
      scripts=('run_report.js',),
      rules=legend.target_style() + rules.text(),
      title=f'{system}, {" and ".join(targets)}, fold {results["fold"]}',
      notes=notes,
      targets=targets,
      boxes=_boxes(results, targets),
      scores=page_scores.scores(results, targets),
      groups=page_scores.groups(results, targets),
      subjects=page_scores.subjects(results, targets),
      facts=_facts(results, parameter_count),
      criterion=criterion(targets).upper(),
      gates=_gates(series, has_input),
      settings=flatten(config),
      versions=flatten(versions),
      **figures,
    )


def _mean_score(results, targets, clip):
  """Returns the mean score of a clip over targets, by which clips are ranked; NaN ranks last."""
  value = np.mean([results[target]['per_clip'][clip] for target in targets])
  return float(value) if np.isfinite(value) else -np.inf


def _boxes(results, targets):
  """Returns {target: {metric: number as text}}, the boxes at the top, for which four have room."""
  return {
    target: {metric: _number(results[target][metric]) for metric in TARGETS[target].metrics[:4]}
    for target in targets
  }


def _facts(results, parameter_count):
  """Returns {name: value}, facts about the run for the last box at the top."""
  return {
    'clips': f'{results["clips"]:,}',
    'frames': f'{results["frames"]:,}',
    'best epoch': results['best_epoch'] + 1,
    'fold': results['fold'],
    'parameters': f'{parameter_count:,}',
  }


def _curves(history, results, targets, rules):
  """Returns figures of validation scores, training loss and rate, from lines of metrics.jsonl."""
  if not history:
    return []
  score, best = f'validation {criterion(targets).upper()}', results['best_epoch'] + 1
  return [
    _curve(history, score, rules, plots.draw_scores, targets, best=best),
    _curve(history, 'training loss', rules, plots.draw_loss),
    _curve(history, 'learning rate', rules, plots.draw_rate),
  ]


def _curve(history, name, rules, draw, *arguments, best=None):
  """Returns a figure over epochs: draw(axes, history, *arguments), with the epoch `best` marked."""
  axes = svg.page_axes()
  axes.margins(y=0.08)
  axes.set_xlim(history[0]['epoch'] + 0.5, history[-1]['epoch'] + 1.5)
  draw(axes, history, *arguments)
  plots.draw_stages(axes, history)
  if best is not None:
    plots.draw_vertical(axes, best, 'best', plots.BLACK, color=plots.BLACK)
  drawing = svg.draw(
    axes,
    f'{name} over {len(history)} epochs',
    rules,
    x_ticks=svg.ticks(axes.xaxis, 8, integer=True),
    y_ticks=svg.ticks(axes.yaxis, 5),
  )
  return {'name': name, 'drawing': drawing}


def _scatter(results, series, i, target, rules):
  """Returns a figure of the predictions of one target against their annotations."""
  prediction = np.concatenate([s.prediction[s.annotated, i] for s in series.values()])
  annotation = np.concatenate([s.labels[s.annotated, i] for s in series.values()])
  axes, score = svg.page_axes(), _score(target, results[target][TARGETS[target].metrics[0]])
  plots.draw_scatter(axes, prediction, annotation, target)
  label = f'{target}: prediction against annotation of {len(annotation)} frames, {score}'
  drawing = svg.draw(axes, label, rules, x_ticks=_ticks(target), y_ticks=_ticks(target))
  return {'target': target, 'score': score, 'drawing': drawing}


def _traces(results, targets, series, ranked, rules):
  """Returns {title: figures of prediction and annotation over time}, the best and worst clips."""
  best, worst = ranked[:TRACED_CLIPS], ranked[TRACED_CLIPS:][-TRACED_CLIPS:]
  return {
    title: [
      _trace(results, series, clip, i, target, rules)
      for clip in clips
      for i, target in enumerate(targets)
    ]
    for title, clips in (('Best clips', best), ('Worst clips', worst))
  }


def _trace(results, series, clip, i, target, rules):
  """Returns a figure of prediction and annotation of one target over a clip, in seconds."""
  s = series[clip]
  label = np.where(s.annotated, s.labels[:, i], np.nan)
  every = math.ceil(len(s.frames) / TRACE_POINTS)
  times, label, prediction = (_block_means(x, every) for x in (s.times, label, s.prediction[:, i]))
  steps = np.diff(times)
  gaps = np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else []
  axes, score = svg.page_axes(), _score(target, results[target]['per_clip'][clip])
  if len(times) > 1:
    axes.set_xlim(times[0], times[-1])
  plots.draw_trace(axes, *(np.insert(x, gaps, np.nan) for x in (times, label, prediction)), target)
  drawing = svg.draw(
    axes,
    f'{clip}: {target} and its annotation over time, {score}',
    rules,
    x_ticks=svg.ticks(axes.xaxis, 6),
    x_unit=' s',
    y_ticks=_ticks(target),
  )
  return {'clip': clip, 'target': target, 'score': score, 'drawing': drawing}


def _score(target, value):
  """Returns the name and the value of a target's first metric."""
  return f'{TARGETS[target].metrics[0].upper()} {_number(value)}'


def _ticks(target):
  """Returns the ends and the middle of a target's range."""
  lowest, highest = TARGETS[target].lowest, TARGETS[target].highest
  return lowest, (lowest + highest) / 2, highest


def _block_means(values, size):
  """Returns means over blocks of `size` numbers (N,), without NaN; NaN for a block of only NaN."""
  padding = np.full(-len(values) % size, np.nan)
  blocks = np.append(np.asarray(values, float), padding).reshape(-1, size)
  counts = np.isfinite(blocks).sum(axis=1)
  return np.where(counts, np.nansum(blocks, axis=1) / np.maximum(counts, 1), np.nan)


def _ranking(results, targets, series, ranked, rules):
  """Returns the table of clips, best mean score first, as {'heads', 'sorted_by', 'rows'}."""
  scores = [f'{target} {TARGETS[target].metrics[0].upper()}' for target in targets]
  means = [f'mean {criterion(targets).upper()}'] if len(targets) > 1 else []
  return {
    'heads': ['clip', *scores, *means, 'frames', 'face', 'sound'],
    'sorted_by': (means or scores)[0],
    'rows': {clip: _ranking_cells(results, targets, series[clip], clip, rules) for clip in ranked},
  }


def _ranking_cells(results, targets, s, clip, rules):
  """Returns (classes, data-value, text) of each cell of a clip; the page sorts by data-value."""
  cells, scores = [], [results[target]['per_clip'][clip] for target in targets]
  for target, score in zip(targets, scores, strict=True):
    key = _sort_key(score)
    bar = rules.name(f'--bar: var(--{target}); --share: {max(float(key), 0):.1%}')
    cells.append((f'scored {bar}', key, _number(score)))
  if len(targets) > 1:
    mean = float(np.mean(scores))
    cells.append(('', _sort_key(mean), _number(mean)))
  frames = s.annotated.sum()
  cells.append(('', frames, f'{frames:,}'))
  cells += [
    ('', f'{mask.mean():.4f}', f'{mask.mean():.0%}') for mask in (s.face_present, s.audio_present)
  ]
  return cells


def _sort_key(value):
  """Returns the text by which a number is sorted; NaN sorts last."""
  return f'{value:.6f}' if math.isfinite(value) else '-2'


def _gates(series, has_input):
  """Returns the rows of the table of gates, none for a system without them."""
  rows = []
  for name in legend.sort_gates(next(iter(series.values())).gates):
    scores = np.concatenate(
      [s.gates[name][has_input(s.face_present, s.audio_present)] for s in series.values()]
    )
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores):
      rows += _gate_rows(name, scores)
  return rows


def _gate_rows(name, scores):
  """Returns table rows: mean and spread of each column of a gate, and how often it is highest.

  scores (N,K): the gate's softmax scores over all frames in which the model had an input.
  The bar is 1000 units long; its mean, and the ends of its spread, are in these.
  """
  gate, words = legend.describe_gate(name, scores.shape[1])
  means, spreads = scores.mean(axis=0), scores.std(axis=0)
  return [
    {
      'first': k == 0,
      'gate': gate,
      'column': word,
      'bar': f'{mean * 1000:.0f}',
      'low': f'{max(mean - spread, 0) * 1000:.0f}',
      'high': f'{min(mean + spread, 1) * 1000:.0f}',
      'mean': f'{mean:.3f}',
      'spread': f'{spread:.3f}',
      'highest': f'{(scores.argmax(axis=1) == k).mean():.0%}',
    }
    for k, (word, mean, spread) in enumerate(zip(words, means, spreads, strict=True))
  ]
