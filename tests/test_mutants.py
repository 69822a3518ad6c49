"""Tests which changes of the code benchmarks/mutants.py may make, and that it chooses real ones."""

import ast

from benchmarks import mutants
from benchmarks.changes import changes

SOURCE = '''"""Computes 1 + 1."""
import os
LIMIT: int = 2
def mean(x, axis=-1, keep=True):
  """Returns x / 2."""
  assert len(x) > 2, f'{len(x) + 1} values'
  if isinstance(x, str | bytes) or not keep:
    raise ValueError('é' + str(axis - 1))
  return x.sum(
    axis, keepdims=keep
  ) / len(x)
'''
# Line: what it may become.
ALLOWED = {
  3: ['LIMIT: int = 3', 'LIMIT: int = 1'],
  4: [
    'def mean(x, axis=(1), keep=True):',
    'def mean(x, axis=-2, keep=True):',
    'def mean(x, axis=-0, keep=True):',
    'def mean(x, axis=-1, keep=False):',
  ],
  7: [
    'if (isinstance(x, str | bytes) and (not keep)):',
    'if isinstance(x, str | bytes) or (keep):',
  ],
  9: ['return x.sum(axis, keepdims=keep) * len(x)', 'return x.sum(axis) / len(x)'],
}


def test_what_may_be_changed():
  """Text, types, messages of errors and assertions stay; each change gives another program."""
  found = {}
  for change in changes('mean.py', SOURCE):
    found.setdefault(change.line, []).append(change.after)
    data = SOURCE.encode()
    changed = (data[: change.start] + change.new.encode() + data[change.end :]).decode()
    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))
  assert found == ALLOWED


def test_sixty_changes_are_chosen_of_all_parts():
  chosen = {part: mutants.choose(part)[0] for part in mutants.PARTS}
  assert sum(map(len, chosen.values())) == 60
  for part, own in chosen.items():
    assert len({(change.start, change.new, change.path) for change in own}) == len(own), part
    assert own == mutants.choose(part)[0]


def test_an_edit_elsewhere_leaves_the_choice(monkeypatch):
  before = mutants.choose('windows')[0]
  monkeypatch.setattr(
    mutants, 'changes', lambda path, source: changes(path, 'NEW = None\n' + source)
  )
  after = mutants.choose('windows')[0]
  assert [(change.before, change.after) for change in after] == [
    (change.before, change.after) for change in before
  ]
  assert {new.line - old.line for new, old in zip(after, before, strict=True)} == {1}
