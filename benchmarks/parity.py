"""Compares avjax with PyTorch on synthetic weights.

python -m benchmarks.parity
python -m benchmarks.parity --ras FOLDER

Writes docs/parity.json and the block `parity` in docs/weights.md; with --ras their part `ras`.

It compares IR-50, ResNet-50, VGGish, the predecessors' RJCA and LFAN, PyTorch's encoder layer and
cross-attention of 2021: the outputs and the gradient of every parameter, in evaluation and in
training mode, and the running averages after three passes in training mode. With --golden it also
writes PyTorch's results, for tests that run without torch. With --ras it compares RAAV and DCMMOE
with the modules of their authors, which it reads from a checkout of their code in FOLDER.
"""

import argparse
import copy
import json
import pathlib
import platform
import sys

import jax
import numpy as np
import torch

from avjax import errors
from benchmarks import parity_cases as cases
from benchmarks import torch_layers, torch_ras, torch_reference
from benchmarks.pages import fill
from benchmarks.parity_layers import HEADS, HIDDEN, TORCH_DROPOUTS, WIDTH

KINDS = ('eval', 'eval gradient', 'train', 'train gradient', 'stats')
DOCS = pathlib.Path(__file__).parents[1] / 'docs'


def make_reference(case, ras=None):
  """Builds the PyTorch module of a case, with synthetic weights.

  ras: the folder with a checkout of the code of RAAV and DCMMOE, for their cases.
  """
  if case in cases.RAS:
    model = torch_ras.build(case, cases.LAYERS[case], ras, cases.factors(case))
  elif case in cases.CONFIGS:
    model = torch_reference.Predecessor(cases.CONFIGS[case])
  elif case in cases.LAYERS:
    model = make_layer(case)
  else:
    model = {
      'ir50': torch_reference.IR50,
      'resnet50': torch_reference.ResNet50,
      'vggish': torch_reference.VGGish,
    }[case]()
  made = {
    name: torch.from_numpy(cases.weight(case, name, tuple(x.shape))) if x.is_floating_point() else x
    for name, x in model.state_dict().items()
  }
  model.load_state_dict(made)
  return model


def make_layer(case):
  """Builds the PyTorch module of a layer."""
  layer = cases.LAYERS[case]
  if case == 'encoder_layer':
    factors = {TORCH_DROPOUTS[name]: x for name, x in cases.factors(case).items()}
    return torch_layers.EncoderLayer(WIDTH, HEADS, HIDDEN, layer.mask, factors)
  return torch_layers.CrossAttention2021(**layer.inputs, residual=layer.module.residual)


def channels_first(case, x):
  """Moves an input from our layout to that of PyTorch. Layers have the same in both."""
  x = torch.from_numpy(x)
  if case in cases.LAYERS:
    return x
  return x.movedim(-1, -3).contiguous() if x.shape[-1] == 3 else x.unsqueeze(-3)


def reference(case, model, dtype):
  """Computes PyTorch's results, under the names that parity_cases.ours uses."""
  model, results = copy.deepcopy(model).to(getattr(torch, dtype)), {}
  cast = lambda *which: [
    channels_first(case, x).to(getattr(torch, dtype)) for x in cases.inputs(case, *which)
  ]
  for mode in ('eval', 'train'):
    model.train(mode == 'train')
    model.zero_grad()
    output = model(*cast(0, mode))
    (
      output * torch.from_numpy(cases.draw(case, f'{case}/direction', tuple(output.shape)))
    ).sum().backward()
    results[mode] = output.detach().numpy()
    results.update(
      {
        f'{mode}/{canonical(name)}': p.grad.numpy().copy()
        for name, p in model.named_parameters()
        if p.grad is not None
      }
    )
  with torch.no_grad():
    for number in range(1, cases.STEPS):
      model(*cast(number))
  results.update(
    {f'stats/{name}': x.numpy() for name, x in model.named_buffers() if x.is_floating_point()}
  )
  return results


def canonical(name):
  """Renames the parameters of a weight norm to the older of PyTorch's two styles."""
  return name.replace('parametrizations.weight.original0', 'weight_g').replace(
    'parametrizations.weight.original1', 'weight_v'
  )


def compare(actual, expected):
  """Finds the largest relative difference of any array of each kind.

  A difference is relative to the norm of the array. For a gradient the divisor is at least a
  thousandth of the norm of the whole gradient, since some vanish in exact arithmetic, such as that
  of a bias before a norm.

  Returns {kind: (difference, name of the array)}, with the kinds of KINDS.
  """
  assert actual.keys() == expected.keys(), actual.keys() ^ expected.keys()
  worst = {}
  for name, x in expected.items():
    kind = name.partition('/')[0] + (
      ' gradient' if '/' in name and not name.startswith('stats') else ''
    )
    size = max(np.linalg.norm(x), 1e-3 * scale(expected, name))
    error = float(np.linalg.norm(actual[name] - x) / size)
    if error >= worst.get(kind, (0,))[0]:
      worst[kind] = (error, name)
  return worst


