"""Finds the line of code of each equation of the paper; writes docs/equations.md.

python -m benchmarks.equations

An equation is found by the comment that ends its line, such as `# eq. 9, 10, 14, 15: (B,L,K)`.
tests/test_docs.py compares the page with the code.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
MEANINGS = {
  1: 'joint cross-correlation, audio',
  2: 'joint cross-correlation, visual',
  3: 'attention map, audio',
  4: 'attention map, visual',
  5: 'attended features, audio',
  6: 'attended features, visual',
  7: 'attended features of recursion t, audio',
  8: 'attended features of recursion t, visual',
  9: 'gate scores, visual',
  10: 'gate scores, audio',
  11: 'softmax of the scores at temperature T',
  12: 'gated features, audio',
  13: 'gated features, visual',
  14: 'gate scores of recursion t, visual',
  15: 'gate scores of recursion t, audio',
  16: 'softmax of the scores of recursion t',
  17: 'gated features of recursion t, visual',
  18: 'gated features of recursion t, audio',
  19: 'features gated over the recursions, audio',
  20: 'features gated over the recursions, visual',
  21: 'concordance correlation coefficient (CCC)',
  22: 'loss',
}
HEAD = """# Equations

This table leads from each equation of the paper to its line of code. In the code a row is a frame,
(B,L,D); in the paper a column is a frame, D x L. The tests compare every equation with a float64
reference that was written from the paper (tests/support/oracle.py). \
`python -m benchmarks.equations`
writes this page.

| equation | what it is | where | line |
|---|---|---|---|
"""


def numbers(text):
  """Reads '5 to 8' or '12, 13, 17 to 20' as a list of numbers."""
  found = []
  for part in text.split(','):
    first, _, last = part.partition(' to ')
    found += range(int(first), int(last or first) + 1)
  return found


def places():
  """Returns {equation: [(file, line number, code)]} of all equations in avjax/."""
  found = {}
  for path in sorted((ROOT / 'avjax').rglob('*.py')):
    for number, line in enumerate(path.read_text().splitlines(), 1):
      match = re.search(r'^(.*\S)\s+# eq\. ([\d ,to]*\d)', line)
      for equation in numbers(match[2]) if match else ():
        found.setdefault(equation, []).append(
          (str(path.relative_to(ROOT)), number, match[1].strip())
        )
  return found


def page():
  """Returns the text of docs/equations.md."""
  found = places()
  rows = [
    f'| {equation} | {meaning} | [{file}:{number}](../{file}#L{number}) | `{code}` |'
    for equation, meaning in MEANINGS.items()
    for file, number, code in found[equation]
  ]
  return HEAD + '\n'.join(rows) + '\n'


if __name__ == '__main__':
  (ROOT / 'docs' / 'equations.md').write_text(page())
