"""Measures the parameters and FLOPs of every system.

python -m benchmarks.systems

Writes docs/systems.json and the table in docs/systems.md.

Sizes are the full ones, for one target and a clip of 300 frames. FLOPs are the multiplications and
additions of all matrix products and convolutions of one prediction; elementwise operations are not
counted.
"""

import importlib
import json
import math
import pathlib
import sys

import jax
import numpy as np

from avjax.evaluation.series import smoothing_widths
from avjax.models.layers import nothing_trainable
from avjax.system import System, steps
from benchmarks.pages import fill
from configs import finetune

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'systems.md'
CONFIGS = set(finetune.SYSTEMS)
NUMPY, BOTH, HEAD = 'float64 NumPy', 'float64 NumPy, PyTorch', 'float64 NumPy, only its head'
# {config: (where its equations and sizes come from, what the tests compare it with)}
SYSTEMS = {
  'grjca': ('the paper, eq. 9 to 13', NUMPY),
  'hgrjca': ('the paper, eq. 14 to 20', NUMPY),
  'dca': ("the gate: its authors' code; the recursion: the paper", NUMPY),
  'rjca': ('the paper, eq. 1 to 8', NUMPY),
  'rjca_author': ("its authors' code (RJCMA)", BOTH),
  'jca': ('the paper, section 5.1', NUMPY),
  'jca_author': ("its authors' code (RJCMA)", NUMPY),
  'jca_2022': ("its authors' code", NUMPY),
  'ca_2021': ("its authors' code; residual and tanh: their paper", BOTH),
  'leader_follower': ("its authors' code: sizes of ABAW2, attention of ABAW3", NUMPY),
  'lfan': ("its authors' code (ABAW5)", BOTH),
  'can': ("its authors' code (ABAW5)", NUMPY),
  'zhou': ("its authors' code", NUMPY),
  'zhang_ziyang': ("its authors' code", NUMPY),
  'zhang_wei': ("its authors' code", NUMPY),
  'meng': ("its authors' code", NUMPY),
  'ustc': ('its abstract (2503.10523)', NUMPY),
  'ctyunai': ("its abstract (2503.09929), its author's code of 2024", NUMPY),
  'hsemotion': ("its author's notebook of 2024", HEAD),
  'aiwell': ('its abstract (2503.12260)', NUMPY),
  'charon': ("its authors' code", NUMPY),
  'raav': ("its authors' code (CVPRW-26)", BOTH),
  'dcmmoe': ("its authors' code (CVPRW-26); the gate: notes on the paper", BOTH),
  'baseline': ("the challenge's reports, no code", HEAD),
  'visual': ('a control', HEAD),
  'audio': ('a control', HEAD),
  'concatenation': ('a control', NUMPY),
  'joint_context': ('ours', NUMPY),
}


def describe(config):
  """Describes a config of configs/ by the first line of its docstring."""
  return importlib.import_module(f'configs.{config}').get_config().system


def flops(jaxpr):
  """Counts the multiplications and additions of the matrix products and convolutions of a jaxpr.

  The body of a scan counts as often as it runs.
  """
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    shapes = [value.aval.shape for value in (*equation.invars, *equation.outvars)]
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      total += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
    elif name == 'conv_general_dilated':  # a kernel spans only the inputs of its own group
      total += (
        2
        * math.prod(shapes[-1])
        * math.prod(shapes[1])
        // shapes[1][params['dimension_numbers'].rhs_spec[0]]
      )
    elif name == 'while':
      raise ValueError('the number of steps of a while loop is not known')
    else:
      inner = [getattr(value, 'jaxpr', value) for value in jax.tree.leaves(list(params.values()))]
      total += params.get('length', 1) * sum(
        flops(program) for program in inner if hasattr(program, 'eqns')
      )
  return total


