"""Checks the StableHLO program of an exported model before it is run."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from jax import export as jax_export

from avjax import files
from avjax.errors import InputError, one_line

READER = pathlib.Path(__file__).with_name('stablehlo_reader.py')


def read_stablehlo(path: str | pathlib.Path) -> jax_export.Exported:
  """Reads the program in a file; InputError if there is none, or if it calls code outside XLA."""
  files.check_readable(path)
  (reason,) = reasons_against([path])
  if reason:
    raise InputError(f'{path} {reason}')
  return jax_export.deserialize(bytearray(pathlib.Path(path).read_bytes()))


def reasons_against(paths: Sequence[str | pathlib.Path]) -> list[str | None]:
  """Returns for each file why its program is not run, or None if it can be run.

  The parser is native code that a damaged file can crash, so it first runs in a process of its own.
  """
  reasons = []
  while len(reasons) < len(paths):
    # -P: Python does not import from the current folder, which may be a stranger's. Bytes that are
    # not text are replaced, since the child may print those of a file.
    command = [sys.executable, '-P', READER, *map(str, paths[len(reasons) :])]
    child = subprocess.run(command, capture_output=True, text=True, errors='replace', check=False)
    reasons += map(json.loads, child.stdout.splitlines())
    if len(reasons) < len(paths):  # it crashed on the next file
      reasons.append(
        'holds no StableHLO of jax.export: its parser ended with '
        f'{child.returncode} {child.stderr[-60:]}'
      )
  return [reason and one_line(reason) for reason in reasons]
