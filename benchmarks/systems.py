"""What each system is, where it comes from, its parameters and FLOPs: docs/systems.json, and the table in README.md.

python -m benchmarks.systems. Full sizes, one target, a clip of 300 frames. FLOPs are the multiplications and additions of all matrix
products and convolutions of one prediction; what is done element by element does not count.
"""

import importlib
import json
import math
import pathlib

import jax

from avjax import export, step
from avjax.models.audio_visual import FEATURES
from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
NUMPY, BOTH = 'float64 NumPy', 'float64 NumPy, PyTorch'
# config: (where its equations and sizes come from, what the tests compare it with)
SYSTEMS = {
    'grjca': ('the paper, eq. 9 to 13', NUMPY),
    'hgrjca': ('the paper, eq. 14 to 20', NUMPY),
    'dca': ("its authors' code", NUMPY),
    'rjca': ('the paper, eq. 1 to 8', NUMPY),
    'rjca_author': ("its authors' code (RJCMA)", BOTH),
    'jca': ('the paper, section 5.1', NUMPY),
    'jca_author': ("its authors' code (RJCMA)", NUMPY),
    'jca_2022': ("its authors' code", NUMPY),
    'leader_follower': ("its authors' code (ABAW2)", NUMPY),
    'lfan': ("its authors' code (ABAW5)", BOTH),
    'can': ("its authors' code (ABAW5)", NUMPY),
    'zhou': ("its authors' code", NUMPY),
    'zhang_ziyang': ("its authors' code", NUMPY),
    'zhang_wei': ("its authors' code", NUMPY),
    'meng': ("its authors' code", NUMPY),
    'ustc': ('its abstract (2503.10523)', NUMPY),
    'ctyunai': ("its abstract (2503.09929), its author's code of 2024", NUMPY),
    'hsemotion': ("its author's notebook of 2024", NUMPY),
    'aiwell': ('its abstract (2503.12260)', NUMPY),
    'charon': ("its authors' code", NUMPY),
    'baseline': ("assumed, after the challenge's reports", NUMPY),
    'visual': ('a control', NUMPY),
    'audio': ('a control', NUMPY),
    'concatenation': ('a control', NUMPY),
}


def flops(jaxpr):
  """Multiplications and additions of the matrix products and convolutions of a jaxpr; a scan's as often as it runs."""
  total = 0
  for equation in jaxpr.eqns:
    name, params = equation.primitive.name, equation.params
    shapes = [value.aval.shape for value in (*equation.invars, *equation.outvars)]
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      total += 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
    elif name == 'conv_general_dilated':  # a kernel holds the inputs of its own group alone
      total += 2 * math.prod(shapes[-1]) * math.prod(shapes[1]) // shapes[1][params['dimension_numbers'].rhs_spec[0]]
    elif name == 'while':
      raise ValueError('the steps of a while loop are not known')
    else:
      inner = [getattr(value, 'jaxpr', value) for value in jax.tree.leaves(list(params.values()))]
      total += params.get('length', 1) * sum(flops(program) for program in inner if hasattr(program, 'eqns'))
  return total


def measure(config):
  """{'parameters', 'flops'} of the model of a config: its parameters, and the FLOPs of a prediction for one clip."""
  model = step.make_model(config)
  variables = jax.eval_shape(lambda: step.init_variables(config, model, 0))
  sizes = {'clips': 1, 'rows': 1200}  # rows of log-mel do not count
  batch = {name: jax.ShapeDtypeStruct([sizes.get(size, size) for size in shape], dtype)
           for name, (shape, dtype, _) in export.inputs(config).items()}
  program = jax.make_jaxpr(step.make_predict_step(config, model))(variables, batch)
  return {'parameters': step.count(variables['params']), 'flops': flops(program.jaxpr)}


def without_towers(config):
  """The same model on features in the widths of its towers."""
  config.data.features = {'face': 512, 'voice': 128}
  for modality, name in (('visual', 'face'), ('audio', 'voice')):
    if config.model[modality].tower != 'none':
      config.model[modality].tower = FEATURES + name
  return config


def table(found):
  """The systems as Markdown, numbers in millions and in 10^9."""
  lines = ['| config | system | origin | tested against | parameters, M | of these no tower | GFLOPs a clip | of these no tower |',
           '|---|---|---|---|---|---|---|---|']
  for name, row in found.items():
    numbers = [f'{row[part][what] / scale:,.2f}' for what, scale in (('parameters', 1e6), ('flops', 1e9))
               for part in ('whole', 'without_towers')]
    lines.append(f'| [{name}](configs/{name}.py) | ' + ' | '.join([row['system'], *SYSTEMS[name], *numbers]) + ' |')
  return '\n'.join(lines)


def main():
  found = {}
  for name in SYSTEMS:
    module = importlib.import_module(f'configs.{name}')
    found[name] = {'system': module.__doc__.splitlines()[0].removesuffix('.'),
                   'whole': measure(module.get_config()), 'without_towers': measure(without_towers(module.get_config()))}
  (ROOT / 'docs' / 'systems.json').write_text(json.dumps(found, indent=1) + '\n')
  readme = ROOT / 'README.md'
  readme.write_text(fill(readme.read_text(), 'systems', table(found)))
  print(table(found))


if __name__ == '__main__':
  main()
