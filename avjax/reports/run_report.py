"""Writes the report of a training run: one HTML page that needs no other file and no network."""

import math
import pathlib

import numpy as np
from markupsafe import Markup

import avjax
from avjax import errors, files
from avjax.config import flatten
from avjax.errors import InputError
from avjax.reports import legend, plots, svg, templates
from avjax.runs import folder as run_folder
from avjax.runs.history import History
from avjax.targets import TARGETS, criterion

TRACE_POINTS = 1200  # at most, in one figure
TRACED_CLIPS = 3  # best clips, and as many of the worst
NO_NUMBER = '—'


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
  title = f'{system}, {" and ".join(targets)}, fold {results["fold"]}'
  page = templates.fill(
    'run_report.html',
    title=title,
    notes=templates.list_items(notes),
    headline=_headline(results, targets, parameter_count),
    curves=_curves(history, results, targets),
    scatter=templates.join(
      _scatter(results, series, i, target) for i, target in enumerate(targets)
    ),
    ranking=_ranking(results, targets, series, ranked),
    keys=legend.target_keys(targets),
    score=criterion(targets).upper(),
    target_style=legend.target_style(),
    traces=_traces(results, targets, series, ranked),
    gates=_gates(series, has_input),
    settings=_rows(flatten(config)),
    versions=_rows(flatten(versions)),
    version=avjax.__version__,
  )
  with errors.writing(folder):
    files.write_text(folder / run_folder.REPORT, page, errors='replace')


def _number(value):
  """Formats a number with three digits and a true minus sign; a dash for None and NaN."""
  if value is None or not math.isfinite(value):
    return NO_NUMBER
  return f'{value:.3f}'.replace('-', svg.MINUS)


def _mean_score(results, targets, clip):
  """Returns the mean score of a clip over targets, by which clips are ranked; NaN ranks last."""
  value = np.mean([results[target]['per_clip'][clip] for target in targets])
  return float(value) if np.isfinite(value) else -np.inf


def _headline(results, targets, parameter_count):
  """Returns the boxes at the top: the metrics of each target, and facts about the run."""
  boxes = []
  for target in targets:
    numbers = templates.join(
      Markup('<div class="{}"><dt>{}</dt><dd>{}</dd></div>').format(
        metric, metric.upper(), _number(results[target][metric])
      )
      for metric in TARGETS[target].metrics
    )
    boxes.append(
      Markup(
        '<div class="panel score"><h2><i class="key {0}"></i> {0}</h2><dl>{1}</dl></div>'
      ).format(target, numbers)
    )
  facts = {
    'clips': f'{results["clips"]:,}',
    'frames': f'{results["frames"]:,}',
    'best epoch': results['best_epoch'] + 1,
    'fold': results['fold'],
    'parameters': f'{parameter_count:,}',
  }
  fact = Markup('<div><dt>{}</dt><dd>{}</dd></div>')
  numbers = templates.join(fact.format(*pair) for pair in facts.items())
  return templates.join(
    [*boxes, Markup('<div class="panel facts"><dl>{}</dl></div>').format(numbers)]
  )


def _figure(caption, plot, kind=''):
  """A figure of the page. caption and plot are Markup; kind is a class that sets its shape."""
  figure = Markup('<figure class="{}"><figcaption>{}</figcaption>{}</figure>')
  return figure.format(kind, caption, plot)


def _curves(history, results, targets):
  """Returns figures of validation scores, training loss and rate, from lines of metrics.jsonl."""
  if not history:
    return Markup('<p>This folder holds no metrics.jsonl.</p>')
  keys, score = legend.target_keys(targets), f'validation {criterion(targets).upper()}'
  return (
    _curve(
      history,
      score,
      plots.draw_scores,
      targets,
      best=results['best_epoch'] + 1,
      caption=Markup('<span class="legend"><b>{}</b>{}</span>').format(score, keys),
    )
    + _curve(history, 'training loss', plots.draw_loss)
    + _curve(history, 'learning rate', plots.draw_rate)
  )


def _curve(history, name, draw, *arguments, best=None, caption=None):
  """Returns a figure over epochs: draw(axes, history, *arguments), with the epoch `best` marked."""
  axes = svg.page_axes()
  axes.margins(y=0.08)
  axes.set_xlim(history[0]['epoch'] + 0.5, history[-1]['epoch'] + 1.5)
  draw(axes, history, *arguments)
  plots.draw_stages(axes, history)
  if best is not None:
    plots.draw_vertical(axes, best, 'best', plots.BLACK, color=plots.BLACK)
  plot = svg.to_html(
    axes,
    f'{name} over {len(history)} epochs',
    x_ticks=svg.ticks(axes.xaxis, 8, integer=True),
    y_ticks=svg.ticks(axes.yaxis, 5),
  )
  return _figure(caption or Markup('<b>{}</b>').format(name), plot)


def _scatter(results, series, i, target):
  """Returns a figure of the predictions of one target against their annotations."""
  prediction = np.concatenate([s.prediction[s.annotated, i] for s in series.values()])
  annotation = np.concatenate([s.labels[s.annotated, i] for s in series.values()])
  axes, score = svg.page_axes(), _score(target, results[target][TARGETS[target].metrics[0]])
  plots.draw_scatter(axes, prediction, annotation, target)
  label = f'{target}: prediction against annotation of {len(annotation)} frames, {score}'
  caption = Markup(
    '<b><i class="key {0}"></i> {0}</b>, {1}: annotation (across) and prediction (up)'
  ).format(target, score)
  plot = svg.to_html(axes, label, x_ticks=_ticks(target), y_ticks=_ticks(target))
  return _figure(caption, plot, 'square')


