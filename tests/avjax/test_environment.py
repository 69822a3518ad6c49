"""Tests that commands do the same whatever the environment holds that they start in.

What they cannot work in is refused in one line that names the cause, with exit status 2.
"""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from fault.harness import ROOT, call, fingerprint, flags, made_run, one_line, run
from official_set import tone, write_video

import avjax
from avjax import errors

# Variables of JAX that change numbers, types or what a program may do.
CHANGED = {
  'JAX_ENABLE_X64': '1',
  'JAX_NUMPY_DTYPE_PROMOTION': 'strict',
  'JAX_NUMPY_RANK_PROMOTION': 'raise',
  'JAX_DEFAULT_MATMUL_PRECISION': 'bfloat16',
  'JAX_DEFAULT_PRNG_IMPL': 'rbg',
  'JAX_THREEFRY_PARTITIONABLE': '0',
  'JAX_RANDOM_SEED_OFFSET': '3',
  'JAX_TRANSFER_GUARD': 'disallow',
}
ASCII = {
  'LC_ALL': 'C',
  'PYTHONUTF8': '0',
  'PYTHONCOERCECLOCALE': '0',
  'PYTHONIOENCODING': 'ascii',
}


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """The folder of a run whose best state is random."""
  return made_run(tmp_path_factory.mktemp('made') / 'run', tiny.get_config())


@pytest.fixture(scope='module')
def film(tmp_path_factory):
  """A film of 12 frames without a face, with sound."""
  path = tmp_path_factory.mktemp('film') / 'clip.mp4'
  write_video(path, 12, tone(12))
  return path


def rows(path):
  return [line for line in path.read_text().splitlines() if not line.startswith('#')]


@pytest.mark.slow
def test_training_does_not_depend_on_jax_variables(records, tmp_path):
  short = '--config.schedule.max_epochs=1'
  assert call(*flags(tmp_path / 'usual', records, short)).returncode == 0
  done = run(*flags(tmp_path / 'changed', records, short), env=CHANGED)
  assert done.returncode == 0, done.stderr
  assert fingerprint(tmp_path / 'changed') == fingerprint(tmp_path / 'usual')
  evaluated = [
    run(tmp_path / 'changed', module='avjax.evaluate', env=variables) for variables in ({}, CHANGED)
  ]
  assert evaluated[0].stdout == evaluated[1].stdout and evaluated[1].returncode == 0


@pytest.mark.slow
def test_prediction_and_export_do_not_depend_on_jax_variables(made, film, tmp_path):
  done = call(film, '--run', made, '--output', tmp_path / 'usual', module='avjax.predict')
  assert done.returncode == 0, done.stderr
  words = (film, '--run', made, '--output', tmp_path / 'changed')
  done = run(*words, module='avjax.predict', env=CHANGED)
  assert (done.returncode, done.stderr) == (0, '')
  assert rows(tmp_path / 'changed/clip.csv') == rows(tmp_path / 'usual/clip.csv')
  done = run(made, '--output', tmp_path / 'model', module='avjax.export', env=CHANGED)
  assert (done.returncode, done.stderr) == (0, '')
  assert call('--check', tmp_path / 'model', module='avjax.export').returncode == 0


def test_the_library_neither_follows_nor_changes_the_settings_of_its_host(made, film):
  usual = avjax.predict_video(film, made)
  host = {'jax_enable_x64': True, 'jax_numpy_dtype_promotion': 'strict'}
  before = {name: getattr(jax.config, name) for name in host}
  try:
    for name, value in host.items():
      jax.config.update(name, value)
    found = avjax.predict_video(film, made)
    assert {name: getattr(jax.config, name) for name in host} == host
    assert jax.numpy.ones(1).dtype == np.float64
  finally:
    for name, value in before.items():
      jax.config.update(name, value)
  for target, values in usual.predictions.items():
    np.testing.assert_array_equal(found.predictions[target], values)


