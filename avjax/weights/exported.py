"""Exports a trained model to a folder that needs no avjax to run it, and reads such folders.

weights.safetensors  the weights
model.stablehlo      the prediction as jax.export writes it, for CPU, CUDA and TPU and any number
                     of windows
model.json           targets, inputs, an example, the config, versions and checksums
README.md            a model card made from the run's own JSON
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

import avjax
from avjax import bounded, command_line, files
from avjax.errors import InputError, as_input_error, one_line
from avjax.runs import folder as run_folder
from avjax.runs import settings
from avjax.runs.load import load_best
from avjax.system import System
from avjax.system.compilation import compile_bounded
from avjax.system.values import check_fit
from avjax.targets import criterion, value_range
from avjax.weights import files as weight_files
from avjax.weights import stablehlo_check
from avjax.weights.model_card import model_card
from avjax.weights.program import PLATFORMS, example_inputs, example_shapes, export_program

WEIGHTS = 'weights.safetensors'
PROGRAM = 'model.stablehlo'
DESCRIPTION = 'model.json'
MOST_PROGRAM = 64 << 20  # bytes; programs of ours have less than one

# How far predictions may be from those of the run: on the machine that exports, if it is a CPU, and
# elsewhere by the type in which the towers compute and by platform. GPUs round the operands of a
# tower's float32 products to TF32, TPUs to bfloat16.
SAME_CPU = 1e-5
EXACT = 'float32', 'cpu'
TOLERANCES = {EXACT: 1e-3, ('float32', 'gpu'): 1e-2}
OTHER_TOLERANCE = 3e-2


@dataclasses.dataclass
class Exported:
  """Holds what `read_exported` has read.

  description: what model.json says. system: the System of its config. weights: {name: array}.
  program: the bytes of model.stablehlo.
  """

  description: dict[str, Any]
  config: ConfigDict
  system: System
  weights: dict[str, np.ndarray]
  program: bytes


def read_exported(folder: str | pathlib.Path) -> Exported:
  """Reads the files of an exported model, without running anything.

  Raises InputError for a file that is missing, damaged or no file, for a folder that holds links,
  and for weights that are not those of its config, or not finite.
  """
  folder = pathlib.Path(folder)
  if not os.path.lexists(folder / DESCRIPTION):  # Path.exists raises if a name is too long
    raise InputError(
      f'{folder} holds no {DESCRIPTION}: it is not a model that python -m avjax.export wrote'
    )
  files.check_no_links(folder)
  invalid = f'{folder}/{DESCRIPTION} is not of an exported model'
  with as_input_error(invalid):
    description = files.read_json(folder / DESCRIPTION)
    checksums = {name: description['sha256'][name] for name in (WEIGHTS, PROGRAM)}
  files.check_readable(folder / WEIGHTS)
  files.check_readable(folder / PROGRAM)
  program = files.read_bytes(folder / PROGRAM, MOST_PROGRAM)
  found = {WEIGHTS: files.sha256(folder / WEIGHTS), PROGRAM: hashlib.sha256(program).hexdigest()}
  for name, checksum in checksums.items():
    if found[name] != checksum:
      raise InputError(
        f'{folder / name} is damaged: its SHA-256 is not the one in {DESCRIPTION}; '
        'export or copy it again'
      )
  weights, metadata = weight_files.load(folder / WEIGHTS)
  with as_input_error(invalid):
    if json.loads(metadata.get('config', 'null')) != description['config']:
      raise InputError(
        f'{folder}: {DESCRIPTION} has been changed: its config is not the one in {WEIGHTS}'
      )
    settings.check(description['config'])
    config = ConfigDict(description['config'])
    system = System.from_config(config)
    check_fit(str(folder / WEIGHTS), weights, system.shapes)
  return Exported(description, config, system, weights, program)


class ExportedModel:
  """Runs an exported model: model(*inputs) -> {'prediction': (B,L,outputs), 'gates': {...}}.

  gates is {name: (B,L,K)}. The inputs are those that model.json lists. Raises InputError if a file
  of the folder is missing or not what model.json says. The program runs in this process and without
  limits: `check_in_child` is what a stranger's model is tried with.
  """

  def __init__(self, folder: str | pathlib.Path):
    read = read_exported(folder)
    self.description, self.weights, self.system = read.description, read.weights, read.system
    path = pathlib.Path(folder) / PROGRAM
    self.exported = stablehlo_check.read_stablehlo(read.program, str(path))

  def __call__(self, *inputs: np.ndarray) -> dict[str, Any]:
    return self.exported.call(self.weights, *inputs)

  def run_example(self) -> Iterator[np.ndarray]:
    """Yields the prediction (1,L,outputs) of each window of `example_inputs`, one at a time."""
    inputs = list(example_inputs(self.system.inputs).values())
    for i in range(len(inputs[0])):
      try:
        yield np.asarray(self(*(x[i : i + 1] for x in inputs))['prediction'])
      # Weights and a program that do not belong together fail in many ways.
      except Exception as error:
        raise InputError(f'the exported model does not run: {one_line(error)}') from error

  def check(self, tolerance: float | None = None) -> float:
    """Runs the model on `example_inputs`, and returns what `compare` does."""
    return self.compare(list(self.run_example()), tolerance)

  def compare(self, windows: list[np.ndarray], tolerance: float | None) -> float:
    """Compares what `run_example` has yielded with the prediction in model.json.

    Returns their largest difference; raises InputError if that is more than the tolerance, by
    default the one of TOLERANCES, or if the prediction is not what a model gives.
    """
    if tolerance is None:
      tolerance = TOLERANCES.get(arithmetic(self.system), OTHER_TOLERANCE)
    try:
      wanted = np.array(self.description['example'], float)
      found = np.concatenate(windows)
    except Exception as error:  # whatever a description that is none makes NumPy raise
      raise InputError(f'the exported model does not run: {one_line(error)}') from error
    if found.shape != wanted.shape:
      raise InputError(
        f'the exported model predicts an array of shape {list(found.shape)}, '
        f'but its {DESCRIPTION} has one of {list(wanted.shape)}'
      )
    if found.dtype != np.float32 or not np.isfinite(found).all():
      raise InputError(
        f'the exported model predicts {found.dtype}, or values that are not finite, '
        'which no model of avjax does'
      )
    difference = float(np.abs(found - wanted).max(initial=0))
    if not difference <= tolerance:  # true for NaN, too
      raise InputError(
        'the exported model does not predict what its run predicted: '
        f'they differ by {difference:.1e}, more than {tolerance:g}'
      )
    return difference


def arithmetic(system: System) -> tuple[str, str]:
  """Returns the type in which the towers compute here, and the platform."""
  return system.model.tower_type, jax.default_backend()


def check_in_child(folder: str | pathlib.Path, tolerance: float | None) -> tuple[float, str]:
  """Checks an exported model as `ExportedModel.check` does, in a child process with limits.

  Returns the difference and the platform. A program may have a loop without an end, or take any
  memory, which nothing but running it tells. This process must not have started JAX, since some
  accelerators serve one process only.
  """
  paths = [os.path.join(folder, name) for name in (WEIGHTS, PROGRAM, DESCRIPTION)]
  size = sum(map(os.path.getsize, filter(os.path.isfile, paths)))
  *_, (found, _) = bounded.stream(
    check_steps,
    os.fspath(folder),
    tolerance,
    size=size,
    what=f'{folder} does not run: it',
    prepare=(command_line.start_jax,),
  )
  return found['difference'], found['platform']


def check_steps(folder: str, tolerance: float | None) -> Iterator[bounded.Item]:
  """Yields an item after each step of a check, the last one with its result. It runs in a child."""
  model, windows = ExportedModel(folder), []
  yield {}, bounded.NOTHING
  for window in model.run_example():
    windows.append(window)
    yield {}, bounded.NOTHING
  difference = model.compare(windows, tolerance)
  yield {'difference': difference, 'platform': jax.default_backend()}, bounded.NOTHING


def export_run(workdir: str | pathlib.Path, output: str | pathlib.Path) -> float:
  """Exports the best checkpoint of a run to a new folder.

  Returns the largest difference of its prediction to the run's own. Raises InputError if that is
  more than SAME_CPU, or than TOLERANCES on an accelerator or with towers in bfloat16; then nothing
  is written.
  """
  workdir = pathlib.Path(workdir)
  files.check_free(output)
  config, system, variables, meta = load_best(workdir)
  shapes = example_shapes(system.inputs)
  predict = compile_bounded(system.predict, system.shapes, shapes, model=str(workdir))
  expected = predict(variables, example_inputs(system.inputs))['prediction']
  flat = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(variables, sep='/').items()}
  metadata = describe_weights(workdir, config, flat)
  with as_input_error(
    f'{workdir} holds no valid {run_folder.VERSIONS} or {run_folder.results_name("validation")}'
  ):
    description = describe_export(workdir, config, system, meta, expected)
    card = model_card(workdir, description)
  with files.in_one_step(output) as partial:
    partial.mkdir()
    weight_files.save(partial / WEIGHTS, flat, metadata)
    (partial / PROGRAM).write_bytes(export_program(system, variables).serialize())
    description['sha256'] = {name: files.sha256(partial / name) for name in (WEIGHTS, PROGRAM)}
    files.write_json(partial / DESCRIPTION, description)
    (partial / 'README.md').write_text(card, encoding='utf-8')
    return ExportedModel(partial).check(SAME_CPU if arithmetic(system) == EXACT else None)


def describe_weights(
  workdir: pathlib.Path, config: ConfigDict, arrays: weight_files.Arrays
) -> weight_files.Metadata:
  """Returns the metadata of the weights of a run, {path: array}: where they come from."""
  return {
    'architecture': 'model',
    'source': workdir.resolve().name,
    'source_sha256': weight_files.digest(arrays, {}),
    'licence': 'that of the data it was trained on',
    'avjax': avjax.__version__,
    'targets': ','.join(config.targets),
    'config': config.to_json(),
  }


def describe_export(
  workdir: pathlib.Path, config: ConfigDict, system: System, meta: dict, example_prediction: Any
) -> dict[str, Any]:
  """Returns what model.json says, without the checksums of the files."""
  inputs = {
    name: f'{np.dtype(dtype)} ({", ".join(map(str, shape))}), {what}'
    for name, (shape, dtype, what) in system.inputs.specs().items()
  }
  versions = files.read_json(workdir / run_folder.VERSIONS)
  metric = criterion(config.targets)
  return {
    'targets': list(config.targets),
    'range': list(value_range(config.targets)),
    'best_epoch': meta['epoch'],
    f'validation_{metric}': meta[metric],
    'inputs': inputs,
    'example': np.asarray(example_prediction, float).tolist(),
    'platforms': list(PLATFORMS),
    'versions': {**versions, 'avjax': avjax.__version__},
    'config': json.loads(config.to_json()),
  }
