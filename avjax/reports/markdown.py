"""Makes the text of others plain text in Markdown: in a model card, and in a table of runs."""

from __future__ import annotations

import re
from typing import Any

# What begins HTML, an entity, a link, an image, code, a formula or a cell of a table in Markdown;
# or emphasis, except an underscore within a word; or a list or heading, where a text begins.
MARKUP = re.compile(
  r'[\\`*\[\]<>&|~#$]|(?<!\w)_|_(?!\w)|(?<=:)/|(?<=[wW]{3})\.|^[-+=]|^\d(?=\d*[.)])'
)


def as_text(value: Any) -> Any:
  """Returns a value from JSON in which no string, nor key, means more in Markdown than its text."""
  if isinstance(value, dict):
    return {as_text(key): as_text(nested) for key, nested in value.items()}
  if isinstance(value, list):
    return [as_text(nested) for nested in value]
  if not isinstance(value, str):
    return value
  text = ' '.join(value.replace('@', '(at)').split())  # pages make links of addresses of mail
  return MARKUP.sub(lambda found: f'&#{ord(found[0])};', text)
