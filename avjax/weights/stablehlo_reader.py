"""Reads StableHLO programs in files; prints a line of JSON for each: why it is not run, or null.

A script that is run in a process of its own and imports nothing of avjax: the parser is native
code, which a damaged file can crash. See stablehlo_check.py.
"""

from __future__ import annotations

import json
import pathlib
import resource
import signal
import sys

from jax import export
from jax.extend import mlir
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import chlo, stablehlo

# The most that a file may take. A program of ours takes a second and half a GiB, most of it JAX.
SECONDS, MEMORY = 60, 4 << 30
TRANSFERS = ('stablehlo.send', 'stablehlo.recv', 'stablehlo.infeed', 'stablehlo.outfeed')


def outside_calls(path: str) -> list[str]:
  """Returns the sorted names of what the program in a file calls outside XLA."""
  found, program = set(), export.deserialize(bytearray(pathlib.Path(path).read_bytes()))

  def visit(operation):
    name = operation.operation.name
    if name == 'stablehlo.custom_call':
      found.add(operation.attributes['call_target_name'].value)
    elif name in TRANSFERS:
      found.add(name)
    return ir.WalkResult.ADVANCE

  with ir.Context() as context:
    stablehlo.register_dialect(context)
    chlo.register_dialect(context)
    mlir.deserialize_portable_artifact(program.mlir_module_serialized).operation.walk(visit)
  return sorted(found - {'shape_assertion'})


def main(paths: list[str]) -> None:
  """Prints for each file why its program is not run, or null."""
  # A damaged length in a file may take any time and memory.
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
  for path in paths:
    signal.alarm(SECONDS)
    try:
      names = outside_calls(path)
      calls = ', '.join(map(repr, names))
      reason = f'calls {calls}, which no model of avjax does; it is not run' if names else None
    except Exception as error:  # whatever a damaged file makes the parser raise
      reason = f'holds no StableHLO of jax.export: {error}'
    print(json.dumps(reason), flush=True)


if __name__ == '__main__':
  main(sys.argv[1:])
