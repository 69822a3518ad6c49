"""Tests that the wheel has what is installed: packages, pages, configs, licence and commands."""

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from fault.harness import flags, run

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ('avjax', 'data_prep', 'configs')
COMMANDS = {
  'avjax-train': 'avjax.main',
  'avjax-evaluate': 'avjax.evaluate',
  'avjax-predict': 'avjax.predict',
  'avjax-export': 'avjax.export',
  'avjax-pretrained': 'avjax.pretrained',
  'avjax-submission': 'avjax.submission',
  'avjax-preflight': 'avjax.preflight',
  'avjax-prepare': 'data_prep.build',
  'avjax-verify': 'data_prep.verify',
}


def test_every_package_has_its_hashes():
  """hashes.txt names what constraints.txt names, each with a SHA-256 at least, and no address."""
  text = (ROOT / 'hashes.txt').read_text()
  found = re.findall(
    r'^(\S.*?) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)', text, re.MULTILINE
  )
  assert [name for name, _ in found] == (ROOT / 'constraints.txt').read_text().splitlines()
  assert ''.join(f'{name} \\\n{hashes}' for name, hashes in found) == text


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
  """The wheel, built without a network; from a copy, since a build leaves files in its folder."""
  folder = tmp_path_factory.mktemp('source')
  for name in PACKAGES:
    shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, folder)
  words = ['-m', 'build', '--wheel', '--no-isolation', '--outdir', folder / 'dist', folder]
  done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  (path,) = (folder / 'dist').glob('avjax-*.whl')
  return path


def read(wheel, name):
  """Returns the text of a file of the wheel's metadata."""
  with zipfile.ZipFile(wheel) as archive:
    (path,) = (path for path in archive.namelist() if path.endswith(f'.dist-info/{name}'))
    return archive.read(path).decode()


def test_the_files_of_the_wheel(wheel):
  """Every module and every template of a page is in it, and no golden config."""
  expected = {path for name in PACKAGES for path in (ROOT / name).rglob('*.py')}
  reports = ROOT / 'avjax' / 'reports'
  expected |= {path for ending in ('html', 'css', 'js') for path in reports.glob(f'*.{ending}')}
  expected = {str(path.relative_to(ROOT)) for path in expected if path.parent.name != 'golden'}
  with zipfile.ZipFile(wheel) as archive:
    found = {name for name in archive.namelist() if '.dist-info/' not in name}
  assert found == expected and 'configs/base.py' in found
  assert read(wheel, 'licenses/LICENSE') == (ROOT / 'LICENSE').read_text()
  assert 'Apache-2.0' in read(wheel, 'METADATA')


def test_the_console_commands(wheel):
  """Each is a function that exists, the same that `python -m` of its module runs."""
  parsed = configparser.ConfigParser()
  parsed.read_string(read(wheel, 'entry_points.txt'))
  commands = dict(parsed['console_scripts'])
  assert commands == {name: f'{module}:run' for name, module in COMMANDS.items()}
  for module in COMMANDS.values():  # in processes of their own: each must be importable first
    program = f'import {module}; assert callable({module}.run)'
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)


def test_the_wheel_in_an_environment_of_its_own(wheel, full, tmp_path):
  """In the long form the wheel is installed with pip, and the commands run in any folder."""
  if not full:
    pytest.skip('installs every dependency: only with --full')
  subprocess.run([sys.executable, '-m', 'venv', tmp_path / 'venv'], check=True)
  scripts = tmp_path / 'venv' / 'bin'
  pip = [scripts / 'python', '-m', 'pip', 'install', '--quiet']
  subprocess.run([*pip, '--constraint', ROOT / 'constraints.txt', wheel], check=True)
  environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}

  def call(command, *words):
    words = [scripts / command, *words]
    return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)

  for command in COMMANDS:
    done = call(command, '--help')
    assert done.returncode == 0 and not done.stderr, (command, done.stderr)
  assert '--overlay' in call('avjax-predict', '--help').stdout
  done = call('avjax-train', '--config=configs/lfan.py:minni', '--workdir=W', '--config.data.dir=R')
  assert done.returncode == 2 and done.stderr.startswith('error: '), done.stderr
  assert len(done.stderr.splitlines()) == 1 and "did you mean 'mini'" in done.stderr
  assert f'{tmp_path}/venv' in done.stderr  # the config is the installed one, and is named
  done = call('avjax-train', '--config=configs/lfan.py', '--workdir=W', '--config.data.dir=R')
  assert done.returncode == 2 and 'R holds no finished records' in done.stderr


@pytest.mark.parametrize('version', ['0.11.26', '0.12.0'])
def test_a_run_that_another_orbax_wrote(full, records, tmp_path, version):
  """In the long form it is exported, and continued, under the Orbax that is installed."""
  if not full:
    pytest.skip('installs another Orbax: only with --full')
  venv, other, workdir = tmp_path / 'venv', tmp_path / 'other', tmp_path / 'run'
  subprocess.run([sys.executable, '-m', 'venv', venv], check=True)
  pip = [venv / 'bin' / 'python', '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', other]
  subprocess.run([*pip, f'orbax-checkpoint=={version}', 'nest_asyncio'], check=True)
  one_epoch = flags(workdir, records, '--config.schedule.max_epochs=1')
  path = os.pathsep.join([str(other), str(ROOT)])
  done = run(*one_epoch, env={'PYTHONPATH': path})
  assert done.returncode == 0, done.stderr
  assert f'"orbax-checkpoint": "{version}"' in (workdir / 'versions.json').read_text()
  done = run(workdir, '--output', tmp_path / 'model', module='avjax.export')
  assert done.returncode == 0 and 'model runs here' in done.stdout, done.stderr
  done = run(*flags(tmp_path / 'fork', records, f'--config.resume={workdir}'))
  assert done.returncode == 0 and 'best epoch' in done.stdout, done.stderr
