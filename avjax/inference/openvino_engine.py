"""Runs the towers of a model with OpenVINO, in float32 or bfloat16.

JAX writes a tower as a list of primitive operations (a jaxpr), and each becomes an operation of
OpenVINO. All else stays with JAX: what prepares the inputs, and what comes after the towers. At its
start the engine is compared with JAX's towers.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core as jax_core

from avjax.errors import InputError, one_line
from avjax.models.audio_visual import MODALITIES
from avjax.models.layers import nothing_trainable
from avjax.system import System, compilation

# Between predictions from OpenVINO's and from JAX's features, on made inputs. In bfloat16 rounding
# may move a prediction by some hundredths; a larger difference has another cause.
LARGEST_DIFFERENCE = {'float32': 1e-3, 'bfloat16': 0.05}
LEAVE_OUT = 'leave out --engine'
CHANNELS_FIRST = (0, 3, 1, 2)  # JAX's (N,H,W,C) as OpenVINO's (N,C,H,W)
CHANNELS_LAST = (0, 2, 3, 1)


def import_openvino() -> Any:
  """Imports OpenVINO's runtime.

  Left to itself, `import openvino` also imports its converter, which reports the import to a server
  of its makers and keeps a number for this user in ~/intel. Here it finds no converter, which
  OpenVINO allows.
  """
  converter = 'openvino.tools.ovc'
  before = sys.modules.setdefault(converter, None)
  try:
    import openvino
  except ImportError as error:
    raise InputError(f'OpenVINO does not start: {one_line(error)}; {LEAVE_OUT}') from error
  finally:
    if before is None:
      sys.modules.pop(converter, None)
  return openvino


class Encoder:
  """Stands for the compiled `System.encode` of one shape of batch, with towers of OpenVINO.

  precision: 'bfloat16' or 'float32'.
  note: says by what the towers are run, and what `check` has found.
  """

  def __init__(self, system: System, variables: Any, batch: Any, precision: str, *, model: str):
    """Translates and compiles the towers.

    Args:
      system, variables: the model, with its arrays.
      batch: a batch of the shapes that the encoder will be called with.
      precision: bfloat16 is refused where the processor does not compute in it.
      model: the folder of the model, for messages.
    """
    if jax.default_backend() != 'cpu':
      raise InputError(
        f'--engine openvino is for a CPU, and JAX runs on a {jax.default_backend()} here: '
        'leave it out, or set JAX_PLATFORMS=cpu'
      )
    self.openvino, self.model = import_openvino(), model
    device = self.openvino.Core()
    can = device.get_property('CPU', 'OPTIMIZATION_CAPABILITIES')
    if precision == 'bfloat16' and 'BF16' not in can:
      raise InputError(
        'this processor does not compute in bfloat16 (AVX-512 BF16 or AMX): give --engine openvino'
      )
    self.precision = precision
    version = self.openvino.get_version().split('-')[0]
    self.note = f'towers by OpenVINO {version} in {self.precision}'
    settings = {
      'INFERENCE_PRECISION_HINT': {'bfloat16': 'bf16', 'float32': 'f32'}[self.precision],
      'PERFORMANCE_HINT': 'LATENCY',
    }
    self.prepare = compilation.jit(system.inputs.prepare).lower(batch).compile()
    network = system.model.clone(tower_type='float32')
    self.towers = []
    for modality, x in zip(MODALITIES, self.prepare.out_info, strict=True):
      if x is None:
        self.towers.append(None)
        continue

      def tower(x, modality=modality):
        return network.apply(
          variables, x, method=lambda bound, x: getattr(bound, modality)(x, nothing_trainable)
        )

      frames = jax.ShapeDtypeStruct((x.shape[0] * x.shape[1], *x.shape[2:]), x.dtype)
      program = Translator(self.openvino).translate(jax.make_jaxpr(tower)(frames))
      with self.errors():
        self.towers.append(device.compile_model(program, 'CPU', settings))

  def __call__(self, variables, batch):
    """Returns what `System.encode` returns; the variables are those of the constructor."""
    del variables
    features = []
    for tower, x in zip(self.towers, self.prepare(batch), strict=True):
      if tower is not None:
        frames = np.asarray(x).reshape(-1, *x.shape[2:])
        with self.errors():
          y = tower(frames)[0]
        x = y.reshape(*x.shape[:2], -1)
      features.append(x)
    return tuple(features)

  def check(self, reference, decode, variables, batch, mask):
    """Compares the engine with JAX on a block of made inputs, and adds the result to the note.

    Args:
      reference, decode: `System.encode` and `System.decode`, compiled.
      batch: a batch of the shapes of the constructor.
      mask: (1,L), that of a full window.

    Raises InputError where a prediction differs by more than LARGEST_DIFFERENCE.
    """
    block = made_block(batch)
    encoded = [encode(variables, block) for encode in (reference, self)]
    windows = [
      [None if x is None else np.resize(x, (1, mask.shape[1], x.shape[-1])) for x in features]
      for features in encoded
    ]
    decoded = [decode(variables, *window, mask)['prediction'] for window in windows]
    features, prediction = largest_difference(*encoded), largest_difference(*decoded)
    largest = LARGEST_DIFFERENCE[self.precision]
    if not prediction <= largest:  # also where it is not a number
      raise InputError(
        f"{self.model}: predictions by OpenVINO in {self.precision} differ from JAX's by "
        f'{prediction:.2g}, more than {largest}; {LEAVE_OUT}'
      )
    self.note += (
      f"; at the start, on made inputs, features differ from JAX's by at most {features:.1g}, "
      f'predictions by {prediction:.1g}'
    )

  @contextlib.contextmanager
  def errors(self):
    """Turns an error of OpenVINO into an InputError."""
    try:
      yield
    except RuntimeError as error:
      raise InputError(
        f'OpenVINO cannot run the towers of {self.model}; {LEAVE_OUT}: {one_line(error)}'
      ) from error


def made_block(batch):
  """Returns a batch like the given one, with made faces and sound, the same on every machine.

  A face is 8 x 8 coloured squares and some noise, since pixels of noise only would be one grey to
  a tower.
  """
  rng, made = np.random.RandomState(0), dict(batch)
  if 'faces' in batch:
    _, frames, side, _, _ = shape = batch['faces'].shape
    squares = np.arange(side) * 8 // side
    colours = rng.uniform(20, 236, (1, frames, 8, 8, 3))[:, :, squares][:, :, :, squares]
    made['faces'] = (colours + rng.uniform(-20, 20, shape)).astype(np.uint8)
  if 'log_mel' in batch:
    made['log_mel'] = rng.uniform(-4.6, 2, batch['log_mel'].shape).astype(np.float16)
  return made


def largest_difference(a, b):
  """Returns the largest difference of two trees of arrays."""
  pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(np.asarray(x) - np.asarray(y)).max()) for x, y in pairs)


class Translator:
  """Turns a jaxpr of one argument and one result into a model of OpenVINO.

  A value of four axes, JAX's (N,H,W,C), is (N,C,H,W) in OpenVINO, the order of its convolutions.
  """

  def __init__(self, openvino):
    self.openvino, self.op = openvino, openvino.opset15

  def translate(self, closed: jax_core.ClosedJaxpr):
    """Returns the openvino.Model of a jaxpr; InputError where it has an unknown operation."""
    (x,) = closed.jaxpr.invars
    parameter = self.op.parameter(x.aval.shape, x.aval.dtype)
    constants = [self.constant(value) for value in closed.consts]
    (y,) = self.run(closed.jaxpr, constants, [self.channels_first(parameter, x.aval.ndim)])
    result = self.channels_last(y, closed.jaxpr.outvars[0].aval.ndim)
    return self.openvino.Model([result], [parameter])

  def run(self, jaxpr, constants, arguments):
    """Returns the values of a jaxpr's results, given those of its constants and arguments."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *arguments], strict=True))

    def value(variable):
      if isinstance(variable, jax_core.Literal):
        return self.constant(np.asarray(variable.val, variable.aval.dtype))
      return values[variable]

    for equation in jaxpr.eqns:
      name, inputs = equation.primitive.name, [value(x) for x in equation.invars]
      called = equation.params.get('call_jaxpr') or equation.params.get('jaxpr')
      if called is not None:
        constants = [self.constant(x) for x in called.consts]
        outputs = self.run(called.jaxpr, constants, inputs)
      elif name in RULES:
        outputs = [RULES[name](self, equation, *inputs)]
      else:
        raise unknown(name)
      values.update(zip(equation.outvars, outputs, strict=True))
    return [value(x) for x in jaxpr.outvars]

  def constant(self, array):
    array = np.asarray(array)
    if array.ndim == 4:
      array = np.ascontiguousarray(array.transpose(CHANNELS_FIRST))
    return self.op.constant(array)

  def channels_first(self, x, axes):
    return self.op.transpose(x, CHANNELS_FIRST) if axes == 4 else x

  def channels_last(self, x, axes):
    return self.op.transpose(x, CHANNELS_LAST) if axes == 4 else x

  def reshape(self, equation, x):
    """Reshapes, also where the primitive only adds or removes axes of length 1."""
    shape = equation.outvars[0].aval.shape
    x = self.channels_last(x, equation.invars[0].aval.ndim)
    x = self.op.reshape(x, np.array(shape, np.int64), special_zero=False)
    return self.channels_first(x, len(shape))

  def broadcast(self, equation, x):
    before, after = equation.invars[0].aval, equation.outvars[0].aval
    if before.size != after.size:
      raise unknown('broadcast_in_dim to another size')
    return self.reshape(equation, x)

  def convolution(self, equation, x, kernel):
    p = equation.params
    numbers = p['dimension_numbers']
    if (
      numbers.lhs_spec != CHANNELS_FIRST
      or numbers.rhs_spec != (3, 2, 0, 1)
      or numbers.out_spec != CHANNELS_FIRST
      or {*p['lhs_dilation'], p['feature_group_count'], p['batch_group_count']} != {1}
    ):
      raise unknown('conv_general_dilated of another kind')
    kernel = self.op.transpose(kernel, [1, 3, 0, 2])  # (H,O,W,I), as of four axes -> (O,I,H,W)
    low, high = zip(*p['padding'], strict=True)
    return self.op.convolution(x, kernel, p['window_strides'], low, high, p['rhs_dilation'])

  def matmul(self, equation, x, y):
    if equation.params['dimension_numbers'] != (((1,), (0,)), ((), ())):
      raise unknown('dot_general of another kind')
    return self.op.matmul(x, y, False, False)

  def max_pool(self, equation, x):
    p = equation.params
    spatial = {name: [p[name][axis] for axis in (1, 2)] for name in p}
    low, high = zip(*spatial['padding'], strict=True)
    others = [p['window_dimensions'][0], p['window_dimensions'][3]]
    if len(p['padding']) != 4 or {*others, *p['base_dilation'], *p['window_dilation']} != {1}:
      raise unknown('reduce_window_max of another kind')
    return self.op.max_pool(
      x, spatial['window_strides'], [1, 1], low, high, spatial['window_dimensions']
    ).output(0)

  def slice(self, equation, x):
    p, axes = equation.params, equation.invars[0].aval.ndim
    order = CHANNELS_FIRST if axes == 4 else range(axes)
    steps = p['strides'] or (1,) * axes
    start, stop, step = (
      np.array([sizes[axis] for axis in order])
      for sizes in (p['start_indices'], p['limit_indices'], steps)
    )
    return self.op.slice(x, start, stop, step)

  def pad(self, equation, x, filling):
    axes = equation.invars[0].aval.ndim
    order = CHANNELS_FIRST if axes == 4 else range(axes)
    low, high, between = (
      [int(sizes[axis]) for axis in order]
      for sizes in zip(*equation.params['padding_config'], strict=True)
    )
    if min(low + high) < 0 or any(between):
      raise unknown('pad of another kind')
    return self.op.pad(x, low, high, 'constant', filling)

  def sum(self, equation, x):
    x = self.channels_last(x, equation.invars[0].aval.ndim)
    return self.op.reduce_sum(x, np.array(equation.params['axes']), keep_dims=False)

  def convert(self, equation, x):
    return self.op.convert(x, np.dtype(equation.params['new_dtype']))


