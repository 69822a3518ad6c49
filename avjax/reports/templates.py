"""Writes HTML pages from the templates of this package, and makes all that goes into them text.

Jinja2 escapes every value that a template writes, so no text of a file can become an element or an
attribute. The policy of a page lets only our own script and style take effect, by their SHA-256.
"""

import base64
import hashlib
import json
import pathlib
import re

import jinja2
import numpy as np
from markupsafe import Markup

import avjax

FOLDER = pathlib.Path(__file__).parent


class StyleRules:
  """Gathers the declarations of single elements as rules of the page's style element.

  The policy of a page allows no style attributes.
  """

  def __init__(self):
    self._names = {}

  def name(self, declarations):
    """Returns the class of elements with these CSS declarations, such as 'left:10%'."""
    return self._names.setdefault(declarations, f'r{len(self._names)}')

  def text(self):
    """Returns the rules as CSS. They outweigh those of the page's own style sheet."""
    return ''.join(f'body .{name} {{ {text} }}\n' for text, name in self._names.items())


def write(path, template, *, scripts, rules, **values):
  """Writes a page piece by piece, so that a long video is never in memory as a whole.

  Args:
    path: the file to write; characters that UTF-8 cannot hold become '?'.
    template: name of an HTML file of this package; the CSS file of the same name styles it.
    scripts: names of JavaScript files of this package, which run as one script.
    rules: CSS that follows the style sheets; made by this package, not text of a file.
    values: what the template writes, by name. Each is escaped, unless `escaped_json` made it.
  """
  sheets = 'style.css', template.replace('.html', '.css')
  pieces = (
    _environment()
    .get_template(template)
    .generate(
      script=_own(''.join(map(_read, scripts))),
      style=_own(''.join(map(_read, sheets)) + rules),
      version=avjax.__version__,
      **values,
    )
  )
  with open(path, 'wb') as file:
    file.writelines(piece.encode('utf-8', 'replace') for piece in pieces)


def _environment():
  """Returns what finds and fills the templates; a value that a template lacks is an error."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters['source_hash'] = _source_hash
  return environment


def _read(name):
  return (FOLDER / name).read_text(encoding='utf-8')


def _own(text):
  """Marks script or style of this package as not to be escaped: elements of both take no escapes.

  Raises ValueError for text that would end its element.
  """
  if re.search('</|<!--', text):
    raise ValueError('a script or style of a page would end its element')
  return Markup(text)


def _source_hash(text):
  """Returns how a Content-Security-Policy names a script or style that is in the page."""
  digest = hashlib.sha256(text.encode()).digest()
  return f'sha256-{base64.b64encode(digest).decode()}'


def escaped_json(value):
  """Yields JSON, in pieces, that is safe in a script element whatever its strings hold.

  In pieces, so that the text of a long video is never in memory as a whole.

  value: dicts, lists, strings and numbers; an array (n,) becomes a list, with null for NaN.
  """
  if isinstance(value, dict):
    yield Markup('{')
    for i, (name, item) in enumerate(value.items()):
      yield from (Markup(',' if i else ''), *escaped_json(name), Markup(':'))
      yield from escaped_json(item)
    yield Markup('}')
  elif isinstance(value, list):
    yield Markup('[')
    for i, item in enumerate(value):
      yield Markup(',' if i else '')
      yield from escaped_json(item)
    yield Markup(']')
  else:
    if isinstance(value, np.ndarray):
      missing = np.flatnonzero(np.isnan(value))
      value = value.tolist()
      for i in missing:
        value[i] = None
    text = json.dumps(value, allow_nan=False, separators=(',', ':'))  # in ASCII
    for character in '<>&':
      text = text.replace(character, f'\\u{ord(character):04x}')
    yield Markup(text)
