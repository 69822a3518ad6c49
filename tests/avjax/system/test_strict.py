"""Every config works under JAX's strict settings for shapes and types.

No array is silently broadcast to more axes or cast to another type. Only shapes are computed.
optax's Adam is left out, since it multiplies Python floats with integer counts.
"""

import importlib

import jax
import numpy as np
import optax
import pytest
from test_step import random_batch

from avjax.system import System, steps
from configs.golden.__main__ import SYSTEMS


def small(config):
  config.data.update({'length': 6, 'stride': 4, 'face': 12})
  config.crop = 8
  for tower in ('ir50', 'resnet50'):
    config.model.visual[tower].update({'widths': (2, 2, 2, 2), 'features': 4})
  config.model.audio.update({'widths': (1, 1, 1, 1, 1, 1), 'hidden': 8, 'features': 4})
  return config


@pytest.mark.parametrize('argument', ['mini', 'mini,protocol=author'])
@pytest.mark.parametrize('name', sorted(SYSTEMS))
def test_strict_promotion(name, argument):
  config = small(importlib.import_module(f'configs.{name}').get_config(argument))
  system = System.from_config(config)
  batch, optimizer = random_batch(config), optax.identity()
  with jax.numpy_rank_promotion('raise'), jax.numpy_dtype_promotion('strict'):
    variables = jax.eval_shape(lambda: system.init(0))
    prediction = jax.eval_shape(system.predict, variables, batch)['prediction']
    assert (prediction.shape, prediction.dtype) == ((3, 6, 2), np.float32)
    state = jax.eval_shape(lambda v: steps.make_state(v, optimizer), variables)
    step = system.make_train_step(lambda path: True, optimizer)
    after, metrics = jax.eval_shape(step, state, batch, jax.random.key(0), np.float32(1e-3))
  assert jax.tree.map(lambda x: x.dtype, after) == jax.tree.map(lambda x: x.dtype, state)
  assert metrics['loss'].shape == ()
