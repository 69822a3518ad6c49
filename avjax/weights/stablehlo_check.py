"""Our weights out: python -m avjax.export RUN --output model/, and python -m avjax.export --check model/

A folder that needs no avjax: weights.safetensors, model.stablehlo (jax.export, for CPU, CUDA and TPU, any number of clips),
model.json (what goes in and out, the config, checksums) and README.md, a model card made from the run's own JSON.
"""

import json
import pathlib
import subprocess
import sys

from jax import export as jax_export

from avjax import errors, files
from avjax.errors import InputError

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


def read_stablehlo(path):
  """The jax.export.Exported in a file; InputError if it holds none, or one that calls out of XLA."""
  files.check_readable(path)
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
  return [reason and errors.one_line(reason) for reason in reasons]
