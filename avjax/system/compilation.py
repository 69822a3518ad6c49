"""Compiles programs, and keeps them on disk, so that a command compiles only at its first start."""

import hashlib
import importlib.metadata
import math
import os
import pathlib
import platform
import warnings
from collections.abc import Callable
from typing import Any

import jax

from avjax import files
from avjax.bounded import memory_for
from avjax.errors import InputError

LARGEST = 4 << 30  # bytes of the folder; what was used longest ago is deleted first
SHORTEST = 0.1  # seconds of compilation that are worth keeping
LEVEL = 'xla_backend_optimization_level'


def jit(function: Callable, **arguments) -> Any:
  """Returns jax.jit(function, **arguments), compiled for a CPU at LLVM's second level.

  At XLA's default, the third, random numbers take eight times as long to compile, and nothing here
  runs faster. A level in XLA_FLAGS is kept.
  """
  chosen = LEVEL in os.environ.get('XLA_FLAGS', '') or jax.default_backend() != 'cpu'
  return jax.jit(function, compiler_options=None if chosen else {LEVEL: 2}, **arguments)


def compile_bounded(function: Callable, variables: Any, *arguments: Any, model: str) -> Any:
  """Compiles function(variables, *arguments) for a model that somebody else may have made.

  Args:
    function: a pure function of arrays.
    variables: the variables of the model. These and the arguments may be jax.ShapeDtypeStruct.
    model: its folder, for the message.

  Raises InputError if the program takes more memory than `bounded` allows for the size of the
  variables: a config may ask for any number of heads, or any side of a face, with few weights.
  """
  program = jit(function).lower(variables, *arguments).compile()
  used = program.memory_analysis()  # None where the platform does not tell
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(variables))
  needed = used and used.temp_size_in_bytes + used.argument_size_in_bytes - size
  if needed and needed > memory_for(size):
    raise InputError(
      f'{model} would take {needed / 1e9:.1f} GB of memory for weights of {size / 1e6:.1f} MB, '
      'which no model of avjax does'
    )
  return program


def keep_compiled_programs() -> None:
  """Makes JAX keep what it compiles in the cache folder of the user, for later processes.

  JAX_COMPILATION_CACHE_DIR names another folder, which JAX reads itself; empty, it keeps nothing.
  What is in a folder that cannot be written is used, and nothing is added to it. This is for
  commands: it changes JAX for the whole process.
  """
  # A program that cannot be kept is compiled again the next time.
  warnings.filterwarnings('ignore', 'Error (reading|writing) persistent compilation cache entry')
  chosen = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
  if chosen == '' or '://' in (chosen or ''):  # nothing is kept, or not on this machine
    return
  if not chosen:
    own = files.user_cache('avjax')
    if own is None:
      return
    chosen = own / 'compiled' / _machine()
    jax.config.update('jax_compilation_cache_dir', str(chosen))
    jax.config.update('jax_compilation_cache_max_size', LARGEST)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', SHORTEST)
  if not files.may_write_in(chosen):
    jax.config.update('jax_compilation_cache_max_size', -1)  # a limit would need notes of each use
    jax.config.update('jax_persistent_cache_min_compile_time_secs', math.inf)


def _machine() -> str:
  """Names the compiler and the kind of processor, in as many characters as a short hash has.

  A program for a CPU may use every instruction of the processor that compiled it, and a home folder
  may be shared by machines of several kinds.
  """
  try:
    lines = pathlib.Path('/proc/cpuinfo').read_text().splitlines()
  except OSError:
    lines = []
  features = [line for line in lines if line.startswith(('model name', 'flags', 'Features'))][:2]
  version = importlib.metadata.version('jaxlib')
  kind = '\n'.join([version, platform.machine(), platform.processor(), *features])
  return hashlib.sha256(kind.encode()).hexdigest()[:16]