def _traces(results, targets, series, ranked):
  """Returns figures of prediction and annotation over time for the best and the worst clips."""
  best, worst = ranked[:TRACED_CLIPS], ranked[TRACED_CLIPS:][-TRACED_CLIPS:]
  sections = []
  for title, clips in (('Best clips', best), ('Worst clips', worst)):
    figures = [
      _trace(results, series, clip, i, target) for clip in clips for i, target in enumerate(targets)
    ]
    if figures:
      section = Markup('<h3>{}</h3><div class="grid pairs">{}</div>')
      sections.append(section.format(title, templates.join(figures)))
  return templates.join(sections)


def _trace(results, series, clip, i, target):
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
  plot = svg.to_html(
    axes,
    f'{clip}: {target} and its annotation over time, {score}',
    x_ticks=svg.ticks(axes.xaxis, 6),
    x_unit=' s',
    y_ticks=_ticks(target),
  )
  return _figure(Markup('<b>{}</b> {} {}').format(clip, target, score), plot, 'low')


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


def _ranking(results, targets, series, ranked):
  """Returns the table of clips, best mean score first."""
  scores = [f'{target} {TARGETS[target].metrics[0].upper()}' for target in targets]
  means = [f'mean {criterion(targets).upper()}'] if len(targets) > 1 else []
  heads = ['clip', *scores, *means, 'frames', 'face', 'sound']
  sorted_by = (means or scores)[0]
  cells = []
  for head in heads:
    order = Markup(' aria-sort="descending"') if head == sorted_by else ''
    cell = Markup('<th scope="col"{}><button type="button">{}</button></th>')
    cells.append(cell.format(order, head))
  rows = []
  for rank, clip in enumerate(ranked, 1):
    row = templates.join(_ranking_cells(results, targets, series[clip], clip))
    rows.append(Markup('<tr><td>{}</td>{}</tr>\n').format(rank, row))
  return Markup(
    '<table id="ranking"><thead><tr><th scope="col">rank</th>{}</tr></thead>'
    '<tbody>\n{}</tbody></table>'
  ).format(templates.join(cells), templates.join(rows))


def _ranking_cells(results, targets, s, clip):
  """Returns the cells of one clip; the page sorts by data-value."""
  cells = [Markup('<th scope="row" data-value="{0}">{0}</th>').format(clip)]
  number = Markup('<td data-value="{}">{}</td>')
  scored = Markup(
    '<td class="scored" style="--bar: var(--{}); --share: {:.1%}" data-value="{}">{}</td>'
  )
  scores = [results[target]['per_clip'][clip] for target in targets]
  for target, score in zip(targets, scores, strict=True):
    key = _sort_key(score)
    cells.append(scored.format(target, max(float(key), 0), key, _number(score)))
  if len(targets) > 1:
    mean = float(np.mean(scores))
    cells.append(number.format(_sort_key(mean), _number(mean)))
  frames = s.annotated.sum()
  cells.append(number.format(frames, f'{frames:,}'))
  shares = (mask.mean() for mask in (s.face_present, s.audio_present))
  return cells + [number.format(f'{share:.4f}', f'{share:.0%}') for share in shares]


def _sort_key(value):
  """Returns the text by which a number is sorted; NaN sorts last."""
  return f'{value:.6f}' if math.isfinite(value) else '-2'


def _gates(series, has_input):
  """Returns the section on gates, empty for a system without them."""
  rows = []
  for name in legend.sort_gates(next(iter(series.values())).gates):
    scores = np.concatenate(
      [s.gates[name][has_input(s.face_present, s.audio_present)] for s in series.values()]
    )
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores):
      rows += _gate_rows(name, scores)
  return templates.fill('gates.html', rows=templates.join(rows)) if rows else ''


def _gate_rows(name, scores):
  """Returns table rows: mean and spread of each column of a gate, and how often it is highest.

  scores (N,K): the gate's softmax scores over all frames in which the model had an input.
  """
  gate, words = legend.describe_gate(name, scores.shape[1])
  means, spreads = scores.mean(axis=0), scores.std(axis=0)
  rows = []
  for k, (word, mean, spread) in enumerate(zip(words, means, spreads, strict=True)):
    low, high = max(mean - spread, 0) * 1000, min(mean + spread, 1) * 1000
    bar = Markup(
      '<svg class="bar" viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true">'
      '<path class="whole" d="M0 5H1000"/><path class="mean" d="M0 5H{mean:.0f}"/>'
      '<path class="spread" d="M{low:.0f} 5H{high:.0f}M{low:.0f} 2v6M{high:.0f} 2v6"/></svg>'
    ).format(mean=mean * 1000, low=low, high=high)
    highest = (scores.argmax(axis=1) == k).mean()
    row = Markup(
      '<tr class="{}"><th scope="row">{}: {}</th><td class="wide">{}</td>'
      '<td>{:.3f}</td><td>{:.3f}</td><td>{:.0%}</td></tr>'
    )
    rows.append(row.format('' if k else 'first', gate, word, bar, mean, spread, highest))
  return rows


def _rows(values):
  """Returns {name: value} as the rows of a table."""
  row = Markup('<tr><th scope="row">{}</th><td>{}</td></tr>')
  return templates.join(row.format(*pair) for pair in values.items())
