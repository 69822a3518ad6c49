"""Where each equation of the paper stands in the code: python -m benchmarks.equations writes docs/equations.md.

An equation is found by the comment that ends its line, `# eq. 9, 10, 14, 15: (B,L,K)`. tests/test_docs.py keeps the page true.
"""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
SAYS = {
    1: 'joint cross-correlation of the voice', 2: 'joint cross-correlation of the face', 3: 'attention map of the voice',
    4: 'attention map of the face', 5: 'attended features of the voice', 6: 'attended features of the face',
    7: 'the same in recursion t, voice', 8: 'the same in recursion t, face', 9: 'gate scores of the face',
    10: 'gate scores of the voice', 11: 'softmax of the scores at temperature T', 12: 'gated features of the voice',
    13: 'gated features of the face', 14: 'gate scores of recursion t, face', 15: 'gate scores of recursion t, voice',
    16: 'softmax of these scores', 17: 'gated features of recursion t, face', 18: 'gated features of recursion t, voice',
    19: 'gated over the recursions, voice', 20: 'gated over the recursions, face', 21: 'concordance correlation coefficient',
    22: 'loss'}
HEAD = '''# Equations

Where each equation of the paper stands in the code. Rows are frames in the code, (B,L,D), where the paper writes columns, D x L.
The tests compare all of them with a float64 reference written from the paper (tests/support/oracle.py). Made by
`python -m benchmarks.equations`.

| equation | what it is | where | line |
|---|---|---|---|
'''


def numbers(text):
  """'5 to 8' and '12, 13, 17 to 20' as a list of numbers."""
  found = []
  for part in text.split(','):
    first, _, last = part.partition(' to ')
    found += range(int(first), int(last or first) + 1)
  return found


def places():
  """{equation: [(file, line number, code)]}."""
  found = {}
  for path in sorted((ROOT / 'avjax').rglob('*.py')):
    for number, line in enumerate(path.read_text().splitlines(), 1):
      match = re.search(r'^(.*\S)\s+# eq\. ([\d ,to]*\d)', line)
      for equation in numbers(match[2]) if match else ():
        found.setdefault(equation, []).append((str(path.relative_to(ROOT)), number, match[1].strip()))
  return found


def page():
  """docs/equations.md."""
  found = places()
  rows = [f'| {equation} | {SAYS[equation]} | [{file}:{number}](../{file}#L{number}) | `{code}` |'
          for equation in sorted(SAYS) for file, number, code in found[equation]]
  return HEAD + '\n'.join(rows) + '\n'


if __name__ == '__main__':
  (ROOT / 'docs' / 'equations.md').write_text(page())
