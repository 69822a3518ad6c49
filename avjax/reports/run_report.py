"""The report of a training run: one HTML page without a script to speak of, whose pictures are SVG."""

import html
import math
import pathlib

import numpy as np

import avjax
from avjax import errors, files
from avjax.config import flatten
from avjax.errors import InputError
from avjax.reports import legend, templates
from avjax.runs.history import History
from avjax.targets import TARGETS, metrics

SIDE = 1000     # of the box that every picture is drawn in and stretched from
CELLS = 50      # of a scatter picture, along each axis
MOST = 1200     # points of a trace
TRACES = 3      # best clips, and worst
NO_NUMBER = '—'


def write(workdir, config, results, series, *, parameter_count, has_input):
  """Writes workdir/report.html. results: what evaluate.write_results returns; series {clip: evaluate.Series}."""
  folder = pathlib.Path(workdir)
  if not results['frames']:
    raise InputError(f'{folder}: no frame of the {results["partition"]} partition is annotated; a report needs annotations')
  targets = list(config.targets)
  history = History(folder, 0, primary=False).history()
  versions = files.read_json(folder / 'versions.json')
  ranked = sorted(results[targets[0]]['per_clip'], key=lambda clip: -_mean(results, targets, clip))
  name = config.model.fusion.name
  parts = {
      'title': html.escape(f'{name}, {" and ".join(targets)}, fold {results["fold"]}'),
      'notes': templates.items([f'run {folder.name}', f'{results["partition"]} partition', f'system {name}',
                           f'trained {len(history)} epochs' if history else 'no metrics.jsonl']),
      'headline': _headline(parameter_count, results, targets), 'curves': _curves(history, results, targets),
      'ranking': _ranking(results, targets, series, ranked),
      'scatter': ''.join(_scatter(target, results[target], *_pairs(series, i, target)) for i, target in enumerate(targets)),
      'traces': _traces(results, targets, series, ranked), 'gates': _gates(has_input, series),
      'settings': _table(flatten(config)), 'versions': _table(flatten(versions)), 'version': avjax.__version__}
  with errors.writing(folder):
    (folder / 'report.html').write_text(templates.fill('run_report.html', **parts), encoding='utf-8', errors='replace')


def _number(value, digits=3):
  """'0.123', with a true minus; a dash for what is no number."""
  return f'{value:.{digits}f}'.replace('-', '−') if value is not None and math.isfinite(value) else NO_NUMBER


def _mean(results, targets, clip):
  """The mean CCC of a clip over targets, by which clips are ranked; the lowest for NaN."""
  value = np.mean([results[target]['per_clip'][clip] for target in targets])
  return float(value) if np.isfinite(value) else -2.0


def _pairs(series, i, target):
  """Prediction and annotation (N,) of one target over all annotated frames."""
  column = TARGETS[target].column
  return (np.concatenate([s.prediction[s.annotated, i] for s in series.values()]),
          np.concatenate([s.labels[s.annotated, column] for s in series.values()]))


def _headline(parameters, results, targets):
  """The numbers that a run is known by."""
  boxes = [f'<div class="panel score"><h2><i class="key {target}"></i> {target}</h2><dl>' + ''.join(
      f'<div class="{metric}"><dt>{metric.upper()}</dt><dd>{_number(results[target][metric])}</dd></div>' for metric in metrics.METRICS)
      + '</dl></div>' for target in targets]
  facts = {'clips': f'{results["clips"]:,}', 'frames': f'{results["frames"]:,}', 'best epoch': results['best_epoch'] + 1,
           'fold': results['fold'], 'parameters': f'{parameters:,}'}
  return ''.join(boxes) + '<div class="panel facts"><dl>' + ''.join(
      f'<div><dt>{name}</dt><dd>{value}</dd></div>' for name, value in facts.items()) + '</dl></div>'


# Pictures. Coordinates are data; the box is stretched to its place, so that text, which is HTML on it, and strokes keep their size.

