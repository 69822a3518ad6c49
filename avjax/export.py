"""Our weights out: python -m avjax.export RUN --output model/, and python -m avjax.export --check model/

A folder that needs no avjax: weights.safetensors, model.stablehlo (jax.export, for CPU, CUDA and TPU, any number of clips),
model.json (what goes in and out, the config, checksums) and README.md, a model card made from the run's own JSON.
"""

import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
from absl import logging
from flax import traverse_util
from jax import export as jax_export
from ml_collections import ConfigDict

import avjax
from avjax import evaluate, run, step, weights
from avjax.model_card import model_card
from avjax.models.audio_visual import FEATURES
from data_prep import errors
from data_prep.errors import InputError
from data_prep.records import MEL_BANDS, WINDOW_ROWS

PLATFORMS = ('cpu', 'cuda', 'tpu')
SAME, NEAR = 1e-5, 1e-3  # how far predictions may be from the run's: where they were written, and on another machine

# What reads the programs in the files that it is given and prints a line of JSON for each: why it is not run, or null.
READER = '''
import json, pathlib, resource, signal, sys
from jax import export
from jax.extend import mlir
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import chlo, stablehlo

def reaches_out(path):
  found, program = set(), export.deserialize(bytearray(pathlib.Path(path).read_bytes()))
  def visit(operation):
    name = operation.operation.name
    if name == 'stablehlo.custom_call':
      found.add(operation.attributes['call_target_name'].value)
    elif name in ('stablehlo.send', 'stablehlo.recv', 'stablehlo.infeed', 'stablehlo.outfeed'):
      found.add(name)
    return ir.WalkResult.ADVANCE
  with ir.Context() as context:
    stablehlo.register_dialect(context)
    chlo.register_dialect(context)
    mlir.deserialize_portable_artifact(program.mlir_module_serialized).operation.walk(visit)
  return sorted(found - {'shape_assertion'})

# A damaged length may ask for any time and memory. A program of ours takes a second and half a GiB, most of it JAX itself.
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
for path in sys.argv[1:]:
  signal.alarm(60)
  try:
    names = reaches_out(path)
    reason = f'calls {", ".join(map(repr, names))}, which no model of avjax does; it is not run' if names else None
  except Exception as error:
    reason = f'holds no StableHLO of jax.export: {error}'
  print(json.dumps(reason), flush=True)
'''


def inputs(config):
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


def exported(config, model, variables):
  """The prediction of `step.make_predict_step` as a jax.export.Exported of (weights, *inputs(config)).

  weights is flat, {'params/visual/...': array}, as the safetensors file is read. B clips and R rows are symbolic.
  """
  predict_step, fields = step.make_predict_step(config, model), inputs(config)

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


def example(config, clips=2):
  """Inputs by which an exported model can be tried anywhere: the same numbers on every machine."""
  rng, length, values = np.random.RandomState(0), config.data.length, []
  for name, (shape, dtype, _) in inputs(config).items():
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


def read_folder(folder):
  """(description, {name: array}, metadata of these) of an exported model. InputError where a file is not sound."""
  folder = pathlib.Path(folder)
  if not os.path.exists(folder / 'model.json'):
    raise InputError(f'{folder} holds no model.json: it is no model that python -m avjax.export wrote')
  with refused(f'{folder}/model.json is not of an exported model'):
    description = run.read_json(folder / 'model.json')
    checksums = {name: description['sha256'][name] for name in ('weights.safetensors', 'model.stablehlo')}
  for name, checksum in checksums.items():
    weights.check_readable(folder / name)
    if weights.sha256_of_file(folder / name) != checksum:
      raise InputError(f'{folder / name} is damaged: its SHA-256 is not the one in model.json; export or copy it again')
  return description, *weights.load(folder / 'weights.safetensors')


class Model:
  """An exported model: model(*inputs) -> {'prediction': (B,L,targets), 'gates': {name: (B,L,K)}}, inputs as in model.json.

  Raises InputError where a file of the folder is missing or not what model.json says.
  """

  def __init__(self, folder):
    folder = pathlib.Path(folder)
    self.description, self.weights, _ = read_folder(folder)
    self.exported = read_stablehlo(folder / 'model.stablehlo')

  def __call__(self, *inputs):
    return self.exported.call(self.weights, *inputs)

  def check(self, tolerance=NEAR):
    """Runs the model on `example`: the largest difference to the prediction that model.json keeps, InputError if > tolerance."""
    try:
      wanted = np.array(self.description['example'], float)
      found = np.asarray(self(*example(ConfigDict(self.description['config'])))['prediction'])
    except Exception as error:  # a description, weights and program that do not belong together fail in many ways
      raise InputError(f'the exported model does not run: {weights.brief(error)}') from error
    if found.shape != wanted.shape:
      raise InputError(f'the exported model predicts {list(found.shape)} where its model.json keeps {list(wanted.shape)}')
    difference = float(np.abs(found - wanted).max(initial=0))
    if not difference <= tolerance:  # nor where it is not a number
      raise InputError(f'the exported model does not predict what its run predicted: they differ by {difference:.1e}, '
                       f'more than {tolerance:g}')
    return difference


