"""Our weights out: python -m avjax.export RUN --output model/, and python -m avjax.export --check model/

A folder that needs no avjax: weights.safetensors, model.stablehlo (jax.export, for CPU, CUDA and TPU, any number of clips),
model.json (what goes in and out, the config, checksums) and README.md, a model card made from the run's own JSON.
"""

import contextlib
import json
import os
import pathlib

import jax
import numpy as np
from flax import traverse_util
from jax import export as jax_export
from ml_collections import ConfigDict

import avjax
from avjax import errors, files
from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.errors import InputError
from avjax.models.audio_visual import FEATURES
from avjax.runs.load import load_best
from avjax.system import step
from avjax.weights import files as weight_files
from avjax.weights import stablehlo_check
from avjax.weights.model_card import model_card

PLATFORMS = ('cpu', 'cuda', 'tpu')
SAME_MACHINE, OTHER_MACHINE = 1e-5, 1e-3  # how far predictions may be from the run's: where they were written, and on another machine


def input_specs(config):
  """What the model of a config takes beside its weights, in order: {field of a record: (shape, dtype, what it is)}.

  'clips' and 'rows' in a shape stand for any number.
  """
  length, face = config.data.length, config.data.face
  fields = {
      'faces': (('clips', length, face, face, 3), np.uint8, 'RGB'),
      'log_mel': (('clips', 'rows', MEL_BANDS), np.float16, 'VGGish log-mel, 100 rows a second'),
      'starts': (('clips', length), np.int32, 'the row at which the window of each frame starts'),
      'real': (('clips', length), np.bool_, 'False on padding'),
      **{FEATURES + name: (('clips', length, width), np.float32, 'of another backbone') for name, width in config.data.features.items()}}
  return {name: fields[name] for name in step.input_fields(config)}


def export_program(config, model, variables):
  """The prediction of `step.make_predict_step` as a jax.export.Exported of (weights, *inputs(config)).

  weights is flat, {'params/visual/...': array}, as the safetensors file is read. B clips and R rows are symbolic.
  """
  predict_step, fields = step.make_predict_step(config, model), input_specs(config)

  def predict(flat, *values):
    return predict_step(traverse_util.unflatten_dict(flat, sep='/'), dict(zip(fields, values)))

  names = {'clips': [], 'rows': [f'rows >= {WINDOW_ROWS}']} if 'log_mel' in fields else {'clips': []}
  symbols = dict(zip(names, jax_export.symbolic_shape(', '.join(names), constraints=[bound for bounds in names.values() for bound in bounds])))
  arguments = [jax.ShapeDtypeStruct([symbols.get(size, size) for size in shape], dtype) for shape, dtype, _ in fields.values()]
  with nameless_sources():
    return jax_export.export(jax.jit(predict), platforms=PLATFORMS)(
        jax.eval_shape(lambda: traverse_util.flatten_dict(variables, sep='/')), *arguments)


@contextlib.contextmanager
def nameless_sources():
  """Keeps the paths of this machine's Python files, which JAX notes with every operation, out of a program."""
  settings = {'jax_traceback_in_locations_limit': 0, 'jax_hlo_source_file_canonicalization_regex': '.*'}
  before = {name: getattr(jax.config, name) for name in settings}
  try:
    for name, value in settings.items():
      jax.config.update(name, value)
    yield
  finally:
    for name, value in before.items():
      jax.config.update(name, value)


