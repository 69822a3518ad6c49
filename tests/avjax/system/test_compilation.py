"""Compiled programs are kept for the next process, and nothing stands in the way of that."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import jax, jax.numpy as jnp
from avjax.system.compilation import keep_compiled_programs
hits = []
jax.monitoring.register_event_listener(
  lambda event, **extra: hits.append(event) if event.endswith('/cache_hits') else None
)
keep_compiled_programs()
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
print(float(jax.jit(lambda x: jnp.cos(x).sum())(jnp.ones(3))), len(hits) > 0)
"""


@pytest.fixture
def run(tmp_path):
  def run(**variables):
    known = ('JAX_COMPILATION_CACHE_DIR', 'XDG_CACHE_HOME')
    environment = {name: value for name, value in os.environ.items() if name not in known}
    done = subprocess.run(
      [sys.executable, '-c', PROGRAM],
      env={**environment, 'HOME': str(tmp_path), **variables},
      capture_output=True,
      text=True,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()

  return run


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no XDG_CACHE_HOME')
def test_the_second_process_finds_what_the_first_has_compiled(run, tmp_path):
  assert run() == ['1.6209068298339844', 'False']
  folders = list(tmp_path.glob('**/avjax/compiled/*'))
  assert len(folders) == 1 and len(list(folders[0].glob('*-cache'))) >= 1
  assert run() == ['1.6209068298339844', 'True']


def test_a_folder_of_the_users_own(run, tmp_path):
  run(JAX_COMPILATION_CACHE_DIR=str(tmp_path / 'mine'))
  assert not list(tmp_path.glob('**/compiled')) and list((tmp_path / 'mine').glob('*-cache'))


def test_nothing_is_kept_where_nothing_is_to_be_kept(run, tmp_path):
  run(JAX_COMPILATION_CACHE_DIR='')
  assert not list(tmp_path.rglob('*-cache'))


@pytest.mark.skipif(not os.path.exists('/proc/self'), reason='no file system that none may write')
def test_a_home_that_cannot_be_written_is_no_hindrance(run):
  assert run(XDG_CACHE_HOME='/proc/self') == ['1.6209068298339844', 'False']


def test_a_user_without_a_home_is_no_hindrance(run, tmp_path):
  (tmp_path / 'sitecustomize.py').write_text(
    'import pwd\n\n\ndef unknown(number):\n  raise KeyError(number)\n\n\npwd.getpwuid = unknown\n'
  )
  assert run(HOME='', PYTHONPATH=str(tmp_path)) == ['1.6209068298339844', 'False']
