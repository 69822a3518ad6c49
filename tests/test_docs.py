"""Checks that pages are what their generators write, and that every linked file exists."""

import importlib
import json
import pathlib
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from avjax.evaluation.results import summarize_run
from benchmarks import (
  equations,
  evidence,
  finetune,
  mutants,
  performance,
  predict,
  saving,
  scale,
  suites,
  systems,
  zoo,
)
from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
README = ROOT / 'README.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted(DOCS.glob('*.md'))]


def load(name):
  return json.loads((DOCS / name).read_text())


BLOCKS = [
  (README, 'evidence', lambda: evidence.table(load('evidence.json')['rows'])),
  (README, 'predict', lambda: predict.summary(load('predict.json'))),
  (DOCS / 'predict.md', 'predict', lambda: predict.details(load('predict.json'))),
  (saving.PAGE, 'saving', lambda: saving.block(load('saving.json'))),
  (DOCS / 'systems.md', 'systems', lambda: systems.table(load('systems.json'))),
  (finetune.PAGE, 'finetune', lambda: finetune.table(load('finetune.json'))),
  (DOCS / 'reliability.md', 'fault', lambda: suites.table('fault')),
  (DOCS / 'security.md', 'attack', lambda: suites.table('attack')),
  (DOCS / 'mutants.md', 'mutants', lambda: mutants.page(load('mutants.json'))),
  *(
    (scale.PAGE, name, lambda block=block: block)
    for name, block in scale.blocks(load('scale.json')).items()
  ),
  *(
    (performance.PAGE, name, lambda block=block: block)
    for name, block in performance.blocks(
      load('performance.json'), load('gpu.json'), load('systems.json')
    ).items()
  ),
]


@pytest.mark.parametrize(
  'page, name, block', BLOCKS, ids=[f'{page.name}-{name}' for page, name, _ in BLOCKS]
)
def test_blocks_are_what_their_benchmarks_write(page, name, block):
  assert fill(page.read_text(), name, block()) == page.read_text()


def test_the_rows_of_a_gpu_are_of_the_runs_that_the_page_names():
  """With another run in docs/gpu.json, what the page says of its runs may have to change."""
  found = load('gpu.json')
  first, second, third = found['runs']
  works = {'train 1': first, 'train 2': second, 'train 3': second, 'predict': second}
  for work, run in works.items():
    own, peer = f'avjax bfloat16 {work}', f'torch compiled {work}'
    assert performance.newest(found, own) is performance.newest(found, own, peer) is run, work
  for work in ('visual', 'folded', 'audio'):
    assert performance.newest(found, f'avjax bfloat16 {work}') is first, work
  assert performance.newest(found, 'torch predecessors train 3') is third


def test_fine_tuning_beats_training_from_scratch_with_each_seed():
  found = load('finetune.json')['seeds']
  assert {int(seed) for seed in found} == {*finetune.SEEDS}
  for rows in found.values():
    assert rows['fine-tuned']['mean'] > rows['from scratch']['mean']


def test_the_scores_of_the_demo(tmp_path):
  """README.md shows the scores of the committed results; without a run, no paths follow them."""
  printed = summarize_run(load('evidence.json')['demo'], ('valence', 'arousal'), tmp_path).strip()
  assert f'<!-- demo -->\n```\n{printed}\n\ncheckpoint ' in README.read_text()


def test_every_equation_has_its_line():
  assert sorted(equations.places()) == list(range(1, 23))
  assert (DOCS / 'equations.md').read_text() == equations.page(), (
    'run python -m benchmarks.equations'
  )


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file(page):
  for target in re.findall(r'\]\(([^)#]+)', page.read_text()):
    assert '://' in target or (page.parent / target).exists(), target


def test_every_row_of_the_ambiguities_is_there():
  rows = re.findall(r'^\| (\d+) \|', (DOCS / 'deviations.md').read_text(), re.M)
  assert list(map(int, rows)) == list(range(1, 61))


def test_the_switches_of_the_page_exist():
  """Every switch that docs/deviations.md names is a key of configs/grjca.py."""
  from avjax.config import flatten
  from configs import grjca

  known = flatten(grjca.get_config())
  for row in re.findall(r'^\| \d+ \|.*\| (.*?) \|$', (DOCS / 'deviations.md').read_text(), re.M):
    for switch in re.findall(r'`([a-z_.]+)`', row):
      if '.' in switch and not switch.startswith('submission'):
        assert any(key == switch or key.startswith(switch + '.') for key in known), switch


def test_flops_by_hand():
  def count(module, *shape):
    x = jnp.zeros(shape)
    params = module.init(jax.random.key(0), x)
    return systems.flops(jax.make_jaxpr(jax.jit(module.apply))(params, x).jaxpr)

  assert count(nn.Dense(7), 3, 5) == 2 * 3 * 5 * 7
  assert count(nn.Conv(6, (3,), padding='VALID'), 2, 10, 4) == 2 * (2 * 8 * 6) * (3 * 4)
  assert count(nn.Conv(8, (3, 3), feature_group_count=4), 1, 5, 5, 8) == 2 * (5 * 5 * 8) * (9 * 2)
  # An LSTM of width 4 over 9 frames of 5: four gates from 5 inputs and 4 states, each frame.
  assert count(nn.RNN(nn.LSTMCell(4)), 2, 9, 5) == 9 * 2 * 2 * 4 * 4 * (5 + 4)
  with pytest.raises(ValueError, match='while'):
    systems.flops(
      jax.make_jaxpr(lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x))(0).jaxpr
    )


@pytest.mark.slow
def test_the_table_of_systems():
  """Every config has a row in docs/systems.json; sizes without towers are measured again."""
  found = load('systems.json')
  assert found.keys() == systems.SYSTEMS.keys() == systems.CONFIGS
  modules = {name: importlib.import_module(f'configs.{name}') for name in found}
  for name, module in modules.items():
    assert found[name]['system'] == module.__doc__.splitlines()[0].removesuffix('.')
    assert found[name]['without_towers'] == systems.measure(
      systems.behind_towers(module.get_config())
    ), name
  assert found['aiwell']['whole'] == systems.measure(modules['aiwell'].get_config())
  causal = {name for name, row in found.items() if not row['sees_later_frames']}
  assert causal == {
    'leader_follower',
    'lfan',
    'can',
    'aiwell',
    'charon',
    'baseline',
    'visual',
    'audio',
    'concatenation',
  }
  # By hand: GRJCA adds to RJCA the 4 gate scores of each modality, and the sum of 4 features that
  # they weigh.
  gates = (512 + 128) * 4
  assert found['grjca']['whole']['flops'] - found['rjca']['whole'][
    'flops'
  ] == 2 * 300 * gates + 2 * 300 * 4 * (512 + 128)
  assert (
    found['grjca']['whole']['parameters'] - found['rjca']['whole']['parameters'] == gates + 2 * 4
  )


def test_the_results_of_every_system():
  found = load('results.json')
  assert (DOCS / 'results.md').read_text() == zoo.page(found), 'run make zoo'
  assert {name.split(',')[0] for name in found['rows']} == systems.CONFIGS
