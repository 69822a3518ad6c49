"""Turns figures of matplotlib into inline SVG for a page, with the texts on them as HTML."""

import dataclasses
import io
import re

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure

from avjax.reports.legend import BLACK, GREY, GRID, STAGE_LINE
from avjax.targets import TARGETS

# The CSS variables that replace these colours on a page, light or dark.
CSS_VARIABLES = {
  BLACK: 'ink',
  GREY: 'muted',
  STAGE_LINE: 'muted',
  GRID: 'line',
  **{target.colour: name for name, target in TARGETS.items()},
}
MINUS = '\N{MINUS SIGN}'  # as wide as a plus sign
SVG_SIDE = 1000  # units across and up in an SVG of a page
SVG_STYLE = {
  'path.simplify': False,
  'lines.dashed_pattern': (3.3, 2.2),
  'lines.dotted_pattern': (1, 4),
}
# Finds what matplotlib draws in an SVG: (outline, '', '', style) for each path, and
# ('', x, y, style) for each marker.
SVG_ELEMENT = re.compile(
  r'<(?:path d="([^"]*)"|use [^>]*?x="([^"]*)" y="([^"]*)")[^>]*? style="([^"]*)"/>'
)


def page_axes():
  """Returns axes for a figure of a page. They fill the figure: numbers and texts are HTML on it."""
  return Figure(figsize=(SVG_SIDE / 72, SVG_SIDE / 72)).add_axes((0, 0, 1, 1))


def ticks(axis, most, *, integer=False):
  """Chooses about `most` round numbers, or powers of ten, within the limits of an axis."""
  low, high = axis.get_view_interval()
  if axis.get_scale() == 'log':
    values = ticker.LogLocator(numticks=most).tick_values(low, high)
  else:
    values = ticker.MaxNLocator(most, steps=(1, 2, 5, 10), integer=integer).tick_values(low, high)
    values = values.round(10) + 0.0  # 0, not -0 or 1e-16
  if integer:  # a short axis also gets fractions
    values = values[values == np.round(values)]
  return [float(value) for value in values if low <= value <= high]


@dataclasses.dataclass
class IntervalBar:
  """Holds the outlines of a number and its interval on a line, SVG_SIDE units across and 10 up."""

  value: str
  interval: str
  reference: str
  side: int = SVG_SIDE


def interval_bar(value, interval, low, high, *, reference) -> IntervalBar | None:
  """Draws a number as a dot, and its interval as a whisker, on a line from low to high.

  Args:
    value: the number.
    interval: [lowest, highest], or None.
    low, high: ends of the line.
    reference: number that gets a mark across the line.

  Returns None where a number is not finite or the line has no length.
  """
  numbers = [value, reference, *(interval or ())]
  if not np.isfinite(numbers).all() or not low < high:
    return None
  x, mark, *ends = (f'{(number - low) / (high - low) * SVG_SIDE:.0f}' for number in numbers)
  whisker = f'M{ends[0]} 5H{ends[1]}M{ends[0]} 2v6M{ends[1]} 2v6' if ends else ''
  return IntervalBar(f'M{x} 5h0', whisker, f'M{mark} 0v10')


@dataclasses.dataclass
class Drawing:
  """Holds a figure as a page's template writes it: an SVG, and on it the texts as HTML.

  The SVG stretches to the box that the page gives it, while strokes and texts keep their size. Its
  colours are CSS variables, so that they follow the page into dark mode.

  label: what a screen reader says of the figure.
  paths: (classes, outline) of each path of the SVG, which is SVG_SIDE units across and up.
  words: (classes, text) of each text.
  """

  label: str
  paths: list[tuple[str, str]]
  words: list[tuple[str, str]]
  side: int = SVG_SIDE


def draw(axes, label, rules, *, x_ticks=(), y_ticks=(), x_unit=''):
  """Turns axes of `page_axes` into a Drawing.

  Args:
    axes: of `page_axes`, drawn on.
    label: what a screen reader says of the figure.
    rules: StyleRules of the page, which get the places and colours of this figure.
    x_ticks: values to be written below the figure.
    y_ticks: values to be written next to the figure, each with a grid line.
    x_unit: text that follows each value of x_ticks.
  """

  def share(x, y):  # of the width, from the left, and of the height, from the top
    across, up = axes.transAxes.inverted().transform(axes.transData.transform((x, y)))
    return f'left:{across:.1%}', f'top:{1 - up:.1%}'

  x, y = axes.get_xlim()[0], axes.get_ylim()[0]
  axes.autoscale(False)  # the grid lines below change no limits
  words = [('x', share(tick, y)[0], f'{tick:g}{x_unit}') for tick in x_ticks]
  words += [('y', share(x, tick)[1], f'{tick:g}') for tick in y_ticks]
  words = [(kind, style, text.replace('-', MINUS)) for kind, style, text in words]
  for text in axes.texts:
    style = f'{share(text.xy[0], y)[0]};color:var(--{CSS_VARIABLES[text.get_color()]})'
    words.append(('vertical', style, text.get_text()))
  for tick in y_ticks:
    axes.axhline(tick, color=GRID if tick else GREY, lw=0.8, zorder=0)
  words = [(f'{kind} {rules.name(style)}', text) for kind, style, text in words]
  return Drawing(label, _paths(axes, rules), words)


def _paths(axes, rules):
  """Turns axes that fill their figure into paths, as Drawing has them."""
  axes.set_axis_off()
  axes.figure.patch.set_visible(False)
  for text in axes.texts:
    text.set_visible(False)
  file = io.StringIO()
  with matplotlib.rc_context(SVG_STYLE):
    for line in axes.lines:
      line.set(solid_capstyle='round', dash_capstyle='round', lw=1.2 * line.get_linewidth())
      if line.get_label() in TARGETS:
        line.set_linestyle(TARGETS[line.get_label()].line)
    axes.figure.savefig(file, format='svg')
  drawn = re.sub('<defs>.*?</defs>', '', file.getvalue(), flags=re.DOTALL)
  paths = []
  for outline, x, y, style in SVG_ELEMENT.findall(drawn):
    outline = f'M {x} {y} ' if x else outline.replace('\n', '')
    outline = re.sub(r'(\.\d)\d+', r'\1', outline)
    # A step of length 0 after each move draws a dot: a marker that is not stretched with the SVG,
    # or a single frame between gaps.
    outline = re.sub(r'(M [^ ]+ [^ ]+ )', r'\1h0', outline)
    for colour, variable in CSS_VARIABLES.items():
      style = style.replace(colour, f'var(--{variable})')
    paths.append(('dot ' * bool(x) + rules.name(style), outline))
  return paths
