"""Loads the system of a run, and its best state."""

from __future__ import annotations

import contextlib
import pathlib
from typing import Any

import jax
from flax import traverse_util

from avjax.config import Config
from avjax.errors import InputError, as_input_error
from avjax.runs import folder as run_folder
from avjax.runs.checkpoint import Checkpoints, check_best
from avjax.system import System
from avjax.system.values import check_fit
from avjax.targets import criterion


def load_system(workdir: str | pathlib.Path) -> tuple[Config, System]:
  """Returns the config of the run in workdir and the system that it describes.

  Raises InputError if its config is not valid.
  """
  config = run_folder.read_config(workdir)
  with as_input_error(f'{workdir}/{run_folder.CONFIG} is not a valid config of a run'):
    try:
      system = System.from_config(config)
      _ = system.shapes  # sizes that do not fit together are found here
    except InputError as error:
      raise InputError(f'{workdir}/{run_folder.CONFIG}: {error}') from error
  return config, system


def restore_best(workdir: str | pathlib.Path, system: System) -> tuple[Any, dict]:
  """Returns (variables, meta) of the best checkpoint of a run.

  Raises InputError if it has none yet, or if its values are not finite.
  """

  def shapes(meta):
    check_best(meta, criterion(system.targets))
    return system.shapes

  with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
    variables, meta = checkpoints.restore_best(shapes)
  arrays = traverse_util.flatten_dict(jax.device_get(variables), sep='/')
  check_fit(f'the best checkpoint of {workdir}', arrays, system.shapes)
  return variables, meta


def load_best(workdir: str | pathlib.Path) -> tuple[Config, System, Any, dict]:
  """Returns (config, system, variables, meta) of the best checkpoint of a run.

  Raises InputError if it has none yet.
  """
  config, system = load_system(workdir)
  return config, system, *restore_best(workdir, system)
