"""Checks the StableHLO program of an exported model before it is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from jax import export as jax_export
from jax.extend import mlir
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import chlo, stablehlo

from avjax import bounded
from avjax.errors import InputError, one_line

TRANSFERS = ('stablehlo.send', 'stablehlo.recv', 'stablehlo.infeed', 'stablehlo.outfeed')
NO_PROGRAM = 'holds no StableHLO of jax.export'


def read_stablehlo(program: bytes, name: str) -> jax_export.Exported:
  """Reads a program; InputError if it is none, or if it calls code outside XLA.

  name: the file that it comes from, for messages.
  """
  (reason,) = reasons_against([program])
  if reason:
    raise InputError(f'{name} {reason}')
  return jax_export.deserialize(bytearray(program))


def reasons_against(programs: Sequence[bytes]) -> list[str | None]:
  """Returns for each program why it is not run, or None if it can be run.

  The parser is native code that a damaged file can crash, so it first runs in a child process.
  """
  reasons = []
  while len(reasons) < len(programs):
    rest = programs[len(reasons) :]
    sizes = [len(program) for program in rest]
    try:
      for header, _ in bounded.stream(
        check_programs, sizes, size=max(sizes), what='its parser', content=b''.join(rest)
      ):
        reasons.append(header['reason'])
    except InputError as error:  # it died of the next one
      reasons.append(f'{NO_PROGRAM}: {error}')
  return [reason and one_line(reason) for reason in reasons]


# What runs in the child.


def check_programs(sizes: list[int]) -> Iterator[bounded.Item]:
  """Yields ({'reason': why it is not run, or None}, nothing) for each program at standard input."""
  for size in sizes:
    yield {'reason': reason_against(sys.stdin.buffer.read(size))}, bounded.NOTHING


def reason_against(program: bytes) -> str | None:
  """Returns why a program is not run, or None if it can be run."""
  try:
    calls = ', '.join(map(repr, outside_calls(program)))
  except MemoryError:
    raise
  except Exception as error:  # whatever a damaged file makes the parser raise
    return f'{NO_PROGRAM}: {error}'
  return f'calls {calls}, which no model of avjax does; it is not run' if calls else None


def outside_calls(program: bytes) -> list[str]:
  """Returns the sorted names of what a program calls outside XLA."""
  found, exported = set(), jax_export.deserialize(bytearray(program))

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
    mlir.deserialize_portable_artifact(exported.mlir_module_serialized).operation.walk(visit)
  return sorted(found - {'shape_assertion'})