@pytest.mark.slow
def test_commands_compile_as_users_have_them(made, film, tmp_path):
  """Without XLA_FLAGS, of which the tests set some, programs are compiled at the second level."""
  plain = {'XLA_FLAGS': ''}
  done = run(film, '--run', made, '--output', tmp_path / 'out', module='avjax.predict', env=plain)
  assert (done.returncode, done.stderr) == (0, '')
  done = run(made, '--output', tmp_path / 'model', module='avjax.export', env=plain)
  assert (done.returncode, done.stderr) == (0, '')
  done = run('--check', tmp_path / 'model', module='avjax.export', env=plain)
  assert (done.returncode, done.stderr) == (0, '')


def no_device(made, film, records, tmp_path):
  """Commands that use JAX, with arguments that they accept."""
  new = tmp_path / 'new'
  return {
    'avjax.main': flags(new, records),
    'avjax.evaluate': [made],
    'avjax.predict': [film, '--run', made, '--output', new],
    'avjax.export': [made, '--output', new],
    'avjax.pretrained': ['ir50', '--source', film, '--output', new],
  }


@pytest.mark.parametrize(
  'module', ['avjax.main', 'avjax.evaluate', 'avjax.predict', 'avjax.export', 'avjax.pretrained']
)
def test_a_platform_that_is_not_there(made, film, records, tmp_path, module):
  words = no_device(made, film, records, tmp_path)[module]
  done = run(*words, module=module, env={'JAX_PLATFORMS': 'cuda', 'CUDA_VISIBLE_DEVICES': ''})
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr == (
    'error: JAX finds no device with JAX_PLATFORMS=cuda CUDA_VISIBLE_DEVICES=; '
    'this machine has cpu: name one of these, or unset the variable\n'
  )
  assert not (tmp_path / 'new').exists()


@pytest.mark.parametrize(
  'variables, words',
  [
    ({'JAX_PLATFORMS': 'ccpu'}, ['JAX_PLATFORMS=ccpu;', 'this machine has cpu:']),
    ({'JAX_PLATFORMS': 'tpu'}, ['JAX_PLATFORMS=tpu (', 'libtpu', 'this machine has cpu:']),
    ({'JAX_PLATFORMS': '', 'JAX_PLATFORM_NAME': 'gpu'}, ['JAX_PLATFORM_NAME=gpu (', 'has cpu:']),
    ({'JAX_DEFAULT_DEVICE': 'gpu'}, ['JAX_DEFAULT_DEVICE=gpu (', 'this machine has cpu:']),
    ({'JAX_ENABLE_X64': 'maybe'}, ['JAX does not start: ', "'maybe'", 'JAX_ENABLE_X64']),
    ({'JAX_NUMPY_DTYPE_PROMOTION': 'lax'}, ['JAX does not start: ', 'lax', 'dtype_promotion']),
    ({'XLA_FLAGS': '--xla_nonsense=1'}, ['XLA_FLAGS: ', '--xla_nonsense=1; correct it']),
    ({'XLA_FLAGS': '--xla_backend_optimization_level=x'}, ['XLA_FLAGS: ', 'value x for flag xla']),
    ({'XLA_FLAGS': 'nonsense'}, ['XLA_FLAGS: ', 'Could not open file "nonsense"']),
  ],
)
def test_a_value_that_jax_does_not_take(film, tmp_path, variables, words):
  new = tmp_path / 'new'
  arguments = ('ir50', '--source', film, '--output', new)
  done = run(*arguments, module='avjax.pretrained', env=variables)
  assert done.returncode == 2 and one_line(done.stderr), done.stderr
  assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.slow
