"""Shares fixtures and options among the suites."""

import importlib.metadata
import json
import os
import pathlib
import sys

import pytest

os.environ['JAX_PLATFORMS'] = 'cpu'  # the tests' numbers are the CPU's
# Most of the time of small models is the compiler's; its optimizations change speed alone.
if 'backend_optimization_level' not in os.environ.get('XLA_FLAGS', ''):
  flags = [os.environ.get('XLA_FLAGS', ''), '--xla_backend_optimization_level=0']
  if importlib.metadata.version('jaxlib').startswith('0.10.'):  # later ones do not know the flag
    flags.append('--xla_cpu_use_fusion_emitters=false')
  os.environ['XLA_FLAGS'] = ' '.join(flags)
# The processes that tests start compile the same few programs over and over, and so does the next
# run of the tests: what is compiled is kept beside what pytest keeps. benchmarks/mutants.py names a
# folder of its own.
os.environ.setdefault(
  'JAX_COMPILATION_CACHE_DIR', str(pathlib.Path(__file__).parents[1] / '.pytest_cache' / 'compiled')
)
os.environ['JAX_COMPILATION_CACHE_MAX_SIZE'] = str(1 << 30)  # bytes
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'

sys.path[:0] = [
  str(pathlib.Path(__file__).parent / folder)
  for folder in ('support', 'avjax/models', 'avjax/system')
]


import shapes  # noqa: E402  (found only now, and JAX must see the settings above)

from avjax import command_line  # noqa: E402

command_line.collect_garbage_less_often()  # a fifth of the time of the tests of models
shapes.install()
ATTACKS = {}  # {kind: [tried, held]}


def pytest_addoption(parser):
  parser.addoption(
    '--full', action='store_true', help='the long form, as `make fault` and `make attack` run it'
  )
  parser.addoption('--record', help='JSON file that takes the figures of a suite')


def pytest_collection_modifyitems(items):
  """Puts the demo first.

  It takes a third as long as all others together, so one worker should begin with it.
  """
  items.sort(key=lambda item: item.path.name != 'test_demo.py')


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
  """Counts the cases of each kind of attack, and those that held, for --record."""
  report = yield
  marker = item.get_closest_marker('attack')
  if marker and call.when == 'call' and not report.skipped:
    tried, held = ATTACKS.get(marker.args[0], (0, 0))
    ATTACKS[marker.args[0]] = [tried + 1, held + report.passed]
  return report


def pytest_sessionfinish(session):
  path = session.config.getoption('--record')
  for kind, counts in ATTACKS.items() if path else ():
    keep_figure(path, f'{kind}: cases, held', counts)


def keep_figure(path, name, value):
  """Adds a figure to a JSON file."""
  file = pathlib.Path(path)
  found = json.loads(file.read_text()) if file.exists() else {}
  file.write_text(json.dumps({**found, name: value}, indent=1, sort_keys=True) + '\n')


@pytest.fixture
def full(request):
  """Tells whether the long form was asked for.

  It has the numbers of kills, flips and files that are in docs/reliability.md.
  """
  return request.config.getoption('--full')


@pytest.fixture
def record(request):
  """Returns record(name, value), which keeps a figure that a test has measured."""
  path = request.config.getoption('--record')
  return lambda name, value: keep_figure(path, name, value) if path else None


@pytest.fixture(scope='session')
def records(tmp_path_factory):
  """The RECORDS folder of the small set in the official layout that data_prep's tests use.

  Its sizes are those of support/tiny.py.
  """
  from official_set import SIZES, make_official

  from data_prep import build

  source, folder = tmp_path_factory.mktemp('affwild2'), tmp_path_factory.mktemp('records')
  make_official(source)
  assert (
    build.main(['--source', str(source), '--data_dir', str(folder), '--workers', '2', *SIZES]) == 0
  )
  return folder


@pytest.fixture(scope='session')
def server():
  """A server of Google Cloud Storage on the loopback, see support/bucket_server.py."""
  import bucket_server

  if not bucket_server.PROGRAMS:
    pytest.skip(f'no server of Google Cloud Storage: {bucket_server.PACKAGE} is not installed')
  with bucket_server.running() as proxy:
    yield proxy


@pytest.fixture
def address(server, request, monkeypatch, tmp_path):
  """The address of a folder on a bucket, which is empty; records of a bucket are cached apart."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  name = request.node.nodeid.encode().hex()[-100:]
  return f'gs://bucket/{name}'