class Picture:
  """Lines and marks over x and y, each (lowest, highest), y upwards."""

  def __init__(self, x, y, label):
    self.x, self.y, self.label = x, y, label
    self.drawn, self.words = [], []

  def place(self, x, y):
    """Data -> the box, for numbers or arrays."""
    scaled = [(np.asarray(value, float) - low) / ((high - low) or 1) * SIDE for value, (low, high) in ((x, self.x), (y, self.y))]
    return scaled[0], SIDE - scaled[1]

  def line(self, x, y, kind, broken=()):
    """A line through (n,) and (n,); not through what is NaN, nor on from points of `broken` (indices)."""
    commands, pen = [], 'M'
    for i, (px, py) in enumerate(zip(*self.place(x, y))):
      if not math.isfinite(py):
        pen = 'M'
        continue
      commands.append(f'{pen}{px:.0f} {py:.1f}' + ('h0' if pen == 'M' else ''))  # a point alone is a dot
      pen = 'M' if i in broken else 'L'
    self.drawn.append(f'<path class="{kind}" d="{"".join(commands)}"/>')

  def dots(self, x, y, kind):
    """Round marks at the points that are numbers."""
    places = ''.join(f'M{px:.1f} {py:.1f}h0' for px, py in zip(*self.place(x, y)) if math.isfinite(py))
    self.drawn.append(f'<path class="dots {kind}" d="{places}"/>')

  def cell(self, x, y, width, height, kind, opacity):
    """A rectangle that starts at (x, y), in data."""
    (left, right), (bottom, top) = self.place([x, x + width], [y, y + height])
    outline = f'M{left:.0f} {top:.0f}H{right:.0f}V{bottom:.0f}H{left:.0f}z'
    self.drawn.append(f'<path class="cell {kind}" fill-opacity="{opacity:.2f}" d="{outline}"/>')

  def ticks(self, x=(), y=(), texts=None):
    """Grid lines and their numbers."""
    for axis, values in (('x', x), ('y', y)):
      for value in values:
        px, py = (float(p) for p in self.place(*((value, self.y[0]) if axis == 'x' else (self.x[0], value))))
        if axis == 'y':
          self.drawn.insert(0, f'<path class="{"zero" if value == 0 else "grid"}" d="M0 {py:.1f}H{SIDE}"/>')
        position = f'left:{px / SIDE:.1%}' if axis == 'x' else f'top:{py / SIDE:.1%}'
        text = (texts or {}).get(value, f'{value:g}'.replace('-', '−'))
        self.words.append(f'<span class="{axis}" style="{position}">{text}</span>')

  def upright(self, x, text, kind):
    """An upright line with words along it; kind is 'stage' or 'best'."""
    px = float(self.place(x, self.y[0])[0])
    self.drawn.append(f'<path class="{kind}" d="M{px:.1f} 0V{SIDE}"/>')
    self.words.append(f'<span class="{kind}" style="left:{px / SIDE:.1%}">{text}</span>')

  def html(self, caption, kind=''):
    """A figure; caption is HTML."""
    return (f'<figure class="{kind}"><figcaption>{caption}</figcaption><div class="plot">'
            f'<svg viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none" role="img" aria-label="{html.escape(self.label)}">'
            f'{"".join(self.drawn)}</svg>{"".join(self.words)}</div></figure>')


def _steps(low, high, most):
  """At most `most` round numbers between low and high."""
  size = 10.0 ** math.floor(math.log10(max(high - low, 1e-9) / most))
  size = next(size * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (size * factor) <= most)
  return [round(k * size, 10) for k in range(math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9) + 1)]