def test_no_home_and_a_cache_that_cannot_be_written(made, film, tmp_path):
  """As in a container under a user without a home folder; no folder called ~ is made."""
  home = '/proc/nowhere' if os.path.exists('/proc') else '/dev/null'
  variables = dict.fromkeys(('HOME', 'XDG_CACHE_HOME', 'JAX_COMPILATION_CACHE_DIR'), home)
  words = (film, '--run', made, '--output', tmp_path / 'out')
  done = run(
    *words, module='avjax.predict', cwd=tmp_path, env={**variables, 'PYTHONDONTWRITEBYTECODE': '1'}
  )
  assert (done.returncode, done.stderr) == (0, '')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['out']


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, value',
  [('HOME', ''), ('XDG_CACHE_HOME', '/dev/null'), ('NUMBA_CACHE_DIR', '/dev/null')],
)
def test_a_user_whom_the_system_does_not_know(made, film, tmp_path, name, value):
  """As under a number that has no name, in an installation that cannot be written."""
  (tmp_path / 'site').mkdir()
  (tmp_path / 'site/sitecustomize.py').write_text(
    'import pwd\n\n\ndef unknown(number):\n  raise KeyError(number)\n\n\npwd.getpwuid = unknown\n'
  )
  variables = {
    'PYTHONPATH': f'{ROOT}:{tmp_path / "site"}',
    # not librosa's own folder
    'NUMBA_CACHE_LOCATOR_CLASSES': 'UserProvidedCacheLocator,UserWideCacheLocator',
    'HOME': str(tmp_path),
    name: value,
  }
  (tmp_path / 'here').mkdir()
  words = (film, '--run', made, '--output', tmp_path / 'out')
  done = run(*words, module='avjax.predict', cwd=tmp_path / 'here', env=variables)
  assert (done.returncode, done.stderr) == (0, '')
  assert not list((tmp_path / 'here').iterdir())


@pytest.mark.slow
def test_a_backend_of_notebooks_is_passed_over(made, film, tmp_path):
  """Notebooks hand on in MPLBACKEND what they draw with, also where it is not installed."""
  done = run(film, '--run', made, '--output', tmp_path / 'out', module='avjax.predict',
             env={'MPLBACKEND': 'module://a_notebook.that_is_not_here'})  # fmt: skip
  assert (done.returncode, done.stderr) == (0, '')


@pytest.mark.parametrize('module', ['avjax.predict', 'avjax.evaluate', 'data_prep.verify'])
def test_no_folder_for_temporary_files(module):
  """As in a container of which nothing may be written; libraries would fail in the middle."""
  program = (
    'import runpy, sys, tempfile; tempfile._candidate_tempdir_list = lambda: ["/dev/null"]; '
    f'runpy.run_module({module!r}, run_name="__main__")'
  )
  done = started(['-c', program], capture_output=True)
  assert (done.returncode, done.stdout) == (2, '')
  assert done.stderr == (
    'error: no folder for temporary files can be written; name one by TMPDIR\n'
  )


@pytest.mark.slow
def test_a_terminal_that_knows_ascii_only(made, film, tmp_path):
  shutil.copytree(made, tmp_path / 'Läufe')
  shutil.copy(film, tmp_path / 'Straße.mp4')
  words = (tmp_path / 'Straße.mp4', '--run', made, '--output', tmp_path / 'Größe')
  done = run(*words, module='avjax.predict', env=ASCII)
  assert (done.returncode, done.stderr) == (0, '')
  assert {path.suffix for path in (tmp_path / 'Größe').iterdir()} == {'.csv', '.png', '.html'}
  done = run(tmp_path / 'Läufe', '--output', tmp_path / 'new', module='avjax.export', env=ASCII)
  assert done.returncode == 2 and one_line(done.stderr), done.stderr
  assert 'is not written in ascii' in done.stderr and 'set PYTHONUTF8=1' in done.stderr


@pytest.fixture
def submission(tmp_path):
  (tmp_path / 'file.txt').write_text('image_location,valence,arousal\na/00001.jpg,0.5,0.5\n')
  return ['-m', 'avjax.submission', tmp_path / 'file.txt', '--template', tmp_path / 'file.txt']