def read_stablehlo(path):
  """The jax.export.Exported in a file; InputError if it holds none, or one that calls out of XLA."""
  weights.check_readable(path)
  (reason,) = reasons_against([path])
  if reason:
    raise InputError(f'{path} {reason}')
  return jax_export.deserialize(bytearray(pathlib.Path(path).read_bytes()))


def reasons_against(paths):
  """Why the program in each file is not run, or None where nothing speaks against it.

  The parser is native code that a damaged file can crash, so it first runs in a process of its own.
  """
  reasons = []
  while len(reasons) < len(paths):
    child = subprocess.run([sys.executable, '-P', '-c', READER, *map(str, paths[len(reasons):])], capture_output=True,
                           text=True, errors='replace')  # it may complain in bytes of the file
    reasons += map(json.loads, child.stdout.splitlines())
    if len(reasons) < len(paths):  # it died of the next one
      reasons.append(f'holds no StableHLO of jax.export: its parser ended with {child.returncode} {child.stderr[-60:]}')
  return [reason and weights.brief(reason) for reason in reasons]


@contextlib.contextmanager
def refused(what):
  """Turns what a file raises that holds other things than it should into an InputError that begins with `what`."""
  try:
    yield
  except InputError:
    raise
  except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
    raise InputError(f'{what}: {"it lacks " if isinstance(error, KeyError) else ""}{weights.brief(error)}') from error


def write(workdir, output):
  """Exports the best checkpoint of a run to a new folder; returns its largest difference to the run's own prediction.

  InputError if that is more than SAME: such a model is not published.
  """
  workdir = pathlib.Path(workdir)
  weights.check_free(output)
  config, model, variables, meta = evaluate.best(workdir)
  expected = step.make_predict_step(config, model)(variables, dict(zip(inputs(config), example(config))))['prediction']
  flat = {name: np.asarray(x) for name, x in traverse_util.flatten_dict(variables, sep='/').items()}
  metadata = {'architecture': 'model', 'source': workdir.resolve().name, 'source_sha256': weights.digest(flat, {}),
              'licence': 'that of the data it was trained on; see README.md', 'avjax': avjax.__version__,
              'targets': ','.join(config.targets), 'config': config.to_json()}
  with refused(f'{workdir} holds no sound versions.json or results_validation.json'):
    description = {
        'targets': list(config.targets), 'range': [-1, 1], 'best_epoch': meta['epoch'], 'validation_ccc': meta['ccc'],
        'inputs': {name: f'{np.dtype(dtype)} ({", ".join(map(str, shape))}), {what}' for name, (shape, dtype, what) in inputs(config).items()},
        'example': np.asarray(expected, float).tolist(), 'platforms': list(PLATFORMS),
        'versions': {**run.read_json(workdir / 'versions.json'), 'avjax': avjax.__version__},
        'config': json.loads(config.to_json())}
    card = model_card(workdir, description)
  with weights.in_one_step(output) as partial:
    partial.mkdir()
    weights.save(partial / 'weights.safetensors', flat, metadata)
    (partial / 'model.stablehlo').write_bytes(exported(config, model, variables).serialize())
    description['sha256'] = {name: weights.sha256_of_file(partial / name) for name in ('weights.safetensors', 'model.stablehlo')}
    run.write_json(partial / 'model.json', description)
    (partial / 'README.md').write_text(card)
    return Model(partial).check(SAME)


def main(argv):
  """Writes the best checkpoint of a run as a folder that other programs can load, or checks such a folder on this machine."""
  parser = argparse.ArgumentParser(prog='python -m avjax.export', description=main.__doc__)
  parser.add_argument('run', metavar='RUN', nargs='?', help='folder of a run (the --workdir it was trained with)')
  parser.add_argument('--output', help='folder to write; must not exist or be empty')
  parser.add_argument('--check', metavar='MODEL', help='instead: a folder that was exported')
  parser.add_argument('--tolerance', type=float, default=NEAR, help='of --check, in the unit of predictions')
  arguments = parser.parse_args(argv[1:])
  logging.set_verbosity(logging.ERROR)
  if bool(arguments.check) == bool(arguments.run) or bool(arguments.run) != bool(arguments.output):
    raise InputError('give RUN and --output MODEL to export, or --check MODEL alone')
  if arguments.check:
    folder, difference = pathlib.Path(arguments.check), Model(arguments.check).check(arguments.tolerance)
  else:
    folder, difference = pathlib.Path(arguments.output), write(arguments.run, arguments.output)
    for path in sorted(folder.iterdir()):
      print(f'{str(path):<40}{path.stat().st_size:>14,} bytes')
  print(f'{folder} runs here, on {jax.default_backend()}: its predictions differ from the run\'s by at most {difference:.1e}')


if __name__ == '__main__':
  errors.run(main, sys.argv)
