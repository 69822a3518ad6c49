"""Changes the code on purpose, a place at a time, and counts the changes that the tests notice.

python -m benchmarks.mutants [--again]

Sixty places in the modules that decide what numbers come out are chosen with a seed. Each change is
made in a copy of the checkout, in which the tests of that module are run. Writes docs/mutants.json
and the table of docs/mutants.md.
"""

import argparse
import ast
import concurrent.futures
import copy
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

from tqdm import tqdm

from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
SEED, PLACES = 0, 60
LIMIT = 600  # seconds that the tests of a module may take; a change that makes them hang is noticed
# The quickest tests that are meant to guard each module.
GUARDS = {
  'avjax/targets/losses.py': ['tests/avjax/targets'],
  'avjax/targets/__init__.py': ['tests/avjax/targets', 'tests/avjax/models/test_audio_visual.py'],
  'avjax/models/fusion/joint_cross_attention.py': ['tests/avjax/models/test_fusion.py'],
  'avjax/models/layers.py': [
    'tests/avjax/models/test_towers.py',
    'tests/avjax/models/test_tcn.py',
    'tests/avjax/models/test_audio_visual.py',
  ],
  'avjax/training/unfreezing.py': ['tests/avjax/training/test_unfreezing.py'],
  'avjax/data/windows.py': ['tests/avjax/data/test_windows.py'],
  'avjax/media/audio.py': ['tests/avjax/media/test_audio.py'],
  'avjax/system/inputs.py': ['tests/avjax/system/test_step.py'],
  'avjax/system/steps.py': ['tests/avjax/system/test_step.py'],
  'avjax/evaluation/series.py': ['tests/avjax/evaluation/test_evaluate.py'],
  'avjax/runs/checkpoint.py': [
    'tests/avjax/runs/test_checkpoint.py',
    'tests/fault/test_damage.py',
    'tests/fault/test_kills.py',
  ],
}
COMPARISONS = {
  ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
  ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATIONS = {
  ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
  ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
# Changes after which the program does the same, and why.
EQUIVALENT: dict[str, str] = {}


def change(node):
  """Returns a node in place of this one that computes something else; None where there is none."""
  new = copy.deepcopy(node)
  match node:
    case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
      new.ops = [COMPARISONS[type(op)]()]
    case ast.BinOp(op=op) if type(op) in OPERATIONS:
      new.op = OPERATIONS[type(op)]()
    case ast.BoolOp(op=op):
      new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
    case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
      return new.operand
    case ast.Constant(value=bool(value)):
      new.value = not value
    case ast.Constant(value=int() | float() as value):
      new.value = value + 1
    case ast.IfExp():
      new.body, new.orelse = new.orelse, new.body
    case _:
      return None
  return new


def places(tree):
  """Yields the nodes of a module that can be changed.

  Types, messages of errors and what a decorator declares are left out.
  """
  for name, value in ast.iter_fields(tree):
    if name in ('annotation', 'returns', 'decorator_list'):
      continue
    for child in value if isinstance(value, list) else [value]:
      if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr):
        continue
      if change(child):
        yield child
      yield from places(child)


def mutants():
  """Returns the changes: dicts of module, line, before and after, and the text of the module.

  As many in each module as its share of all places, and at least two.
  """
  rng, found = random.Random(SEED), {}
  for module in GUARDS:
    found[module] = list(places(ast.parse((ROOT / module).read_text())))
  total, chosen = sum(map(len, found.values())), []
  for module, nodes in found.items():
    count = max(round(PLACES * len(nodes) / total), 2)
    for i in sorted(rng.sample(range(len(nodes)), count)):
      tree = ast.parse((ROOT / module).read_text())
      node = list(places(tree))[i]
      before, new = ast.unparse(node), change(node)
      for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
          if value is node:
            setattr(parent, name, new)
          elif isinstance(value, list) and any(x is node for x in value):
            value[[x is node for x in value].index(True)] = new
      change_ = {'module': module, 'line': node.lineno, 'before': before, 'after': ast.unparse(new)}
      chosen.append((change_, ast.unparse(ast.fix_missing_locations(tree))))
  return chosen


def is_noticed(module, text, folder):
  """Tells whether tests fail in the copy at `folder` once this text is in place of the module."""
  original = (folder / module).read_text()
  (folder / module).write_text(text)
  environment = {**os.environ, 'PYTHONPATH': str(folder), 'PYTHONDONTWRITEBYTECODE': '1'}
  words = ['-m', 'pytest', '-x', '-q', '-p', 'no:cacheprovider', *GUARDS[module]]
  try:
    done = subprocess.run(
      [sys.executable, *words], cwd=folder, env=environment, capture_output=True, timeout=LIMIT
    )
  except subprocess.TimeoutExpired:
    return True
  finally:
    (folder / module).write_text(original)
  if done.returncode not in (0, 1, 2):  # 2: the module cannot be imported any more
    raise RuntimeError(done.stdout.decode() + done.stderr.decode())
  return bool(done.returncode)


def copy_checkout(folder):
  """Copies what the tests need to a new folder."""
  for name in ('avjax', 'benchmarks', 'configs', 'data_prep', 'tests', 'docs', 'launch'):
    shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'Makefile', 'README.md'):
    shutil.copy(ROOT / name, folder / name)


def table(found):
  """Formats the changes as Markdown: counts for each module, then those that no test noticed."""
  lines = ['| module | changes | noticed |', '|---|---|---|']
  for module in GUARDS:
    own = [x for x in found if x['module'] == module]
    lines.append(f'| `{module}` | {len(own)} | {sum(x["noticed"] for x in own)} |')
  noticed = sum(x['noticed'] for x in found)
  lines += [f'| all | {len(found)} | {noticed} ({noticed / len(found):.0%}) |', '']
  missed = [x for x in found if not x['noticed']]
  lines += ['Not noticed:', ''] if missed else ['All were noticed.']
  for x in missed:
    reason = EQUIVALENT.get(f'{x["before"]} -> {x["after"]}')
    does = f' (does the same: {reason})' if reason else ''
    lines.append(f'- `{x["module"]}`, line {x["line"]}: `{x["before"]}` -> `{x["after"]}`{does}')
  return '\n'.join(lines)


def main(workers, again):
  """Tries all changes, or only those that the last time no test noticed, and writes the page."""
  record = DOCS / 'mutants.json'
  old = json.loads(record.read_text()) if again else []
  known = {(x['module'], x['before'], x['after']) for x in old if x['noticed']}
  with tempfile.TemporaryDirectory() as temporary:
    folders = [pathlib.Path(temporary, str(i)) for i in range(workers)]
    for folder in folders:
      copy_checkout(folder)

    def attempt(mutant):
      change_, text = mutant
      if (change_['module'], change_['before'], change_['after']) in known:
        return {**change_, 'noticed': True}
      folder = folders.pop()
      try:
        return {**change_, 'noticed': is_noticed(change_['module'], text, folder)}
      finally:
        folders.append(folder)

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
      chosen = mutants()
      found = list(tqdm(pool.map(attempt, chosen), total=len(chosen), unit='change'))
  record.write_text(json.dumps(found, indent=1) + '\n')
  page = DOCS / 'mutants.md'
  page.write_text(fill(page.read_text(), 'mutants', table(found)))


if __name__ == '__main__':
  parser = argparse.ArgumentParser(prog='python -m benchmarks.mutants', description=__doc__)
  parser.add_argument('--workers', type=int, default=2, help='how many are tried at a time')
  parser.add_argument('--again', action='store_true', help='only what no test noticed last time')
  arguments = parser.parse_args()
  main(arguments.workers, arguments.again)
