"""Writes the table of a page from the figures of a suite: python -m benchmarks.suites fault

`make fault` measures docs/reliability.json for docs/reliability.md, and `make attack`
docs/security.json for docs/security.md.
"""

import json
import pathlib
import sys

from benchmarks.pages import fill

DOCS = pathlib.Path(__file__).parents[1] / 'docs'
PAGES = {'fault': 'reliability', 'attack': 'security'}


def table(suite):
  """Formats the figures of a suite as a Markdown table, with a row for each test.

  A suite that has not been run yet has no rows.
  """

  def cell(value):
    return f'{value:.1e}' if isinstance(value, float) and value < 0.01 else str(value)

  figures = DOCS / f'{PAGES[suite]}.json'
  found = json.loads(figures.read_text()) if figures.exists() else {}
  lines = ['| what was done: what was counted | result |', '|---|---|']
  for name, value in found.items():
    lines.append(
      f'| {name} | '
      + (', '.join(map(cell, value)) if isinstance(value, list) else cell(value))
      + ' |'
    )
  return '\n'.join(lines)


def main(suite):
  page = DOCS / f'{PAGES[suite]}.md'
  page.write_text(fill(page.read_text(), suite, table(suite)))


if __name__ == '__main__':
  main(sys.argv[1])
