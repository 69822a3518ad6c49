"""Manages the folder of a run: names its files, keeps its config, and keeps two runs apart.

TensorBoard's events.out.tfevents.* are there too, under names that it chooses.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

from ml_collections import ConfigDict

import avjax
from avjax import files
from avjax.config import flatten
from avjax.errors import InputError, on_disk
from avjax.runs import settings
from avjax.system import precision_of, sharding

# Files and folders under the folder of a run; those of one split are named by the functions below.
CONFIG = 'config.json'
VERSIONS = 'versions.json'
METRICS = 'metrics.jsonl'
LOG = 'train.log'
CHECKPOINTS = 'checkpoints'
CURVES = 'curves.png'
REPORT = 'report.html'

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
# Keys that may change between two starts of one run: its records may have been moved, and its
# system may be described in other words.
KEYS_FREE_TO_CHANGE = ('data.dir', 'system')
# What a fork must have in common with the run whose state it takes: prefixes of keys.
KEYS_OF_THE_STATE = ('model.', 'targets', 'fold', 'data.', 'crop', 'unfreezing.')


def results_name(split: str) -> str:
  """Names the scores of a split ('validation' or 'test')."""
  return f'results_{split}.json'


def predictions_name(split: str) -> str:
  """Names the folder with the predictions of a split, one CSV per clip."""
  return f'predictions/{split}'


def traces_name(split: str) -> str:
  """Names the figure of predictions and labels of a split over time."""
  return f'traces_{split}.png'


def check_folder(config: ConfigDict, workdir: str | pathlib.Path, manifest: dict) -> None:
  """Raises InputError unless workdir is new, empty, or holds a run with this config and records."""
  workdir = pathlib.Path(workdir)
  check_name(workdir)
  try:
    if (workdir / CONFIG).exists():
      changed = changed_keys(read_settings(workdir), json.loads(config.to_json()))
      if changed:
        raise InputError(
          f'{workdir} holds a run with another config (changed: {", ".join(changed[:8])}); '
          'use another --workdir, or the config it was started with'
        )
      if read_versions(workdir).get('records') != json_sha256(manifest):
        raise InputError(
          f'{workdir} holds a run on other records; use another --workdir or its --config.data.dir'
        )
    # If open_folder was killed, it can have left VERSIONS and nothing else.
    elif workdir.exists() and {entry.name for entry in files.visible(workdir)} - {VERSIONS}:
      raise InputError(f'{workdir} is not empty and holds no run of avjax; use another --workdir')
  except OSError as error:
    raise InputError(f'--workdir {on_disk(workdir)}: {error.strerror}') from error


def check_name(workdir: str | pathlib.Path) -> None:
  """Raises InputError for a path that is no text to Python, and that TensorStore cannot open."""
  try:
    str(pathlib.Path(workdir).absolute()).encode()
  except UnicodeEncodeError as error:
    raise InputError(
      f'{workdir} is not written in {sys.getfilesystemencoding()}, as file names are here; '
      'set PYTHONUTF8=1, or rename the folder'
    ) from error


def locked(workdir: str | pathlib.Path) -> contextlib.AbstractContextManager:
  """Returns a context manager that locks the folder of a run against a second start.

  Only the primary process takes the lock.
  """
  if not sharding.is_primary():
    return contextlib.nullcontext()
  return files.locked(workdir, busy=f'another process is training in {workdir}')


def open_folder(
  config: ConfigDict, workdir: str | pathlib.Path, manifest: dict, origins: dict[str, dict]
) -> None:
  """Makes workdir the folder of this run, unless it already is.

  Args:
    config: of the run.
    workdir: folder to make, or one that `check_folder` has accepted.
    manifest: of the records.
    origins: {part: metadata of the weights that it starts from}.
  """
  workdir = pathlib.Path(workdir)
  if not sharding.is_primary():
    return
  files.remove_abandoned(workdir)
  if (workdir / CONFIG).exists():
    return
  packages = {name: importlib.metadata.version(name) for name in PACKAGES}
  versions = {
    'avjax': avjax.__version__,
    'python': platform.python_version(),
    **packages,
    'records': json_sha256(manifest),
    'init': origins,
  }
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / VERSIONS, versions)
    # The config comes last: it marks the folder as a run.
    files.write_json(workdir / CONFIG, json.loads(config.to_json()))
  except OSError as error:
    raise InputError(f'--workdir {on_disk(workdir)}: {error.strerror}') from error


def json_sha256(mapping: dict) -> str:
  """Returns the SHA-256 of a mapping as JSON, whatever the order of its keys."""
  return hashlib.sha256(json.dumps(mapping, sort_keys=True).encode()).hexdigest()


def changed_keys(old: dict, new: dict) -> list[str]:
  """Returns the flattened keys in which two configs, as nested dicts, differ.

  Those in KEYS_FREE_TO_CHANGE do not count, and a config of a run that is older than
  config.precision has that of then.
  """
  old, new = (flatten({**config, 'precision': precision_of(config)}) for config in (old, new))
  return [
    key
    for key in sorted(old.keys() | new.keys())
    if old.get(key) != new.get(key) and key not in KEYS_FREE_TO_CHANGE
  ]


def begun(workdir: str | pathlib.Path) -> bool:
  """Tells whether a run in workdir has saved a state, damaged or not.

  Raises OSError where that cannot be found out.
  """
  with contextlib.suppress(FileNotFoundError, NotADirectoryError):
    return any(name.isdigit() for name in os.listdir(pathlib.Path(workdir, CHECKPOINTS, 'last')))
  return False


def has_records(workdir: str | pathlib.Path, manifest: dict) -> bool:
  """Tells whether the run in workdir was trained on the records of this manifest.

  Raises InputError if there is no run.
  """
  read_settings(workdir)
  return read_versions(workdir).get('records') == json_sha256(manifest)


def check_fork(config: ConfigDict, other: str | pathlib.Path) -> tuple[list[str], dict]:
  """Raises InputError unless this config can continue the run in `other`, on the same records.

  Returns the keys in which it differs, and the origins of the weights it started from.
  """
  other = pathlib.Path(other)
  changed = changed_keys(read_settings(other), json.loads(config.to_json()))
  changed = [key for key in changed if key != 'resume' and not key.startswith('init.')]
  misfits = [key for key in changed if key.startswith(KEYS_OF_THE_STATE)]
  if misfits:
    raise InputError(
      f'config.resume={other}: its state does not fit, since {", ".join(misfits[:6])} changed; '
      f'to take only its weights, config.init.model={other}'
    )
  if not begun(other):
    raise InputError(f'config.resume={other}: it has saved no state yet')
  return changed, read_versions(other).get('init', {})


def read_config(workdir: str | pathlib.Path) -> ConfigDict:
  """Reads the config of the run in workdir; InputError if there is none."""
  return ConfigDict(read_settings(workdir))


def read_settings(workdir: str | pathlib.Path) -> dict:
  """Reads the config of the run in workdir as nested dicts; InputError if there is none.

  Every command that takes the folder of a run begins here. The folder may come from somebody else:
  InputError also if it holds a link (see `files.check_no_links`), or a setting whose type or size
  no config has.
  """
  files.check_no_links(workdir)
  path = pathlib.Path(workdir) / CONFIG
  config = files.read_json(path)
  if 'model' not in config:
    raise InputError(f'{path} is not a config of avjax')
  try:
    settings.check(config)
  except InputError as error:
    raise InputError(f'{path}: {error}') from error
  return config


def read_versions(workdir: str | pathlib.Path) -> dict:
  """Reads what a run was begun with: versions, the digest of its records, origins of its weights.

  Raises InputError if there is no such file, or if it holds anything but texts.
  """
  path = pathlib.Path(workdir) / VERSIONS
  versions = files.read_json(path)
  origins = versions.get('init', {})
  texts = [value for name, value in versions.items() if name != 'init']
  if isinstance(origins, dict) and all(
    isinstance(origin, dict) and origin.keys() >= {'architecture', 'source', 'source_sha256'}
    for origin in origins.values()
  ):
    texts += [text for origin in origins.values() for text in origin.values()]
    if all(isinstance(text, str) for text in texts):
      return versions
  raise InputError(f'{path} is damaged: it holds something else than texts')
