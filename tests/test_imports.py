"""Tests that imports run one way: a package imports only those before it in ORDER."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
ORDER = [
  'errors',
  'bounded',
  'files',
  'ranges',
  'targets',
  'config',
  'data',
  'media',
  'models',
  'system',
  'command_line',
  'runs',
  'reports',
  'evaluation',
  'weights',
  'training',
  'inference',
  'commands',
]
COMMANDS = {'main', 'evaluate', 'predict', 'export', 'pretrained', 'submission', 'preflight'}
NO_JAX = (
  'errors',
  'bounded',
  'files',
  'ranges',
  'config',
  'data',
  'media',
  'command_line',
)  # targets: only losses.py imports it
# All of avjax that data_prep stands on. Of `inference` it is what finds faces, which loads no JAX.
DATA_PREP = {'errors', 'files', 'ranges', 'data', 'media'}
FINDS_FACES = {
  f'avjax.inference.{name}'
  for name in ('face_source', 'face_source.check_face', 'source.FilmSource', 'timing.Clock')
}


def room(module):
  """Returns the room of a module: 'avjax.models.fusion.lstm' -> 'models'.

  The commands are one room, and avjax itself, which only has its version, is none.
  """
  name = [*module.split('.'), ''][1]
  return 'commands' if name in COMMANDS else name


def imports(path):
  """Lists the modules that a file imports, wherever in it.

  `from avjax.system import steps` gives 'avjax.system.steps'.
  """
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found += [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      found += [f'{node.module}.{alias.name}' for alias in node.names]
  return found


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'avjax').rglob('*.py')), ids=lambda path: str(path.relative_to(ROOT))
)
def test_imports_run_one_way(path):
  own = room('.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'))
  for module in imports(path):
    assert not module.startswith(('data_prep', 'configs', 'benchmarks', 'tests')), module
    if module.startswith('avjax.') and room(module) in ORDER and own in ORDER:
      assert ORDER.index(room(module)) <= ORDER.index(own), module
    if own in NO_JAX:
      assert module.split('.')[0] not in ('jax', 'flax', 'optax', 'orbax'), module


def test_there_is_no_circle_among_files():
  names = {
    path: '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for folder in ('avjax', 'data_prep')
    for path in (ROOT / folder).rglob('*.py')
  }
  known = set(names.values())
  graph = {
    name: {
      next((m for m in (module, module.rpartition('.')[0]) if m in known), name)
      for module in imports(path)
    }
    - {name, 'avjax'}
    for path, name in names.items()
  }
  while True:  # take away whatever imports nothing that is left
    done = {name for name, needs in graph.items() if not needs & graph.keys()}
    if not done:
      break
    graph = {name: needs for name, needs in graph.items() if name not in done}
  assert not graph, f'these import one another: {sorted(graph)}'


def test_every_room_is_in_the_order():
  rooms = {
    room(f'avjax.{path.stem}')
    for path in (ROOT / 'avjax').iterdir()
    if path.suffix == '.py' or (path / '__init__.py').is_file()
  }
  assert rooms - {'__init__'} == set(ORDER)
  assert len(list((ROOT / 'avjax').glob('*.py'))) <= 13


@pytest.mark.parametrize(
  'path', sorted((ROOT / 'data_prep').rglob('*.py')), ids=lambda path: str(path.relative_to(ROOT))
)
def test_data_prep_stands_on_little(path):
  for module in imports(path):
    is_known = room(module) in DATA_PREP or module in FINDS_FACES
    assert not module.startswith('avjax.') or is_known, module


@pytest.mark.parametrize(
  'imported, absent',
  [
    ('data_prep.build', {'jax', 'tensorflow'}),
    ('avjax.models.audio_visual', {'ml_collections', 'avjax.config', 'avjax.data', 'tensorflow'}),
    ('avjax.system', {'tensorflow', 'clu'}),
    ('avjax.command_line', {'jax', 'tensorflow'}),
    ('avjax', {'jax', 'numpy'}),
  ],
)
def test_what_an_import_does_not_load(imported, absent):
  code = f'import sys, {imported}; print(*({absent!r} & set(sys.modules)))'
  done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
  assert (done.returncode, done.stdout.strip()) == (0, ''), done.stderr
