"""Writes the table of docs/reliability.md from docs/reliability.json, which `make fault` measures.

python -m benchmarks.reliability
"""

import json
import pathlib

from benchmarks.pages import fill

DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def table(found):
  """Formats the figures as a Markdown table, with a row for each test."""

  def cell(value):
    return f'{value:.1e}' if isinstance(value, float) and value < 0.01 else str(value)

  lines = ['| what was done: what was counted | result |', '|---|---|']
  for name, value in found.items():
    lines.append(
      f'| {name} | '
      + (', '.join(map(cell, value)) if isinstance(value, list) else cell(value))
      + ' |'
    )
  return '\n'.join(lines)


if __name__ == '__main__':
  page = DOCS / 'reliability.md'
  page.write_text(
    fill(page.read_text(), 'fault', table(json.loads((DOCS / 'reliability.json').read_text())))
  )
