"""Computes IR-50 with its frozen norms folded into the convolutions; an experiment on speed.

python -m benchmarks.folded compiles it for a TPU v5e, without one, beside the tower as it is, and
adds to docs/performance.json what the compiler estimates. It needs the extra `tpu`, and minutes.

A frozen norm is x * factor + shift in each channel. Behind a convolution the factor goes into its
kernel. Before one, so does the factor, and the shift becomes a map that is added: at the border the
kernel sees padding, which is zero and not the shift.
"""

import json
import os
import re

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from avjax.models.layers import Norm, at_least_float32, per_channel
from avjax.system import System
from benchmarks import performance
from benchmarks.batches import random_batch
from configs import visual

CLIPS = 12
V5E_HERTZ = 1.5e9


def affine(params, stats):
  """Returns (factor, shift), each (C,), of a frozen norm."""
  factor = lax.rsqrt(stats['var'] + Norm.epsilon) * params['scale']
  return factor, params['bias'] - stats['mean'] * factor


def convolve(x, kernel, stride=1):
  """Convolves x (N,H,W,C) as `towers.residual.conv` does."""
  pad = kernel.shape[0] // 2
  layout = ('NHWC', 'HWIO', 'NHWC')
  padding = ((pad, pad), (pad, pad))
  kernel = kernel.astype(x.dtype)
  return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=layout)


def conv_norm(x, kernel, norm, stride=1):
  """Computes norm(conv(x)); norm: what `affine` returns."""
  factor, shift = norm
  y = convolve(x, kernel * factor, stride)
  return y + per_channel(shift.astype(y.dtype), y)


def norm_conv(x, norm, kernel):
  """Computes conv(norm(x)); norm: what `affine` returns."""
  factor, shift = norm
  constant = jnp.broadcast_to(shift, (1, *x.shape[1:3], len(shift)))
  return convolve(x, kernel * factor[:, None]) + convolve(constant, kernel).astype(x.dtype)


def prelu(x, params):
  return jnp.maximum(x, 0) + params['slope'].astype(x.dtype) * jnp.minimum(x, 0)


def unit(x, params, stats, stride):
  """Computes a `UnitIR`; params and stats are its own."""
  norms = {name: affine(params[name], stats[name]) for name in stats}
  if 'shortcut_conv' in params:
    kernel = params['shortcut_conv']['kernel']
    shortcut = conv_norm(x, kernel, norms['shortcut_norm'], stride)
  else:
    shortcut = x[:, ::stride, ::stride]
  y = prelu(norm_conv(x, norms['norm1'], params['conv1']['kernel']), params['prelu'])
  return conv_norm(y, params['conv2']['kernel'], norms['norm2'], stride) + shortcut


def ir50(params, stats, images):
  """Computes `IR50` in evaluation: (N,H,W,3) -> (N,features); params and stats are its own."""
  start, end = params['input'], params['output']
  x = conv_norm(images, start['conv']['kernel'], affine(start['norm'], stats['input']['norm']))
  x = prelu(x, start['prelu'])
  stages = sorted(name for name in params if name.startswith('stage'))
  for stage in stages:
    for k in range(len(params[stage])):
      stride = 2 if k == 0 and stage != stages[0] else 1
      x = unit(x, params[stage][f'unit{k}'], stats[stage][f'unit{k}'], stride)
  factor, shift = affine(end['norm1'], stats['output']['norm1'])
  x = x * factor.astype(x.dtype) + shift.astype(x.dtype)
  x = x.reshape(len(x), -1) @ end['dense']['kernel'].astype(x.dtype)
  x = at_least_float32(x + end['dense']['bias'].astype(x.dtype))
  factor, shift = affine(end['norm2'], stats['output']['norm2'])
  x = x * factor + shift
  return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)


def forward(system):
  """Returns a function of (variables, fields): the folded tower in place of `system.encode`."""

  def run(variables, fields):
    faces, _ = system.inputs.prepare(fields)
    faces = faces.reshape(-1, *faces.shape[2:]).astype(system.model.tower_type)
    return ir50(variables['params']['visual'], variables['batch_stats']['visual'], faces)

  return run


def on_a_tpu(system, clips):
  """Compiles both for a TPU v5e, and returns what its compiler says of them.

  {name: estimated ms, GB that are accessed, GiB of temporary memory}.
  """
  os.environ.setdefault('TPU_SKIP_MDS_QUERY', '1')  # no server is asked for a TPU
  bounds = {'chips_per_host_bounds': (1, 1, 1)}
  (device,) = topologies.get_topology_desc('v5e:1x1', platform='tpu', **bounds).devices
  batch = random_batch(visual.get_config(), clips)
  fields = {name: batch[name] for name in system.inputs.fields}
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=SingleDeviceSharding(device)),
    (system.shapes, fields),
  )
  found = {}
  for name, function in {'plain': system.encode, 'folded': forward(system)}.items():
    program = jax.jit(function).lower(*shapes).compile()
    cycles = re.findall(r'"estimated_cycles":"(\d+)"', program.as_text())
    found[name] = {
      'ms': sum(map(int, cycles)) / V5E_HERTZ * 1e3,
      'gb': program.cost_analysis()['bytes accessed'] / 1e9,
      'temporary_gib': program.memory_analysis().temp_size_in_bytes / 2**30,
    }
    print(name, found[name], flush=True)
  return found


def main():
  config = visual.get_config()
  config.precision.towers = 'bfloat16'
  found = json.loads(performance.FIGURES.read_text())
  found['folded on v5e'] = performance.rounded(on_a_tpu(System.from_config(config), CLIPS))
  performance.FIGURES.write_text(json.dumps(found, indent=1) + '\n')
  performance.write()


if __name__ == '__main__':
  main()