def unknown(name: str) -> InputError:
  """Returns the InputError for an operation that has no rule."""
  return InputError(f'OpenVINO is not told how to do the operation {name}; {LEAVE_OUT}')


# {name of a JAX primitive: what makes it of OpenVINO's operations}
RULES: dict[str, Callable] = {
  'add': lambda t, _, x, y: t.op.add(x, y),
  'sub': lambda t, _, x, y: t.op.subtract(x, y),
  'mul': lambda t, _, x, y: t.op.multiply(x, y),
  'div': lambda t, _, x, y: t.op.divide(x, y),
  'max': lambda t, _, x, y: t.op.maximum(x, y),
  'min': lambda t, _, x, y: t.op.minimum(x, y),
  'sqrt': lambda t, _, x: t.op.sqrt(x),
  'rsqrt': lambda t, _, x: t.op.divide(np.float32(1), t.op.sqrt(x)),
  'convert_element_type': Translator.convert,
  'reshape': Translator.reshape,
  'squeeze': Translator.reshape,
  'broadcast_in_dim': Translator.broadcast,
  'slice': Translator.slice,
  'pad': Translator.pad,
  'reduce_sum': Translator.sum,
  'reduce_window_max': Translator.max_pool,
  'dot_general': Translator.matmul,
  'conv_general_dilated': Translator.convolution,
}
