"""Starts runs, and reads what they leave behind."""

import contextlib
import hashlib
import importlib
import io
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from avjax import errors
from avjax.errors import InputError
from avjax.runs import checkpoint
from avjax.runs.folder import open_folder
from avjax.runs.load import load_best
from avjax.system import System

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / 'tests' / 'support' / 'tiny.py'


def flags(workdir, records, *overrides, config=TINY):
  return [f'--config={config}', f'--workdir={workdir}', f'--config.data.dir={records}', *overrides]


def run(*arguments, module='avjax.main', under=(), **options):
  """Runs python -m MODULE in a process of its own; options are subprocess.run's.

  `under` holds the words of another command, if any, that starts it.
  """
  environment = {**os.environ, 'PYTHONPATH': f'{ROOT}', **options.pop('env', {})}
  return subprocess.run(
    [*under, sys.executable, '-m', module, *map(str, arguments)],
    cwd=options.pop('cwd', ROOT),
    capture_output=True,
    text=True,
    env=environment,
    timeout=600,
    **options,
  )


def call(*arguments, module='avjax.main'):
  """Runs in this process what `run` runs, for starts that nothing kills.

  It saves the seconds that JAX and TensorFlow take to load.
  """
  argv, out, err = [module, *map(str, arguments)], io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(ROOT):
    try:
      errors.run_command(importlib.import_module(module).main, argv)
    except SystemExit as end:
      code = end.code or 0
  return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def drive(number, mark, arguments, **options):
  """Runs avjax.main in driver.py."""
  return subprocess.run(
    [
      sys.executable,
      str(ROOT / 'tests/fault/driver.py'),
      str(int(number)),
      mark,
      *map(str, arguments),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    timeout=600,
    **options,
  )


def made_run(folder, config, seed=3, origins=None, meta=None):
  """Makes the folder of a run as after training, with random parameters in its best checkpoint."""
  meta = meta or {'epoch': 0, 'ccc': 0.5}
  open_folder(config, folder, {'made': 'up'}, origins or {})
  variables = System.from_config(config).init(seed)
  checkpoints = checkpoint.Checkpoints(folder)
  checkpoints.save(checkpoints.best, meta['epoch'] + 1, variables, meta)
  checkpoints.close()
  return folder


def why_not_loaded(workdir):
  """Returns the one line with which the best state of a run is refused."""
  with pytest.raises(InputError) as refused:
    load_best(workdir)
  assert '\n' not in str(refused.value)
  return str(refused.value)


def final_state(workdir):
  """Returns the newest checkpoint of the state: all arrays, as NumPy's, and its metadata."""
  with ocp.CheckpointManager(
    pathlib.Path(workdir) / 'checkpoints' / 'last', item_names=('state', 'meta')
  ) as manager:
    restored = manager.restore(
      manager.latest_step(),
      args=ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore()),
    )
  return jax.tree.map(np.asarray, restored['state']), restored['meta']


def fingerprint(workdir):
  """Returns the SHA-256 of everything in the newest checkpoint.

  That is parameters, statistics, optimizer, schedule and place in the data.
  """
  state, meta = final_state(workdir)
  total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
  for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
    total.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
  return total.hexdigest()


def one_line(text):
  """Tells whether text is a single error line of avjax, without a traceback."""
  lines = text.strip().splitlines()
  return len(lines) == 1 and lines[0].startswith('error: ')


def files(folder):
  """Returns {relative path: bytes} of everything under a folder."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob('*'))
    if path.is_file()
  }