def measure(config):
  """Counts the parameters of the model of a config, and the FLOPs of its prediction for one clip.

  Returns {'parameters': ..., 'flops': ...}.
  """
  system = System.from_config(config)
  sizes = {'clips': 1, 'rows': 1200}  # the number of log-mel rows does not change the FLOPs
  batch = {
    name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype)
    for name, (shape, dtype, _) in system.inputs.specs().items()
  }
  program = jax.make_jaxpr(system.predict)(system.shapes, batch)
  return {
    'parameters': steps.parameter_count(system.shapes['params']),
    'flops': flops(program.jaxpr),
  }


def behind_towers(config):
  """Returns the config of the same model on features as wide as those of its towers."""
  return on_features(config, {'visual': 512, 'audio': 128})


def on_features(config, widths):
  """Returns the config of the same system on features in place of its towers.

  `widths` is {modality: numbers per frame}.
  """
  config = config.copy_and_resolve_references()
  config.data.features = {}
  for modality, width in widths.items():
    if config.model[modality].tower != 'none':
      config.model[modality].tower = f'features/{modality}'
      config.data.features[modality] = width
  return config


def sees_later_frames(config):
  """Tells whether the prediction of a frame depends on later frames.

  Changes the end of a small window of features and checks whether earlier predictions change.
  """
  config = on_features(config, {'visual': 6, 'audio': 4})
  config.data.length = 12
  system, rng = System.from_config(config), np.random.default_rng(0)
  # Weights are drawn here and not initialised as in training, where some are zero.
  shapes = system.shapes
  variables = {
    'params': jax.tree.map(lambda x: np.float32(rng.normal(0, 0.2, x.shape)), shapes['params']),
    'batch_stats': jax.tree.map(
      lambda x: np.float32(rng.uniform(0.5, 1, x.shape)), shapes['batch_stats']
    ),
  }
  batch = {
    name: rng.normal(size=(1, 12, width)).astype(np.float32)
    for name, width in (('features/visual', 6), ('features/audio', 4))
  }
  real, later = np.ones((1, 12), bool), np.arange(12)[:, None] >= 8

  def predict(batch):  # not clipped, so that no change is hidden
    return system.model.apply(
      variables, *system.inputs.prepare(batch), real, nothing_trainable, mutable=['gates']
    )[0]

  predict = jax.jit(predict)
  before, after = predict(batch), predict({name: x + later for name, x in batch.items()})
  smooths = max(smoothing_widths(config.smooth, config.targets)) > 1
  return bool(smooths or np.abs(before - after)[:, :8].max() > 0)


def table(found):
  """Formats the systems as a Markdown table, parameters in millions and FLOPs in 10^9."""
  lines = [
    '| config | system | origin | tested against | sees later frames '
    '| parameters, M | without towers | GFLOPs per clip | without towers |',
    '|---|---|---|---|---|---|---|---|---|',
  ]
  for name, row in found.items():
    numbers = [
      f'{row[part][what] / scale:,.2f}'
      for what, scale in (('parameters', 1e6), ('flops', 1e9))
      for part in ('whole', 'without_towers')
    ]
    lines.append(
      f'| [{name}](../configs/{name}.py) | '
      + ' | '.join(
        [row['system'], *SYSTEMS[name], 'yes' if row['sees_later_frames'] else 'no', *numbers]
      )
      + ' |'
    )
  return '\n'.join(lines)


def main():
  found = {}
  unknown = CONFIGS ^ SYSTEMS.keys()
  if unknown:
    sys.exit(
      f'error: {", ".join(sorted(unknown))}: each file of configs/ needs a row of SYSTEMS in '
      'benchmarks/systems.py, and each row a file'
    )
  for name in SYSTEMS:
    get_config = importlib.import_module(f'configs.{name}').get_config
    found[name] = {
      'system': describe(name),
      'sees_later_frames': sees_later_frames(get_config('mini')),
      'whole': measure(get_config()),
      'without_towers': measure(behind_towers(get_config())),
    }
  (ROOT / 'docs' / 'systems.json').write_text(json.dumps(found, indent=1) + '\n')
  PAGE.write_text(fill(PAGE.read_text(), 'systems', table(found)))
  print(table(found))


if __name__ == '__main__':
  main()
