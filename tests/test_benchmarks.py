"""Tests what benchmarks compute beside the code of avjax."""

import flax.linen as nn
import jax
import numpy as np

from avjax.models.layers import nothing_trainable
from avjax.models.towers.ir50 import IR50
from benchmarks import folded, trace


def test_folded_norms_change_no_feature():
  """IR-50 with norms of any statistics, and a kernel at every border, in float32."""
  tower = IR50(features=16, widths=(4, 8, 8, 16), units=(2, 1, 2, 1))
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (5, 20, 20, 3)).astype(np.float32)
  variables = tower.init(jax.random.key(0), images, nothing_trainable)
  # Vectors are statistics, scales, shifts and slopes: all of them positive and none at its start.
  variables = jax.tree.map(
    lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32) if x.ndim == 1 else x, variables
  )
  wanted = tower.apply(variables, images, nothing_trainable)
  found = folded.ir50(variables['params'], variables['batch_stats'], images)
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  assert np.std(wanted, axis=0).min() > 1e-3  # the features tell the frames apart


MODEL = 'jvp(AudioVisual)'
PROGRAM = f"""
ENTRY %main {{
  %conv.1 = f32[8] convolution(%a, %b), metadata={{op_name="jit(step)/{MODEL}/encode/visual/conv1"}}
  %copy.2 = f32[8] fusion(%conv.1, %a), kind=kLoop, calls=%fused.3
  %copy.3 = f32[8] fusion(%copy.2), kind=kLoop, calls=%fused.4
  ROOT %sum.4 = f32[] reduce(%copy.3), metadata={{op_name="transpose({MODEL})/visual_tcn/mul"}}
}}
"""


def test_a_trace_knows_the_part_of_every_instruction():
  """An instruction without a name belongs to the part whose values it reads."""
  names = trace.operation_names(PROGRAM)
  parts = {instruction: trace.part_of(name) for instruction, name in names.items()}
  assert parts == {
    'conv.1': 'visual tower',
    'copy.2': 'visual tower',
    'copy.3': 'visual tower',
    'sum.4': 'temporal part, backward',
  }
  assert trace.part_of('jit(step)/sub') == 'loss, optimizer and the rest'


def test_a_traced_program_has_its_time_in_its_parts():
  """Nearly all work of this one is a product in the module `head`."""

  class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(512, name='head')(x)

  model, x = Model(), jax.numpy.ones((512, 512))
  variables = model.init(jax.random.key(0), x)
  program = jax.jit(model.apply).lower(variables, x).compile()
  found = trace.milliseconds(program, lambda: jax.block_until_ready(program(variables, x)))
  assert next(iter(found)) == 'head' and found['head'] > 0
