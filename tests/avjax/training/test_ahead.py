"""Tests what is compiled ahead of time: shapes, collectives, and what is made of them."""

import json
import pathlib

import jax
import numpy as np
import pytest
from support import tiny

from avjax.command_line import load_config
from avjax.errors import InputError
from avjax.evaluation.frames import WindowPredictor
from avjax.system import sharding
from avjax.training import ahead, estimate, plan

PERFORMANCE = pathlib.Path(__file__).parents[3] / 'docs' / 'performance.json'
PROGRAM = """
ENTRY %main {
  %mean.1 = f32[64]{0:T(128)} all-reduce(%a), channel_id=1, to_apply=%add
  %all.2 = (f32[3,3,2,2]{1,3,2,0:T(2,128)}, /*index=1*/bf16[8]{0}, f32[]{:T(128)}) all-reduce(%b)
  %start.3 = f32[5]{0} all-reduce-start(%e), replica_groups={{0,1}}
  %done.4 = f32[5]{0} all-reduce-done(%start.3)
  ROOT %whole.5 = pred[7,2]{1,0} all-gather(%f), dimensions={0}
  %not.6 = f32[999]{0} fusion(%all-reduce.1), kind=kLoop, calls=%all-reduce
}
"""


def test_collectives_by_hand():
  """Tuples, types, scalars and starts are counted; ends, and names in other instructions, not."""
  sums = 4 * 64 + (4 * 36 + 2 * 8 + 4) + 4 * 5
  assert ahead.collectives(PROGRAM) == {'all-reduce': (3, sums), 'all-gather': (1, 14)}


def test_what_the_compiler_says_of_too_little_memory():
  """Its two messages, as libtpu 0.0.42.1 writes them; another one is another mistake."""
  used = 'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm. Ex'
  assert ahead.needed(used, 1000) == 17.5 * 2**30
  many = 'Ran out of memory on HBM, the total memory required for HLO temporaries (76.93G) exceeds '
  assert ahead.needed(many + 'available HBM (15.75G).', 1000) == 76.93 * 2**30 + 1000
  assert ahead.needed('INTERNAL: 17.50G', 1000) is None


def test_roofline_by_hand(monkeypatch):
  rates = ahead.Rates(memory=1.0, bandwidth=10.0, float32=100.0, bfloat16=200.0, network=5.0)
  monkeypatch.setitem(ahead.KINDS, 'mine', rates)
  one, four = (ahead.Devices('mine', count, 1, 1.0) for count in (1, 4))
  row = {'flops': 1000.0, 'accessed': 20.0, 'collectives': {'all-reduce': (1, 40), 'x': (1, 10)}}
  assert ahead.roofline(row, one, 'float32') == 10.0
  assert ahead.roofline(row, four, 'float32') == 10.0 + 2 * 3 / 4 * 50 / 5
  assert ahead.roofline(row, one, 'bfloat16') == 5.0
  assert ahead.roofline(row | {'accessed': 500.0}, one, 'float32') == 50.0
  assert ahead.roofline(row, ahead.Devices('another', 1, 1, 1.0), 'float32') is None


def shapes(tree):
  return jax.tree.map(lambda x: (tuple(np.shape(x)), np.dtype(x.dtype)), tree)


@pytest.fixture
def config(records):
  config = tiny.get_config()
  config.data.dir = str(records)
  return config


def test_the_shapes_are_those_of_a_run(config, records, tmp_path):
  """Each program is compiled for what training and validation on the same records call it with."""
  made = plan.prepare(config, tmp_path / 'run')
  config, sizes = estimate.record_sizes(config)
  assert (sizes.training, sizes.validation) == made.sizes
  mesh = sharding.make_mesh()
  jobs = {job.name: job for job in ahead.jobs(config, mesh, sizes, 16)}
  assert [name for name in jobs if jobs[name].trains] == ['stage 1', 'stage 2', 'stage 3']

  batch = next(made.records.batches(made.train_splits, config.batch_size, 0))
  assert sizes.record == sum(x[0].nbytes for name, x in batch.items() if name != 'clip')
  variables = made.initial_variables()
  for stage in range(3):
    job = jobs[f'stage {stage + 1}']
    state, *rest = job.arguments
    assert shapes(state) == shapes(made.initial_state(stage, variables))
    assert shapes(rest[0]) == shapes(made.system.select(batch))
    assert job.state == sum(x.nbytes for x in jax.tree.leaves(made.initial_state(stage, variables)))
    assert job.runs == made.batches_per_epoch
  calls = {'encode_step': [], 'decode_step': []}
  for name, called in calls.items():
    step = getattr(made.system, name)

    def remember(*arguments, step=step, called=called):
      called.append(shapes(arguments))
      return step(*arguments)

    made.system.__dict__[name] = remember
  rows = [
    {name: x[i] for name, x in batch.items()}
    for batch in made.records.batches([made.validation_split], 4)
    for i in range(len(batch['clip']))
  ]
  list(WindowPredictor(made.system, variables, mesh, config.batch_size).predict(rows))
  for name, part in (('encode_step', 'towers'), ('decode_step', 'windows')):
    job = jobs[f'evaluation, {part}']
    assert {str(call) for call in calls[name]} == {str(shapes(job.arguments))}
  assert jobs['evaluation, windows'].runs == len(calls['decode_step'])
  # Frames of clips that end within a window are counted whole, so blocks may be a few more.
  assert 0 <= jobs['evaluation, towers'].runs - len(calls['encode_step']) <= 2


