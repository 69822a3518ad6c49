"""Fills the HTML templates of this package. Every text that enters a page is escaped here.

The templates are Jinja's, with autoescaping: what is not `markupsafe.Markup` is text. Python makes
Markup of literals alone, with `Markup.format`, which escapes too (ruff's rule S704).
"""

import base64
import hashlib
import json
import pathlib

import jinja2
import numpy as np
from markupsafe import Markup

HERE = pathlib.Path(__file__).parent


def script(name):
  """Returns a script element with a JavaScript file of this package."""
  return Markup('<script>{}</script>').format(Markup(_javascript(name)))  # noqa: S704  (our own)


def policy(*scripts, media="'none'"):
  """Returns the Content-Security-Policy of a page that runs these scripts of ours and no other.

  scripts: names of files that the page has as `script` elements. media: where its films come from.
  """
  sums = (hashlib.sha256(_javascript(name).encode()).digest() for name in scripts)
  allowed = ' '.join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in sums)
  return (
    f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; media-src {media}; "
    "base-uri 'none'; form-action 'none'"
  )


def _javascript(name):
  return (HERE / name).read_text(encoding='utf-8')


ENVIRONMENT = jinja2.Environment(
  loader=jinja2.FileSystemLoader(HERE),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  keep_trailing_newline=True,
)
ENVIRONMENT.globals.update(script=script, policy=policy)


def fill(template, **values):
  """Returns a template of this package, such as 'run_report.html', with these values in it."""
  return Markup(ENVIRONMENT.get_template(template).render(values))  # noqa: S704  (autoescaped)


def join(pieces):
  """Joins texts and Markup to Markup; texts are escaped."""
  return Markup('').join(pieces)


def list_items(texts):
  """Returns the items of an HTML list, one for each text."""
  return join(Markup('<li>{}</li>').format(text) for text in texts)


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
