"""Checks the shapes that models and losses state, with jaxtyping and beartype.

They are checked at every call that a test makes. Elsewhere only type checkers and people read the
annotations, so that the installed package needs no jaxtyping.
"""

import importlib
import inspect
import pkgutil

import beartype
import flax.linen as nn
import jax
import jaxtyping
import numpy as np

CHECKED = []  # the names of the functions and methods that are checked
NAMES = {'Array': jax.Array | np.ndarray, 'Bool': jaxtyping.Bool, 'Float': jaxtyping.Float}


def modules():
  """The modules whose functions state shapes."""
  import avjax.models

  yield importlib.import_module('avjax.targets.losses')
  for found in pkgutil.walk_packages(avjax.models.__path__, 'avjax.models.'):
    yield importlib.import_module(found.name)


def install():
  """Wraps every function and method that states a shape."""
  for module in modules():
    owners = [
      module,
      *(x for x in vars(module).values() if inspect.isclass(x) and x.__module__ == module.__name__),
    ]
    for owner in owners:
      for name, function in list(vars(owner).items()):
        stated = getattr(function, '__annotations__', {})
        if not inspect.isfunction(function) or not any(
          '[Array, ' in str(text) for text in stated.values()
        ):
          continue
        function = inspect.unwrap(function)  # Linen wraps methods when it makes a class
        function.__annotations__ = {
          key: eval(text, vars(module) | NAMES) for key, text in stated.items()
        }
        checked = jaxtyping.jaxtyped(function, typechecker=beartype.beartype)
        setattr(
          owner, name, nn.module.wrap_method_once(checked) if inspect.isclass(owner) else checked
        )
        CHECKED.append(f'{owner.__name__}.{name}')