def example_inputs(config, clips=2):
  """Inputs by which an exported model can be tried anywhere: the same numbers on every machine."""
  rng, length, values = np.random.RandomState(0), config.data.length, []
  for name, (shape, dtype, _) in input_specs(config).items():
    shape = [{'clips': clips, 'rows': WINDOW_ROWS + length}.get(size, size) for size in shape]
    if name == 'faces':
      value = rng.randint(0, 256, shape)
    elif name == 'starts':
      value = np.tile(np.arange(length), (clips, 1))
    elif name == 'real':
      value = np.arange(length) < np.array([[length], [max(length // 2, 1)]])[:clips]
    else:
      value = rng.uniform(-4.6, 2, shape)
    values.append(value.astype(dtype))
  return values


def read_exported(folder):
  """(description, {name: array}, metadata of these) of an exported model. InputError where a file is not sound."""
  folder = pathlib.Path(folder)
  if not os.path.exists(folder / 'model.json'):
    raise InputError(f'{folder} holds no model.json: it is no model that python -m avjax.export wrote')
  with errors.as_input_error(f'{folder}/model.json is not of an exported model'):
    description = files.read_json(folder / 'model.json')
    checksums = {name: description['sha256'][name] for name in ('weights.safetensors', 'model.stablehlo')}
  for name, checksum in checksums.items():
    files.check_readable(folder / name)
    if weight_files.sha256_of_file(folder / name) != checksum:
      raise InputError(f'{folder / name} is damaged: its SHA-256 is not the one in model.json; export or copy it again')
  return description, *weight_files.load(folder / 'weights.safetensors')


class ExportedModel:
  """An exported model: model(*inputs) -> {'prediction': (B,L,targets), 'gates': {name: (B,L,K)}}, inputs as in model.json.

  Raises InputError where a file of the folder is missing or not what model.json says.
  """

  def __init__(self, folder):
    folder = pathlib.Path(folder)
    self.description, self.weights, _ = read_exported(folder)
    self.exported = stablehlo_check.read_stablehlo(folder / 'model.stablehlo')

  def __call__(self, *inputs):
    return self.exported.call(self.weights, *input_specs)

  def check(self, tolerance=OTHER_MACHINE):
    """Runs the model on `example`: the largest difference to the prediction that model.json keeps, InputError if > tolerance."""
    try:
      wanted = np.array(self.description['example'], float)
      found = np.asarray(self(*example_inputs(ConfigDict(self.description['config'])))['prediction'])
    except Exception as error:  # a description, weights and program that do not belong together fail in many ways
      raise InputError(f'the exported model does not run: {errors.one_line(error)}') from error
    if found.shape != wanted.shape:
      raise InputError(f'the exported model predicts {list(found.shape)} where its model.json keeps {list(wanted.shape)}')
    difference = float(np.abs(found - wanted).max(initial=0))
    if not difference <= tolerance:  # nor where it is not a number
      raise InputError(f'the exported model does not predict what its run predicted: they differ by {difference:.1e}, '
                       f'more than {tolerance:g}')
    return difference


def export_run(workdir, output):
  """Exports the best checkpoint of a run to a new folder; returns its largest difference to the run's own prediction.

  InputError if that is more than SAME: such a model is not published.
  """
  workdir = pathlib.Path(workdir)
  files.check_free(output)
  config, model, variables, meta = load_best(workdir)
  expected = step.make_predict_step(config, model)(variables, dict(zip(input_specs(config), example_inputs(config))))['prediction']
  flat = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(variables, sep='/').items()}
  metadata = {'architecture': 'model', 'source': workdir.resolve().name, 'source_sha256': weight_files.digest(flat, {}),
              'licence': 'that of the data it was trained on; see README.md', 'avjax': avjax.__version__,
              'targets': ','.join(config.targets), 'config': config.to_json()}
  with errors.as_input_error(f'{workdir} holds no sound versions.json or results_validation.json'):
    description = {
        'targets': list(config.targets), 'range': [-1, 1], 'best_epoch': meta['epoch'], 'validation_ccc': meta['ccc'],
        'inputs': {name: f'{np.dtype(dtype)} ({", ".join(map(str, shape))}), {what}' for name, (shape, dtype, what) in input_specs(config).items()},
        'example': np.asarray(expected, float).tolist(), 'platforms': list(PLATFORMS),
        'versions': {**files.read_json(workdir / 'versions.json'), 'avjax': avjax.__version__},
        'config': json.loads(config.to_json())}
    card = model_card(workdir, description)
  with files.in_one_step(output) as partial:
    partial.mkdir()
    weight_files.save(partial / 'weights.safetensors', flat, metadata)
    (partial / 'model.stablehlo').write_bytes(export_program(config, model, variables).serialize())
    description['sha256'] = {name: weight_files.sha256_of_file(partial / name) for name in ('weights.safetensors', 'model.stablehlo')}
    files.write_json(partial / 'model.json', description)
    (partial / 'README.md').write_text(card)
    return ExportedModel(partial).check(SAME_MACHINE)
