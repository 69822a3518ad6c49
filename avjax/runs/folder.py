"""The folder of a run: its config, its versions, and the refusal to mix two runs.

workdir/config.json, versions.json, metrics.jsonl, events.out.tfevents.*, train.log, checkpoints/, predictions/*.csv,
results_<partition>.json, curves.png, traces_<partition>.png.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import pathlib
import platform

from ml_collections import ConfigDict

import avjax
from avjax import files
from avjax.config import flatten
from avjax.errors import InputError
from avjax.runs import checkpoint
from avjax.system import sharding

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
FREE = ('data.dir',)  # may differ between two starts of one run


def check_folder(config, workdir, manifest):
  """Raises InputError unless workdir is new or empty, or holds a run with this config and these records."""
  workdir = pathlib.Path(workdir)
  try:
    if (workdir / 'config.json').exists():
      changed = changed_keys(files.read_json(workdir / 'config.json'), json.loads(config.to_json()))
      if changed:
        raise InputError(f'{workdir} holds a run with another config (changed: {", ".join(changed[:8])}); '
                         'use another --workdir, or the config it was started with')
      if files.read_json(workdir / 'versions.json').get('records') != identity(manifest):
        raise InputError(f'{workdir} holds a run on other records; use another --workdir or its --config.data.dir')
    elif workdir.exists():
      begun = {'versions.json', 'versions.json.partial', 'config.json.partial'}  # all that a kill in open_folder can leave
      if {entry.name for entry in workdir.iterdir()} - begun:
        raise InputError(f'{workdir} is not empty and holds no run of avjax; use another --workdir')
  except OSError as error:
    raise InputError(f'--workdir {workdir}: {error.strerror}') from error


def locked(workdir):
  """A context that holds the folder of a run against a second start of it; only the primary process takes the lock."""
  if not sharding.is_primary():
    return contextlib.nullcontext()
  return files.locked(workdir, busy=f'another process is training in {workdir}')


def open_folder(config, workdir, manifest, origins):
  """Makes workdir the folder of this run, unless it is already. origins: {part: metadata of the weights it starts from}."""
  workdir = pathlib.Path(workdir)
  if (workdir / 'config.json').exists() or not sharding.is_primary():
    return
  versions = {'avjax': avjax.__version__, 'python': platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}}
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / 'versions.json', {**versions, 'records': identity(manifest), 'init': origins})
    files.write_json(workdir / 'config.json', json.loads(config.to_json()))  # last: it marks the folder as a run
  except OSError as error:
    raise InputError(f'--workdir {workdir}: {error.strerror}') from error


def identity(manifest):
  """A SHA-256 that stands for the records of a manifest."""
  return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def changed_keys(old, new):
  """The flattened keys in which two configs, as nested dicts, differ; those that are free to differ do not count."""
  old, new = flatten(old), flatten(new)
  return [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and key not in FREE]


def check_fork(config, other, manifest):
  """Raises InputError unless the run in `other` can go on under this config, on these records.

  Returns the keys in which it differs, and the origins of the weights it started from.
  """
  if any(config.init.values()):
    raise InputError('config.resume goes on from the state of a run: give no config.init with it')
  changed = changed_keys(files.read_json(pathlib.Path(other) / 'config.json'), json.loads(config.to_json()))
  changed = [key for key in changed if key != 'resume' and not key.startswith('init.')]
  fixed = [key for key in changed if key.startswith(('model.', 'targets', 'fold', 'data.', 'crop', 'unfreezing.'))]
  if fixed:
    raise InputError(f'config.resume={other}: its state does not fit another {", ".join(fixed[:6])}; '
                     'to take its weights alone, python -m avjax.export and config.init.model')
  versions = files.read_json(pathlib.Path(other) / 'versions.json')
  if versions.get('records') != identity(manifest):
    raise InputError(f'config.resume={other}: it was trained on other records, with which its best CCC cannot be compared')
  if not checkpoint.begun(other):
    raise InputError(f'config.resume={other}: it has saved no state yet')
  return changed, versions.get('init', {})


def read_config(workdir):
  """The ConfigDict of the run in workdir. InputError if there is none."""
  path = pathlib.Path(workdir) / 'config.json'
  config = files.read_json(path)
  if 'model' not in config:
    raise InputError(f'{path} is no config of avjax')
  return ConfigDict(config)