def test_record_sizes_of_aff_wild2():
  """Without records they are those that docs/performance.json extrapolates, within 2 %."""
  built = json.loads(PERFORMANCE.read_text())['reading']
  _, sizes = estimate.record_sizes(load_config(['--config=configs/grjca.py']))
  records = built['build']['affwild2']['records']
  assert sizes.training + sizes.validation == pytest.approx(records, rel=0.02)
  assert sizes.validation == pytest.approx(records / 6, rel=0.02)
  assert sizes.record == pytest.approx(built['reader']['bytes_per_record'], rel=0.002)


def test_features_need_their_records():
  words = ['--config=configs/aiwell.py', '--config.model.visual.tower=features/clip']
  with pytest.raises(InputError, match='features clip'):
    estimate.record_sizes(load_config(words))


@pytest.mark.parametrize(
  'word',
  ['v5e', 'v5e:4', 'v5e:4x4x4', 'v5p:4x4', 'v5e:0x4', 'v5e:16x32', 'v9:4x4', 'v5litepod-16', ''],
)
def test_what_is_no_slice(word):
  with pytest.raises(InputError, match='none that is known'):
    ahead.tpu_slice(word)


def run_on(clips, devices, **stage):
  """Returns what a run of 600 training and 120 validation records in 10 epochs is told."""
  config = load_config(['--config=configs/grjca.py', '--config.schedule.max_epochs=10'])
  config.batch_size = clips
  row = {'state': 2e9, 'memory': 8e9, 'fits': True, 'trains': True, 'replicated': True}
  row |= {'seconds': 0.5, 'runs': 600 / clips}
  rows = {
    'stage 1': row,
    'stage 2': row | {'seconds': 2.0} | stage,
    'evaluation, towers': row | {'trains': False, 'seconds': 3.0, 'runs': 4, 'replicated': False},
    'film, towers': row | {'trains': False, 'seconds': 100.0, 'runs': 0},
  }
  sizes = ahead.Sizes(training=600, validation=120, rows=1104, record=2_000_000)
  return estimate.summarize(
    config, ahead.Devices('TPU v5 lite', devices, devices // 4, 16e9), sizes, rows
  )


def test_hours_and_batch_by_hand():
  """The slowest stage and validation count, in each epoch; 6 GB are of three clips a device."""
  found = run_on(12, 4)
  hours = 10 * (50 * 2.0 + 4 * 3.0) / 3600
  assert found['hours'] == pytest.approx(hours)
  assert found['chip_hours'] == pytest.approx(4 * hours)
  assert found['protocol_chip_hours'] == pytest.approx(12 * 4 * hours)
  assert found['largest_batch'] == 4 * 7  # 14 GB beside the state, at 2 GB a clip
  assert found['notes'] == []


def test_notes():
  """Padding, reading, a state that is laid out anew, and what does not fit."""
  (padding,) = run_on(12, 16)['notes']
  assert padding.startswith('4 of 16 rows of a batch are padding')
  (reading,) = run_on(800, 8)['notes']  # half of 1,600 MB in the .5 s of the fastest stage
  assert reading.startswith('each of 2 hosts reads 1.6 GB of records a second')
  (anew,) = run_on(12, 4, replicated=False)['notes']
  assert 'compiled anew' in anew
  found = run_on(12, 4, memory=38e9, fits=False)
  assert found['notes'] == ['stage 2 does not fit: it needs 38.0 GB of 16.0']
  assert 'hours' not in found and found['largest_batch'] == 4 * 1  # 14 GB at 12 GB a clip
