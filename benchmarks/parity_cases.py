"""Makes the weights and inputs on which avjax and PyTorch are compared, and the results of avjax.

None of this needs torch; benchmarks/parity.py computes PyTorch's results. Weights have the names
under which they are published. They and the inputs are drawn by NumPy's RandomState, whose stream
is guaranteed not to change.
"""

import functools
import json
import math
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from avjax.models.layers import everything_trainable, nothing_trainable
from avjax.models.towers.ir50 import IR50
from avjax.models.towers.resnet50 import ResNet50
from avjax.models.towers.vggish import VGGish
from avjax.system import System
from avjax.weights import name_maps
from avjax.weights.convert import convert, shapes_of, shapes_of_model
from benchmarks.parity_layers import CLIPS, FRAMES, LAYERS, RAS
from configs import lfan, rjca_author

GOLDEN = pathlib.Path(__file__).parents[1] / 'tests' / 'avjax' / 'golden'
STEPS = 3  # forward passes in training mode, after which the running averages are compared
TOLERANCES = {'float32': 1e-4, 'float64': 1e-9}
# The seed of the weights and inputs of each case. In float32, rounding may decide on which side
# of a ReLU's kink an activation falls. Then all gradients below it differ by 1e-3 or more, even
# between PyTorch's own float32 and float64. With these seeds no activation is that close to a kink.
DRAWS = {'ir50': 7, 'resnet50': 6, 'vggish': 2, 'rjca_author': 1, 'lfan': 1}
DRAWS |= dict.fromkeys(LAYERS, 1)


def whole(config):
  """Shrinks the towers and clips of a predecessors' config, but not its fusion and head."""
  config.targets, config.data.length = ('valence',), 24
  config.model.visual.ir50.update(
    {'widths': (2, 2, 4, 4), 'units': (1, 1, 2, 1), 'features': 32, 'dropout': 0.0}
  )
  config.model.audio.update({'widths': (1, 1, 2, 2, 2, 2), 'hidden': 16, 'features': 16})
  config.model.temporal.dropout = config.model.fusion.dropout = 0.0
  return config


CONFIGS = {'rjca_author': whole(rjca_author.get_config()), 'lfan': whole(lfan.get_config())}
CONFIGS['rjca_author'].model.temporal.update(
  {'visual': (128,) * 4, 'audio': (32,) * 4}
)  # in place of 512 and 128; LFAN keeps its widths
CASES = ('ir50', 'resnet50', 'vggish', *CONFIGS, *(name for name in LAYERS if name not in RAS))


def draw(case, name, shape):
  """Draws a standard normal array that depends only on its case and name."""
  return (
    np.random.RandomState(zlib.crc32(f'{DRAWS[case]}/{name}'.encode()))
    .standard_normal(shape)
    .astype(np.float32)
  )


def weight(case, name, shape):
  """Draws a weight: layers keep the scale of their input, and norms and slopes are positive."""
  x, leaf = draw(case, name, shape), name.rsplit('.', 1)[-1]
  if leaf == 'running_mean':
    return 0.1 * x
  if leaf == 'running_var' or leaf == 'weight_g':
    return np.exp(0.2 * x)
  if leaf == 'bias':
    return 0.1 * x
  # Norms and PReLU. The last norm of a residual branch is smaller than the trunk, as in trained
  # towers.
  if len(shape) == 1:
    sizes = {
      'bn3.weight': 0.2,
      'res_layer.4.weight': 0.2,
      'res_layer.2.weight': 0.25,
      'input_layer.2.weight': 0.25,
    }
    size = next((size for ending, size in sizes.items() if name.endswith(ending)), 1.0)
    return np.float32(size) * np.exp(0.2 * x)
  return x * np.float32(np.sqrt(1 / np.prod(shape[1:])))


def inputs(case, number, mode='train'):
  """Draws input `number` of a case, in our layout.

  It is the input of a tower, or images (B,L,40,40,3) and log_mel (B,L,96,64), or the features that
  a layer takes.
  In evaluation one example is enough, since the others of a batch do not change its result.
  """
  sizes = {'ir50': (3, 40, 40, 3), 'resnet50': (3, 48, 48, 3), 'vggish': (1, 96, 64)}
  if case in sizes:
    xs = (draw(case, f'{case}/input{number}', sizes[case]),)
  elif case in LAYERS:
    xs = tuple(
      draw(case, f'{case}/{name}{number}', (CLIPS, FRAMES, width))
      for name, width in LAYERS[case].inputs.items()
    )
  else:
    clips = (2, CONFIGS[case].data.length)
    xs = (
      draw(case, f'{case}/images{number}', (*clips, 40, 40, 3)),
      draw(case, f'{case}/log_mel{number}', (*clips, 96, 64)),
    )
  return tuple(x[:1] for x in xs) if mode == 'eval' else xs


def ours(case, source, dtype, gradients=('eval', 'train')):
  """Computes the results of avjax for a state dict of synthetic weights.

  Args:
    case: one of CASES.
    source: the state dict, {published name: array}.
    dtype: 'float32' or 'float64', in which JAX computes.
    gradients: the modes whose gradients are computed.

  Returns {'eval': output, 'train': output, 'eval/NAME': gradient, 'train/NAME': gradient,
  'stats/NAME': running average after STEPS passes}. NAME is the published name, and gradients have
  the published layout. The gradients are those of the sum of the output times a drawn direction.
  """
  with jax.enable_x64(dtype == 'float64'):
    return _ours(case, source, dtype, gradients)


