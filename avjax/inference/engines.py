"""Names what may run the towers, and says what is missing for it."""

import importlib.util

from avjax.errors import InputError, one_line

# {engine: the type in which OpenVINO computes}
ENGINES = {'jax': '', 'openvino': 'float32', 'openvino-bfloat16': 'bfloat16'}


def check_engine(engine: str) -> None:
  """Raises InputError unless `engine` is one of ENGINES, and installed. It imports nothing."""
  if engine not in ENGINES:
    raise InputError(f'--engine is one of {", ".join(ENGINES)}, not {one_line(repr(engine))}')
  if ENGINES[engine] and importlib.util.find_spec('openvino') is None:
    raise InputError(f"--engine {engine} needs OpenVINO: pip install 'avjax[cpu]'")
