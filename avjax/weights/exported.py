"""Exports a trained model to a folder that needs no avjax to run it, and reads such folders.

weights.safetensors  the weights
model.stablehlo      the prediction as jax.export writes it, for CPU, CUDA and TPU and any number
                     of windows
model.json           targets, inputs, an example, the config, versions and checksums
README.md            a model card made from the run's own JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import traverse_util
from jax import export as jax_export
from ml_collections import ConfigDict

import avjax
from avjax import files
from avjax.data.records import WINDOW_ROWS
from avjax.errors import InputError, as_input_error, one_line
from avjax.runs import folder as run_folder
from avjax.runs.load import load_best
from avjax.system import System
from avjax.system.inputs import Inputs
from avjax.targets import criterion, value_range
from avjax.weights import files as weight_files
from avjax.weights import stablehlo_check
from avjax.weights.model_card import model_card

WEIGHTS = 'weights.safetensors'
PROGRAM = 'model.stablehlo'
DESCRIPTION = 'model.json'

PLATFORMS = ('cpu', 'cuda', 'tpu')
# How far predictions may be from those of the run: on the machine that exports, and on another one.
SAME_MACHINE, OTHER_MACHINE = 1e-5, 1e-3


def export_program(system: System, variables: Any) -> jax_export.Exported:
  """Exports the prediction of a system as a program of (weights, *fields of `system.inputs`).

  weights is flat, {'params/visual/...': array}, as in the safetensors file. The numbers of windows
  (`clips`) and of log-mel rows are symbolic.
  """
  specs = system.inputs.specs()

  def predict(flat, *values):
    batch = dict(zip(specs, values, strict=True))
    return system.predict(traverse_util.unflatten_dict(flat, sep='/'), batch)

  sizes = ['clips', 'rows'] if 'log_mel' in specs else ['clips']
  bounds = [f'rows >= {WINDOW_ROWS}'] if 'log_mel' in specs else []
  symbols = jax_export.symbolic_shape(', '.join(sizes), constraints=bounds)
  symbols = dict(zip(sizes, symbols, strict=True))
  arguments = [
    jax.ShapeDtypeStruct([symbols.get(size, size) for size in shape], dtype)
    for shape, dtype, _ in specs.values()
  ]
  weights = jax.eval_shape(lambda: traverse_util.flatten_dict(variables, sep='/'))
  with nameless_sources():
    return jax_export.export(jax.jit(predict), platforms=PLATFORMS)(weights, *arguments)


@contextlib.contextmanager
def nameless_sources() -> Iterator[None]:
  """Keeps the paths of this machine's Python files out of a program.

  JAX records them with every operation.
  """
  settings = {
    'jax_traceback_in_locations_limit': 0,
    'jax_hlo_source_file_canonicalization_regex': '.*',
  }
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def example_inputs(inputs: Inputs, clips: int = 2) -> list[np.ndarray]:
  """Returns inputs to try an exported model with: `clips` windows, the same on every machine."""
  rng, length, values = np.random.RandomState(0), inputs.length, []
  for name, (shape, dtype, _) in inputs.specs().items():
    shape = [{'clips': clips, 'rows': WINDOW_ROWS + length}.get(size, size) for size in shape]
    if name == 'faces':
      value = rng.randint(0, 256, shape)
    elif name == 'starts':
      value = np.tile(np.arange(length), (clips, 1))
    elif name == 'real':
      lengths = np.array([[length], [max(length // 2, 1)]])[:clips]
      value = np.arange(length) < lengths
    else:
      value = rng.uniform(-4.6, 2, shape)
    values.append(value.astype(dtype))
  return values


def read_exported(
  folder: str | pathlib.Path,
) -> tuple[dict[str, Any], dict[str, np.ndarray], dict[str, str]]:
  """Returns (description, {name: array}, metadata of the arrays) of an exported model.

  Raises InputError for a damaged file.
  """
  folder = pathlib.Path(folder)
  if not os.path.exists(folder / DESCRIPTION):  # Path.exists raises if a name is too long
    raise InputError(
      f'{folder} holds no {DESCRIPTION}: it is not a model that python -m avjax.export wrote'
    )
  files.check_no_links(folder)
  with as_input_error(f'{folder}/{DESCRIPTION} is not of an exported model'):
    description = files.read_json(folder / DESCRIPTION)
    checksums = {name: description['sha256'][name] for name in (WEIGHTS, PROGRAM)}
  for name, checksum in checksums.items():
    files.check_readable(folder / name)
    if files.sha256(folder / name) != checksum:
      raise InputError(
        f'{folder / name} is damaged: its SHA-256 is not the one in {DESCRIPTION}; '
        'export or copy it again'
      )
  return description, *weight_files.load(folder / WEIGHTS)


class ExportedModel:
  """Runs an exported model: model(*inputs) -> {'prediction': (B,L,outputs), 'gates': {...}}.

  gates is {name: (B,L,K)}. The inputs are those that model.json lists. Raises InputError if a file
  of the folder is missing or not what model.json says.
  """

  def __init__(self, folder: str | pathlib.Path):
    folder = pathlib.Path(folder)
    self.description, self.weights, _ = read_exported(folder)
    self.exported = stablehlo_check.read_stablehlo(folder / PROGRAM)

  def __call__(self, *inputs: np.ndarray) -> dict[str, Any]:
    return self.exported.call(self.weights, *inputs)

  def check(self, tolerance: float | None = None) -> float:
    """Runs the model on `example_inputs` and compares it with the prediction in model.json.

    Returns their largest difference; raises InputError if that is more than the tolerance, by
    default OTHER_MACHINE.
    """
    tolerance = OTHER_MACHINE if tolerance is None else tolerance
    try:
      wanted = np.array(self.description['example'], float)
      inputs = System.from_config(ConfigDict(self.description['config'])).inputs
      found = np.asarray(self(*example_inputs(inputs))['prediction'])
    # A description, weights and program that do not belong together fail in many ways.
    except Exception as error:
      raise InputError(f'the exported model does not run: {one_line(error)}') from error
    if found.shape != wanted.shape:
      raise InputError(
        f'the exported model predicts an array of shape {list(found.shape)}, '
        f'but its {DESCRIPTION} has one of {list(wanted.shape)}'
      )
    difference = float(np.abs(found - wanted).max(initial=0))
    if not difference <= tolerance:  # true for NaN, too
      raise InputError(
        'the exported model does not predict what its run predicted: '
        f'they differ by {difference:.1e}, more than {tolerance:g}'
      )
    return difference


def export_run(workdir: str | pathlib.Path, output: str | pathlib.Path) -> float:
  """Exports the best checkpoint of a run to a new folder.

  Returns the largest difference of its prediction to the run's own. Raises InputError if that is
  more than SAME_MACHINE; then nothing is written.
  """
  workdir = pathlib.Path(workdir)
  files.check_free(output)
  config, system, variables, meta = load_best(workdir)
  example = dict(zip(system.inputs.fields, example_inputs(system.inputs), strict=True))
  expected = system.predict_step(variables, example)['prediction']
  flat = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(variables, sep='/').items()}
  metadata = {
    'architecture': 'model',
    'source': workdir.resolve().name,
    'source_sha256': weight_files.digest(flat, {}),
    'licence': 'that of the data it was trained on; see README.md',
    'avjax': avjax.__version__,
    'targets': ','.join(config.targets),
    'config': config.to_json(),
  }
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
    return ExportedModel(partial).check(SAME_MACHINE)


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
