"""Fills the HTML templates of this package, and escapes what goes into them."""

import html
import json
import pathlib
import re

import numpy as np


def fill(template, **values):
  """Returns a template of this package with its {{name}} marks replaced.

  template: a file name, such as 'run_report.html'. A mark is replaced by the value of that name,
  which is HTML, or else by the file name.html.
  """

  def replacement(mark):
    name = mark[1]
    return values[name] if name in values else _read(f'{name}.html')

  return re.sub(r'\{\{(\w+)\}\}', replacement, _read(template))


def _read(name):
  return pathlib.Path(__file__).with_name(name).read_text(encoding='utf-8')


def list_items(texts):
  """Returns the items of an HTML list, one for each text."""
  return ''.join(f'<li>{html.escape(text)}</li>' for text in texts)


def escaped_json(value):
  """Yields JSON, in pieces, that is safe in a script element whatever its strings hold.

  In pieces, so that the text of a long video is never in memory as a whole.

  value: dicts, lists, strings and numbers; an array (n,) becomes a list, with null for NaN.
  """
  if isinstance(value, dict):
    yield '{'
    for i, (name, item) in enumerate(value.items()):
      yield from (',' if i else '', *escaped_json(name), ':')
      yield from escaped_json(item)
    yield '}'
  elif isinstance(value, list):
    yield '['
    for i, item in enumerate(value):
      yield ',' if i else ''
      yield from escaped_json(item)
    yield ']'
  else:
    if isinstance(value, np.ndarray):
      missing = np.flatnonzero(np.isnan(value))
      value = value.tolist()
      for i in missing:
        value[i] = None
    text = json.dumps(value, allow_nan=False, separators=(',', ':'))
    for character in '<>&':
      text = text.replace(character, f'\\u{ord(character):04x}')
    yield text
