"""Starts JAX: fixes the settings that results depend on, and checks that there is a device."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import jax
from jax.extend import backend

from avjax.errors import InputError, one_line
from avjax.system import sharding
from avjax.system.compilation import keep_compiled_programs

# Settings of JAX on which results depend, at JAX's own defaults. Their variables, such as
# JAX_ENABLE_X64, may be set for other programs of the same person.
SETTINGS = {
  'enable_x64': False,
  'numpy_dtype_promotion': 'standard',
  'numpy_rank_promotion': 'allow',
  'default_matmul_precision': None,  # that of the device
  'default_prng_impl': 'threefry2x32',
  'threefry_partitionable': True,
  'transfer_guard': 'allow',
}
# Variables that choose devices.
CHOOSING = ('JAX_PLATFORMS', 'JAX_PLATFORM_NAME', 'JAX_DEFAULT_DEVICE', 'CUDA_VISIBLE_DEVICES')


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
  """Applies SETTINGS to this thread only, for what a library does in a stranger's process."""
  with contextlib.ExitStack() as stack:
    for name, value in SETTINGS.items():
      stack.enter_context(getattr(jax, name)(value))
    yield


def start(cluster: tuple[str | None, int | None, int | None] | None = None) -> None:
  """Starts JAX for a command: this changes JAX for the whole process.

  SETTINGS apply, compiled programs are kept, and there is a device.

  Args:
    cluster: the arguments of `sharding.start` if this is one process of several, else None.

  Raises InputError where JAX finds no device, or the processes do not find each other.
  """
  for name, value in SETTINGS.items():
    jax.config.update(f'jax_{name}', value)
  jax.config.update('jax_random_seed_offset', 0)
  keep_compiled_programs()
  check_xla_flags()
  if cluster:
    sharding.start(*cluster)
  check_device()


def check_device() -> None:
  """Raises InputError, naming the platforms that there are, unless JAX finds its devices."""
  try:
    jax.device_put(0.0)
  # What JAX raises depends on the platform; for CUDA without a GPU it is an AssertionError.
  except (AssertionError, RuntimeError, ValueError) as error:
    chosen = ' '.join(f'{name}={os.environ[name]}' for name in CHOOSING if name in os.environ)
    cause = one_line(error) if str(error) and 'known backends' not in str(error) else ''
    raise InputError(
      f'JAX finds no device with {chosen or "its defaults"}{cause and f" ({cause})"}; this machine '
      f'has {", ".join(present_platforms())}: '
      + ('name one of these, or unset the variable' if chosen else 'name one by JAX_PLATFORMS')
    ) from error


def present_platforms() -> list[str]:
  """Returns the names of the platforms that JAX finds if it may choose: ['cpu', 'cuda']."""
  backend.clear_backends()
  for name in ('jax_platforms', 'jax_platform_name', 'jax_default_device'):
    jax.config.update(name, None)
  try:
    return sorted(backend.backends())
  except RuntimeError:  # a plugin that cannot start hides the others
    return ['cpu']


def check_xla_flags() -> None:
  """Raises InputError for XLA_FLAGS that XLA does not take.

  XLA ends the process that reads them, so another process reads them first.
  """
  if not os.environ.get('XLA_FLAGS'):
    return
  program = 'from jaxlib import xla_client; xla_client.make_cpu_client()'
  child = subprocess.run(
    [sys.executable, '-P', '-W', 'ignore', '-c', program],
    capture_output=True,
    text=True,
    errors='replace',
    check=False,
    env={**os.environ, 'TF_CPP_MIN_LOG_LEVEL': '0'},  # so that XLA says what is wrong
  )
  # A line of XLA's log: 'F1126 16:13:26.2 123 parse_flags.cc:234] Unknown flag in XLA_FLAGS: --x'
  reason = re.search(r'^[EF]\d{4} [^\]]*flags[^\]]*\] (.*)', child.stderr, re.MULTILINE)
  if child.returncode and reason:
    raise InputError(f'XLA_FLAGS: {one_line(reason[1])}; correct it, or unset XLA_FLAGS')