def started(words, **streams):
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  return subprocess.run([sys.executable, *words], env=environment, text=True, **streams)


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_reader_that_has_gone(submission, monkeypatch, unbuffered):
  """As after `| head`: the command ends quietly."""
  monkeypatch.setenv('PYTHONUNBUFFERED', unbuffered)
  reader, writer = os.pipe()
  os.close(reader)
  done = started(submission, stdout=writer, stderr=subprocess.PIPE)
  os.close(writer)
  assert (done.returncode, done.stderr) == (141, '')


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='no device that is always full')
def test_an_output_that_is_full(submission):
  with open('/dev/full', 'w') as full:
    done = started(submission, stdout=full, stderr=subprocess.PIPE)
  assert done.returncode == 2
  assert done.stderr == ('error: the output: No space left on device; make room and start again\n')


def test_streams_that_are_closed(submission, tmp_path):
  """No file gets the number of a closed stream, under which libraries print."""
  words = ' '.join(map(str, [sys.executable, *submission]))
  environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
  done = subprocess.run(f'{words} <&- >&- 2>&-', shell=True, env=environment)
  assert done.returncode == 0
  program = (
    'import os; from avjax import errors; '
    'errors.run_command(lambda: [os.fstat(i) for i in range(3)] and 0)'
  )
  command = f'{sys.executable} -c "{program}" <&- >&- 2>&-'
  assert subprocess.run(command, shell=True, env=environment).returncode == 0


@pytest.mark.parametrize(
  'words, address',
  [
    (['--workdir=s3://bucket/run', '--config=configs/grjca.py'], 's3://bucket/run'),
    (['--config.data.dir=S3://bucket/records'], 'S3://bucket/records'),
    (['clip.mp4', '--run', 'https://host/run', '--output', 'out'], 'https://host/run'),
  ],
)
def test_what_is_on_another_machine_is_refused(words, address, monkeypatch, capsys):
  """A path of that name would be a folder of this machine, and vanish with it. Nothing is run."""
  monkeypatch.setattr('sys.argv', ['command', *words])
  with pytest.raises(SystemExit) as ended:
    errors.run_command(lambda: pytest.fail('the command was run'))
  found = capsys.readouterr().err
  assert ended.value.code == 2 and found.startswith(f'error: {address} is not on this machine')
  assert found.count('\n') == 1


@pytest.mark.parametrize(
  'words, taken',
  [
    (['--workdir=gs://bucket/run'], True),
    (['--workdir', 'gs://bucket/run'], True),
    (['-workdir=gs://bucket/run'], True),
    (['--output=gs://bucket/run'], False),
    (['--output', 'gs://bucket/run'], False),
    (['gs://bucket/run'], False),
    (['--workdir=run', 'gs://bucket/run'], False),
    (['--workdir=GS://bucket/run'], False),
    (['--workdir=s3://bucket/run'], False),
    (['--config=configs/grjca.py:x=gs://bucket/run'], False),
  ],
)
def test_which_options_take_an_address(words, taken, monkeypatch, capsys):
  """Only those that a command names, and only of Google Cloud Storage."""
  monkeypatch.setattr('sys.argv', ['command', *words])
  with pytest.raises(SystemExit) as ended:
    errors.run_command(lambda: 0, buckets=('--workdir',))
  assert ended.value.code == (0 if taken else 2)
  assert taken or 'is not on this machine' in capsys.readouterr().err
  if words[0].startswith('gs'):
    errors.check_addresses(words, buckets=('',))


def test_a_path_with_colons_is_no_address(monkeypatch):
  monkeypatch.setattr('sys.argv', ['command', '--workdir=a:/b', 'configs/grjca.py:mini', 'x//y:z'])
  with pytest.raises(SystemExit) as ended:
    errors.run_command(lambda: 0)
  assert ended.value.code == 0