def scale(results, name):
  """Returns the norm of all gradients of a mode together; 0 if `name` is not a gradient."""
  mode = name.partition('/')[0]
  if '/' not in name or mode == 'stats':
    return 0.0
  return float(
    np.sqrt(
      sum(
        np.square(x, dtype=np.float64).sum() for n, x in results.items() if n.startswith(mode + '/')
      )
    )
  )


def write_golden(case, model_shapes, results):
  """Writes PyTorch's results of a case to tests/avjax/golden, rounded to eight digits."""
  cases.GOLDEN.mkdir(exist_ok=True)
  golden = {
    'torch': torch.__version__.split('+')[0],
    'source': model_shapes,
    'outputs': {
      mode: results[mode].ravel()[:512].astype(float).tolist() for mode in ('eval', 'train')
    },
    'scales': {mode: scale(results, mode + '/') for mode in ('eval', 'train')},
    'fingerprints': {name: cases.fingerprint(name, x) for name, x in results.items()},
  }
  text = json.dumps(golden, separators=(',', ':'), sort_keys=True)
  rounded = json.loads(text, parse_float=lambda digits: float(f'{float(digits):.8g}'))
  (cases.GOLDEN / f'{case}.json').write_text(
    json.dumps(rounded, separators=(',', ':'), sort_keys=True) + '\n'
  )


def table_of(results):
  """Formats the results as a Markdown table."""
  lines = [
    '| largest relative difference | output, evaluation | gradients '
    '| output, training | gradients | running averages |',
    '|---|---|---|---|---|---|',
  ]
  for name, row in results['largest_relative_difference'].items():
    lines.append(
      f'| {name} | '
      + ' | '.join(f'{row[kind]:.0e}' if kind in row else '' for kind in KINDS)
      + ' |'
    )
  return '\n'.join(
    [
      *lines,
      '',
      f'jax {results["jax"]} and torch {results["torch"]} on one {results["machine"]} CPU; '
      f'{results["arrays"]:,} arrays compared, the worst of each kind shown.',
    ]
  )


def write(results, block):
  """Writes the results and their block of docs/weights.md, 'parity' or 'ras'; keeps the other's."""
  path, page = DOCS / 'parity.json', DOCS / 'weights.md'
  found = json.loads(path.read_text())
  if block == 'ras':
    results = {'repository': torch_ras.REPOSITORY, 'commit': torch_ras.COMMIT, **results}
    found['ras'] = results
  else:
    found = {**results, 'ras': found['ras']}
  path.write_text(json.dumps(found, indent=1) + '\n')
  page.write_text(fill(page.read_text(), block, table_of(results)))


def main(argv):
  parser = argparse.ArgumentParser(
    prog='python -m benchmarks.parity', description=__doc__.splitlines()[0]
  )
  parser.add_argument(
    '--golden', action='store_true', help="write PyTorch's results to tests/avjax/golden"
  )
  which = parser.add_mutually_exclusive_group()
  which.add_argument('--cases', nargs='*', default=cases.CASES, choices=cases.CASES)
  which.add_argument(
    '--ras', metavar='FOLDER', help=f'a checkout of {torch_ras.REPOSITORY} at {torch_ras.COMMIT}'
  )
  arguments = parser.parse_args(argv[1:])
  chosen = tuple(cases.RAS) if arguments.ras else arguments.cases
  table, failed, arrays = {}, [], 0
  print(
    f'{"largest relative difference":<30}{"eval":>10}{"gradient":>10}'
    f'{"train":>10}{"gradient":>10}{"averages":>10}'
  )
  for case in chosen:
    model = make_reference(case, arguments.ras)
    source = {name: x.numpy().copy() for name, x in model.state_dict().items()}
    for dtype, tolerance in cases.TOLERANCES.items():
      expected = reference(case, model, dtype)
      if arguments.golden and dtype == 'float64':
        write_golden(case, {name: list(x.shape) for name, x in source.items()}, expected)
      arrays += len(expected)
      worst = compare(cases.ours(case, source, dtype), expected)
      table[f'{case}, {dtype}'] = row = {kind: error for kind, (error, _) in worst.items()}
      print(
        f'{case:<20}{dtype:<10}'
        + ''.join(f'{row[kind]:>10.1e}' if kind in row else f'{"":>10}' for kind in KINDS),
        flush=True,
      )
      failed += [
        f'{case}, {dtype}: {kind} differs by {error:.1e} at {name}'
        for kind, (error, name) in worst.items()
        if error > tolerance
      ]
  complete = set(chosen) in (set(cases.CASES), set(cases.RAS))
  if complete and not failed:  # the docs change only if all cases agree
    results = {
      'tolerance': cases.TOLERANCES,
      'jax': jax.__version__,
      'torch': torch.__version__.split('+')[0],
      'numpy': np.__version__,
      'machine': platform.machine(),
      'arrays': arrays,
      'largest_relative_difference': table,
    }
    write(results, 'ras' if arguments.ras else 'parity')
  within = ', '.join(f'{tolerance:g} in {dtype}' for dtype, tolerance in cases.TOLERANCES.items())
  print('\n'.join(failed) or f'all within {within}')
  return 1 if failed else 0


if __name__ == '__main__':
  errors.run_command(main, sys.argv)
