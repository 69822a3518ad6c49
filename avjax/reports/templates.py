"""A page of one video: it plays, and valence, arousal and the gates run along. One HTML file that needs nothing else."""

import html
import json
import pathlib
import re

import numpy as np


def fill(template, **values):
  """A template of this package, 'page.html', with the marks {{name}} replaced by values, which are HTML."""
  values['style'] = _read('style.html')
  return re.sub(r'\{\{(\w+)\}\}', lambda mark: values[mark[1]], _read(template))


def _read(name):
  return pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')


def escaped_json(value):
  """JSON that can stand in a script element, whatever its strings hold; in pieces, so that long series are not there as text all at once.

  value: dicts, lists, strings and numbers; an array (n,) is a list of its numbers, null for NaN.
  """
  if isinstance(value, dict):
    yield '{'
    for i, (name, item) in enumerate(value.items()):
      yield from (',' * bool(i), *escaped_json(name), ':')
      yield from escaped_json(item)
    yield '}'
    return
  if isinstance(value, list):
    yield '['
    for i, item in enumerate(value):
      yield ',' * bool(i)
      yield from escaped_json(item)
    yield ']'
    return
  if isinstance(value, np.ndarray):
    value, missing = value.tolist(), np.flatnonzero(np.isnan(value))
    for i in missing:
      value[i] = None
  text = json.dumps(value, allow_nan=False, separators=(',', ':'))
  yield text.replace('<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def items(notes):
  """Notes as the items of an HTML list."""
  return ''.join(f'<li>{html.escape(note)}</li>' for note in notes)