def _curves(history, results, targets):
  """Validation CCC, training loss and rate over epochs, with the epochs at which layers open. history: lines of metrics.jsonl."""
  if not history:
    return '<p>This folder holds no metrics.jsonl.</p>'
  epochs = [row['epoch'] + 1 for row in history]
  opened = [(row['epoch'] + 0.5, f'group {row["stage"]} opens') for before, row in zip(history, history[1:])
            if row['stage'] != before['stage']]
  across = (epochs[0] - 0.5, epochs[-1] + 0.5)
  whole = [epoch for epoch in _steps(*across, 8) if epoch == int(epoch)]

  def picture(label, lines, logarithmic=False):
    """lines: [(kind, values)]."""
    values = [np.array([np.nan if v is None else v for v in line], float) for _, line in lines]
    values = [np.log10(v) for v in values] if logarithmic else values
    finite = np.concatenate(values)
    finite = finite[np.isfinite(finite)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.1
    drawn = Picture(across, (low - margin, high + margin), f'{label} over {len(epochs)} epochs')
    for x, text in opened:
      drawn.upright(x, text, 'stage')
    for (kind, _), line in zip(lines, values):
      drawn.line(epochs, line, kind)
      drawn.dots(epochs, line, kind)
    if logarithmic:
      shown = list(range(math.ceil(low - margin), math.floor(high + margin) + 1)) or [low]
      drawn.ticks(whole)
      drawn.ticks((), shown, {value: f'{10 ** value:.2g}' for value in shown})
    else:
      drawn.ticks(whole, _steps(low - margin, high + margin, 5))
    return drawn

  ccc = picture('validation CCC', [(target, [row.get(f'validation_ccc_{target}') for row in history]) for target in targets])
  ccc.upright(results['best_epoch'] + 1, 'best', 'best')
  rates = picture('learning rate', [('plain', [row.get('rate') for row in history])], logarithmic=True)
  loss = picture('training loss', [('plain', [row.get('train_loss') for row in history])])
  keys = ''.join(f'<span><i class="key {target}"></i>{target}</span>' for target in targets)
  return (ccc.html(f'<span class="legend"><b>validation CCC</b>{keys}</span>')
          + loss.html('<b>training loss</b>') + rates.html('<b>learning rate</b>'))


def _scatter(target, result, prediction, annotation):
  """How many frames have which prediction and which annotation, as a picture, with the line where both are equal."""
  counts = np.histogram2d(annotation, prediction, CELLS, [[-1, 1], [-1, 1]])[0]
  picture = Picture((-1, 1), (-1, 1), f'{target}: prediction against annotation of {len(annotation)} frames, CCC {_number(result["ccc"])}')
  for i, j in np.argwhere(counts):
    picture.cell(-1 + 2 * i / CELLS, -1 + 2 * j / CELLS, 2 / CELLS, 2 / CELLS, target, 0.2 + 0.8 * math.sqrt(counts[i, j] / counts.max()))
  picture.ticks((-1, 0, 1), (-1, 0, 1))
  picture.line([-1, 1], [-1, 1], 'identity')
  caption = f'<b><i class="key {target}"></i> {target}</b>, CCC {_number(result["ccc"])}: annotation (across) and prediction (up)'
  return picture.html(caption, 'square')


def _thinned(values, every):
  """Means of every so many numbers; NaN where all of them are."""
  padded = np.append(np.asarray(values, float), np.full(-len(values) % every, np.nan)).reshape(-1, every)
  counts = np.isfinite(padded).sum(1)
  return np.where(counts, np.nansum(padded, axis=1) / np.maximum(counts, 1), np.nan)


def _traces(results, targets, series, ranked):
  """Prediction and annotation over time for the best and the worst clips."""
  best, worst = ranked[:TRACES], ranked[TRACES:][-TRACES:]
  sections = []
  for title, clips in (('Best clips', best), ('Worst clips', worst)):
    figures = [_trace(results, target, i, clip, series[clip]) for clip in clips for i, target in enumerate(targets)]
    if figures:
      sections.append(f'<h3>{title}</h3><div class="grid pairs">{"".join(figures)}</div>')
  return ''.join(sections)


def _trace(results, target, i, clip, s):
  """One clip and target."""
  every = math.ceil(len(s.frames) / MOST)
  times = _thinned(s.times, every)
  gaps = set(np.flatnonzero(np.diff(times) > 1.5 * np.median(np.diff(times)))) if len(times) > 1 else set()
  ccc = _number(results[target]['per_clip'][clip])
  picture = Picture((times[0], times[-1]), (-1, 1), f'{clip}: {target} and its annotation over time, CCC {ccc}')
  picture.line(times, _thinned(np.where(s.annotated, s.labels[:, TARGETS[target].column], np.nan), every), 'annotation', gaps)
  picture.line(times, _thinned(s.prediction[:, i], every), target, gaps)
  seconds = _steps(times[0], times[-1], 6)
  picture.ticks((), (-1, 0, 1))
  picture.ticks(seconds, (), {value: f'{value:g} s' for value in seconds})
  return picture.html(f'<b>{html.escape(clip)}</b> {target} CCC {ccc}', 'low')


def _ranking(results, targets, series, ranked):
  """The table of clips, best mean CCC first."""
  heads = ['clip', *(f'{target} CCC' for target in targets), *(['mean CCC'] if len(targets) > 1 else []), 'frames', 'face', 'sound']
  by = f'{targets[0]} CCC' if len(targets) == 1 else 'mean CCC'
  row = '<th scope="col"{sort}><button type="button">{head}</button></th>'
  lines = ['<thead><tr><th scope="col">rank</th>' + ''.join(
      row.format(head=head, sort=' aria-sort="descending"' if head == by else '') for head in heads) + '</tr></thead><tbody>']
  for place, clip in enumerate(ranked, 1):
    s, scores = series[clip], {target: results[target]['per_clip'][clip] for target in targets}
    cells = [f'<td class="{target}" style="--share:{max(float(_key(ccc)), 0):.1%}" data-value="{_key(ccc)}">{_number(ccc)}</td>'
             for target, ccc in scores.items()]
    if len(targets) > 1:
      mean = float(np.mean(list(scores.values())))
      cells.append(f'<td data-value="{_key(mean)}">{_number(mean)}</td>')
    cells.append(f'<td data-value="{s.annotated.sum()}">{s.annotated.sum():,}</td>')
    cells += [f'<td data-value="{mask.mean():.4f}">{mask.mean():.0%}</td>' for mask in (s.face_present, s.audio_present)]
    lines.append(f'<tr><td>{place}</td><th scope="row" data-value="{html.escape(clip)}">{html.escape(clip)}</th>{"".join(cells)}</tr>')
  return '<table id="ranking">' + '\n'.join(lines) + '</tbody></table>'


def _key(value):
  """What a number sorts by; what is none comes last."""
  return f'{value:.6f}' if math.isfinite(value) else '-2'


def _gates(has_input, series):
  """Mean and spread of every gate column over all frames in which something was seen, and how often it is the highest.

  Nothing for a system without gates.
  """
  rows = []
  for name in legend.in_order(next(iter(series.values())).gates):
    scores = np.concatenate([s.gates[name][has_input(s.face_present, s.audio_present)] for s in series.values()])
    scores = scores[np.isfinite(scores).all(axis=1)]
    of, words = legend.gate_words(name, scores.shape[1])
    for k, word in enumerate(words if len(scores) else ()):
      mean, spread = float(scores[:, k].mean()), float(scores[:, k].std())
      low, high = max(mean - spread, 0) * SIDE, min(mean + spread, 1) * SIDE
      bar = (f'<svg class="bar" viewBox="0 0 {SIDE} 10" preserveAspectRatio="none" aria-hidden="true"><path class="whole" d="M0 5H{SIDE}"/>'
             f'<path class="mean" d="M0 5H{mean * SIDE:.0f}"/>'
             f'<path class="spread" d="M{low:.0f} 5H{high:.0f}M{low:.0f} 2v6M{high:.0f} 2v6"/></svg>')
      first = ' class="first"' if k == 0 else ''
      rows.append(f'<tr{first}><th scope="row">{of}: {word}</th><td class="wide">{bar}</td><td>{mean:.3f}</td><td>{spread:.3f}</td>'
                  f'<td>{(scores.argmax(axis=1) == k).mean():.0%}</td></tr>')
  if not rows:
    return ''
  return ('<section class="panel" aria-labelledby="gates-title"><h2 id="gates-title">What the model trusted</h2>'
          '<p class="small">Softmax scores of the gates over all frames of the partition in which there was a face or sound for the model: the bar is the mean, the whisker one standard '
          'deviation to each side; the columns of one gate sum to 1.</p>'
          '<div class="scroll" tabindex="0" role="region" aria-labelledby="gates-title"><table id="gates"><thead><tr>'
          '<th scope="col">gate column</th>'
          '<th scope="col"><span class="hidden">mean and spread as a bar from 0 to 1</span></th><th scope="col">mean</th>'
          f'<th scope="col">spread</th><th scope="col">highest in</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></section>')


def _table(values):
  """{name: value} as the rows of a table."""
  return ''.join(f'<tr><th scope="row">{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>'
                 for name, value in values.items())
