"""The folder of a run: its config, its versions, and the refusal to mix two runs.

workdir/config.json, versions.json, metrics.jsonl, events.out.tfevents.*, train.log, checkpoints/, predictions/*.csv,
results_<partition>.json, curves.png, traces_<partition>.png.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import platform

from ml_collections import ConfigDict

import avjax
from avjax.config import flatten
from data_prep.errors import InputError

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
FREE = ('data.dir',)  # may differ between two starts of one run


def open_run(config, workdir, manifest):
  """Creates workdir, or checks that the run it holds has this config and these records. InputError if it has others."""
  workdir = pathlib.Path(workdir)
  config = json.loads(config.to_json())
  records = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / 'config.json'
    if path.exists():
      old, new = flatten(read_json(path)), flatten(config)
      changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in FREE]
      if changed:
        raise InputError(f'{workdir} holds a run with another config (changed: {", ".join(changed[:8])}); '
                         'use another --workdir, or the config it was started with')
      if read_json(workdir / 'versions.json').get('records') != records:
        raise InputError(f'{workdir} holds a run on other records; use another --workdir or its --config.data.dir')
      return
    begun = {'versions.json', 'versions.json.partial', 'config.json.partial'}  # all that a kill just below can leave
    if {entry.name for entry in workdir.iterdir()} - begun:
      raise InputError(f'{workdir} is not empty and holds no run of avjax; use another --workdir')
    versions = {'avjax': avjax.__version__, 'python': platform.python_version(), **{p: importlib.metadata.version(p) for p in PACKAGES}}
    write_json(workdir / 'versions.json', {**versions, 'records': records})
    write_json(path, config)  # last: it marks the folder as a run
  except OSError as error:
    raise InputError(f'--workdir {workdir}: {error.strerror}') from error


def read_config(workdir):
  """The ConfigDict of the run in workdir. InputError if there is none."""
  return ConfigDict(read_json(pathlib.Path(workdir) / 'config.json'))


def read_json(path):
  """What a JSON file of a run holds; InputError where it is missing or damaged."""
  try:
    return json.loads(pathlib.Path(path).read_text())
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}; is its folder the --workdir of a run?') from error
  except ValueError as error:
    raise InputError(f'{path} is damaged: {error}') from error


def write_json(path, value):
  """Writes JSON in one step: a reader sees all of it or the old file."""
  partial = path.with_name(path.name + '.partial')
  partial.write_text(json.dumps(value, indent=1) + '\n')
  partial.replace(path)
