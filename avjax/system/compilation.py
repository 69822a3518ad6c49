"""Keeps compiled programs on disk, so that a command compiles only when it is first started."""

import hashlib
import importlib.metadata
import pathlib
import platform

import jax
import platformdirs

LARGEST = 4 << 30  # bytes of the folder; what was used longest ago is deleted first
SHORTEST = 0.1  # seconds of compilation that are worth keeping


def keep_compiled_programs() -> None:
  """Makes JAX keep what it compiles in the cache folder of the user, for later processes.

  JAX_COMPILATION_CACHE_DIR names another folder, which JAX reads itself; empty, it keeps nothing.
  Nothing is kept where the folder cannot be written. This is for commands: it changes JAX for the
  whole process.
  """
  if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
    return
  folder = platformdirs.user_cache_path('avjax') / 'compiled' / _machine()
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'written').touch()
  except OSError:
    return
  jax.config.update('jax_compilation_cache_dir', str(folder))
  jax.config.update('jax_compilation_cache_max_size', LARGEST)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', SHORTEST)


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