def _ours(case, source, dtype, gradients):
  if case in CONFIGS:
    config = CONFIGS[case]
    model, system = System.from_config(config).model, name_maps.of_model(config)
    shapes = shapes_of_model(config)
    call = lambda variables, xs, is_trainable: model.apply(
      variables, *xs, jnp.ones(xs[0].shape[:2], bool), is_trainable, mutable=['batch_stats']
    )
  elif case in LAYERS:
    layer = LAYERS[case]
    shapes, system = layer.shapes(), layer.published()
    call = lambda variables, xs, is_trainable: (
      layer.apply({'params': variables['params']}, xs, is_trainable, factors(case)),
      {},
    )
  else:
    shapes, system = shapes_of(case), name_maps.TOWERS[case]
    model = {'ir50': IR50(dropout=0.0), 'resnet50': ResNet50(features=2048), 'vggish': VGGish()}[
      case
    ]
    call = lambda variables, xs, is_trainable: model.apply(
      variables, *xs, *([] if case == 'vggish' else [is_trainable]), mutable=['batch_stats']
    )
  converted = convert(source, shapes, system)
  assert not converted.mismatches, converted.mismatches
  arrays = dict(converted.arrays)
  if case == 'resnet50':  # its projection becomes the identity
    arrays.update(
      {
        'params/output/kernel': np.eye(2048, dtype=np.float32),
        'params/output/bias': np.zeros(2048, np.float32),
      }
    )
  cast = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)
  variables = {'batch_stats': {}, **cast(traverse_util.unflatten_dict(arrays, sep='/'))}
  entries = {path: system.entry(path.split('/', 1)[1], shape) for path, shape in shapes.items()}
  theirs = {path: to_published(entry) for path, entry in entries.items() if entry}

  def forward(params, batch_stats, xs, is_trainable):
    output, updated = call({'params': params, 'batch_stats': batch_stats}, xs, is_trainable)
    return jnp.sum(output * draw(case, f'{case}/direction', output.shape)), (
      output,
      updated.get('batch_stats', {}),
    )

  def with_gradient(*arguments):
    (_, (output, stats)), gradient = jax.value_and_grad(forward, has_aux=True)(*arguments)
    return output, stats, gradient

  # A float64 convolution is a plain loop, which must be optimized although the tests turn
  # optimization off.
  jit = functools.partial(
    jax.jit, static_argnums=3, compiler_options={'xla_backend_optimization_level': '1'}
  )
  without = jit(lambda *arguments: (*forward(*arguments)[1], {}))
  differentiated = jit(with_gradient)
  results = {}
  for mode, is_trainable in (('eval', nothing_trainable), ('train', everything_trainable)):
    run = differentiated if mode in gradients else without
    output, stats, gradient = run(
      variables['params'], variables['batch_stats'], cast(inputs(case, 0, mode)), is_trainable
    )
    results[mode] = np.asarray(output)
    for path, x in traverse_util.flatten_dict({'params': gradient}, sep='/').items():
      if path in theirs:
        for name, part in theirs[path](f'{mode}/', np.asarray(x)).items():
          results[name] = results.get(name, 0) + part  # one array may hold several leaves of ours
  for number in range(1, STEPS if stats else 1):
    _, stats, _ = without(
      variables['params'], stats, cast(inputs(case, number)), everything_trainable
    )
  for path, x in traverse_util.flatten_dict({'batch_stats': stats}, sep='/').items():
    results.update(theirs[path]('stats/', np.asarray(x)))
  return results


def to_published(entry):
  """Inverts entry.ours, by looking where it puts each number.

  Returns a function (group, x) -> {group + published name: x in the published layout}, with 0 where
  the published array holds something else.
  """

  @functools.cache
  def places():
    return entry.ours(
      np.arange(math.prod(entry.shape), dtype=np.int32).reshape(entry.shape)
    ).ravel()

  def turn(group, x):
    theirs = np.zeros(math.prod(entry.shape), x.dtype)
    theirs[places()] = x.ravel()
    return {group + entry.name: theirs.reshape(entry.shape)}

  return turn


def factors(case):
  """Returns what each dropout of a layer multiplies by in training mode, under our names."""
  return LAYERS[case].factors(lambda name, shape: draw(case, f'{case}/{name}', shape))


def fingerprint(name, x):
  """Summarises an array by its norm and its products with three drawn vectors of signs.

  A difference d between two arrays changes each product by about |d|.
  """
  flat = np.asarray(x, np.float64).ravel()
  signs = np.where(
    np.random.RandomState(zlib.crc32(name.encode())).random_sample((3, flat.size)) < 0.5, -1.0, 1.0
  )
  return [float(np.linalg.norm(flat)), *map(float, signs @ flat)]


def read_golden(case):
  """Reads what `python -m benchmarks.parity --golden` wrote for a case.

  Returns {'source': {name: shape}, 'outputs', 'scales', 'fingerprints', 'torch'}.
  """
  return json.loads((GOLDEN / f'{case}.json').read_text())
