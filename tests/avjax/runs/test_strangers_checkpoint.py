"""Tests checkpoints in the run of a stranger: their arrays, and what is said of them."""

import json
import shutil

import numpy as np
import pytest
import tensorstore
from fault.harness import why_not_loaded
from orbax.checkpoint import CheckpointManager

from avjax import bounded
from avjax.runs import arrays
from avjax.runs.checkpoint import json_sha256
from avjax.runs.load import load_best
from avjax.training.state import check_meta

pytestmark = pytest.mark.attack('runs: links, settings, metrics, checkpoints')


def open_store(workdir):
  """Opens the store of the best state's arrays, as a person may who has TensorStore."""
  base = f'file://{workdir}/checkpoints/best/1/state/'
  return tensorstore.KvStore.open({'driver': 'ocdbt', 'base': base}).result()


def change_arrays(workdir, key, change):
  """Rewrites one key of the store."""
  store = open_store(workdir)
  store.write(key, change(store.read(key).result().value)).result()


@pytest.mark.parametrize(
  'changed, words',
  [
    ({'shape': [1 << 40]}, 'is not of the shape'),
    ({'shape': [1 << 40], 'chunks': [1 << 40]}, 'is not of the shape'),
    ({'chunks': [1 << 50]}, 'is not of the shape'),
    ({'chunks': [0]}, 'best/1 '),
    ({'dtype': '<f8'}, 'is not of the shape'),
    ({'dtype': 'nonsense'}, 'best/1 '),
    ({'compressor': {'id': 'none of these'}}, 'best/1 '),
  ],
)
def test_arrays_that_are_not_the_models(workdir, changed, words):
  """TensorStore ends the process that asks for a chunk that memory cannot hold."""
  key = next(k for k in keys(workdir) if k.endswith('bias/.zarray'))
  change_arrays(workdir, key, lambda text: json.dumps(json.loads(text) | changed).encode())
  assert words in why_not_loaded(workdir)


def keys(workdir):
  return [key.decode() for key in open_store(workdir).list().result()]


def test_arrays_in_another_format_beside_those_that_were_checked(workdir):
  """Orbax reads the format that `_METADATA` names."""
  path = workdir / 'checkpoints/best/1/state/_METADATA'
  own = json.loads(path.read_text())
  for other in ({'use_zarr3': True}, {'use_ocdbt': False}):
    path.write_text(json.dumps(own | other))
    line = why_not_loaded(workdir)
    assert 'best/1 cannot be restored (its state/_METADATA names a format that avjax does' in line
  path.write_text(json.dumps(own))
  load_best(workdir)
  name, store = keys(workdir)[0].rpartition('/')[0], open_store(workdir)
  for key in (f'{name}/zarr.json', 'other/0.0'):
    store.write(key, b'{}').result()
    assert f'arrays are not those of the model, such as {key}' in why_not_loaded(workdir)
    store.delete_range(tensorstore.KvStore.KeyRange(key, key + '\0')).result()


def test_a_version_that_is_none_is_no_advice(workdir):
  path = workdir / 'versions.json'
  versions = json.loads(path.read_text())
  shutil.rmtree(workdir / 'checkpoints/best/1/state/d')
  for version, said in (('0.7.0', True), ('0.7.0 --extra-index-url https://a.example', False)):
    path.write_text(json.dumps(versions | {'orbax-checkpoint': version}))
    assert ('install orbax-checkpoint==0.7.0' in why_not_loaded(workdir)) == said


def test_arrays_outside_the_store(workdir):
  """Orbax would take them from files, where `_METADATA` says so."""
  state = workdir / 'checkpoints/best/1/state'
  (state / 'params.head.bias').mkdir()
  assert 'holds a folder params.head.bias that Orbax did not make' in why_not_loaded(workdir)


def test_a_model_that_its_bytes_cannot_hold(workdir, monkeypatch):
  monkeypatch.setattr(arrays, 'memory_for', lambda size: 0.01 * size)
  assert 'bytes cannot hold the' in why_not_loaded(workdir)


@pytest.mark.parametrize('changed', [{'epoch': '<b>'}, {'epoch': None}, {'ccc': 'high'}])
def test_a_best_epoch_that_is_none(workdir, changed):
  path = workdir / 'checkpoints/best/1/meta/metadata'
  meta = json.loads(path.read_text()) | changed
  meta['digest'] = json_sha256({name: x for name, x in meta.items() if name != 'digest'})
  path.write_text(json.dumps(meta))
  assert 'its meta lacks an epoch or ccc' in why_not_loaded(workdir)


def test_the_meta_of_a_state():
  from avjax.runs.damage import Foreign
  from avjax.training.state import RunState
  from avjax.training.unfreezing import Schedule

  meta = json.loads(json.dumps(RunState(None, Schedule(3)).to_meta()))
  check_meta(meta, 3)
  schedule = meta['schedule']
  for wrong in (
    {'schedule': []},
    {'schedule': schedule | {'stage': 3}},
    {'schedule': schedule | {'stage': -1}},
    {'schedule': schedule | {'best': '1'}},
    {'schedule': schedule | {'other': 1}},
    {'batches_done': 1},
    {'skipped': 'x'},
  ):
    with pytest.raises(Foreign):
      check_meta(meta | wrong, 3)


def test_an_array_that_unpacks_to_any_number_of_bytes(workdir, tmp_path, monkeypatch):
  """A chunk of some kilobytes that TensorStore would unpack to 512 MiB."""
  large = {
    'driver': 'zarr',
    'kvstore': f'file://{tmp_path}/large',
    'metadata': {
      'compressor': {'id': 'zstd', 'level': 1},
      'dtype': '|u1',
      'shape': [1 << 29],
      'chunks': [1 << 29],
    },
    'store_data_equal_to_fill_value': True,
  }
  store = tensorstore.open(large, create=True).result()
  store.write(np.zeros(1, np.uint8)).result()
  packed = (tmp_path / 'large' / '0').read_bytes()
  assert len(packed) < 1 << 16
  key = next(key for key in keys(workdir) if key.endswith('/0'))
  change_arrays(workdir, key, lambda _: packed)
  monkeypatch.setattr(bounded, 'MEMORY', 1 << 28)
  monkeypatch.setattr(CheckpointManager, 'restore', only_meta(CheckpointManager.restore))
  assert 'checkpoints/best/1 ' in why_not_loaded(workdir)


def only_meta(restore):
  """Returns Orbax's restore of JSON; arrays are refused before it is asked for them."""

  def checked(self, step, args):
    assert set(args) == {'meta'}
    return restore(self, step, args=args)

  return checked
