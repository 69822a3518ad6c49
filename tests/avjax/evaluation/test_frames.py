"""Tests that evaluation encodes each frame once, and predicts what whole windows give."""

import functools
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

from avjax.data.records import Layout
from avjax.evaluation import frames
from avjax.evaluation.series import predict_records
from avjax.system import System, sharding
from data_prep.clips import DecodedClip, clip_records

WIDTH = 6  # of features of another backbone
# Frame ids of each clip, in windows of 12 that start every 8: shorter than a window; exactly one;
# one frame more; three windows, of which the last overlaps more; gaps; one clip with the ids of
# the one before.
CLIPS = {
  'short': range(1, 7),
  'one': range(3, 15),
  'more': range(1, 14),
  'three': range(1, 24),
  'gaps': [*range(1, 9), *range(30, 41), *range(42, 60, 2)],
  'same': [*range(1, 9), *range(30, 41), *range(42, 60, 2)],
}
DISTINCT = sum(map(len, CLIPS.values()))  # 110, a multiple of the smaller block


def make_records(clips, seed=0):
  """Returns the records of clips with random content, in the order of windows."""
  rng, records = np.random.default_rng(seed), []
  layout = Layout(length=12, stride=8, face=16, features={'given': WIDTH})
  for name, ids in clips.items():
    n = len(ids)
    clip = DecodedClip(
      name=name,
      frames=np.array(ids, np.int32),
      times=np.float32(ids) / 25,
      labels=rng.uniform(-1, 1, (n, 2)).astype(np.float32),
      annotated=rng.random(n) < 0.8,
      faces=rng.integers(0, 256, (n, 16, 16, 3), np.uint8),
      face_present=rng.random(n) < 0.8,
      log_mel=rng.normal(-3, 2, (4 * ids[-1] + 96, 64)).astype(np.float16),
      window_starts=4 * (np.array(ids, np.int32) - 1),
      audio_present=rng.random(n) < 0.8,
      features={'given': rng.normal(size=(n, WIDTH)).astype(np.float32)},
      unreadable=0,
      cut=0,
    )
    records.extend(clip_records(clip, layout))
  return records


def in_batches(records, size):
  """Yields batches of records as `Records.batches` does."""
  longest = max(len(record['log_mel']) for record in records)
  for first in range(0, len(records), size):
    batch = [dict(record) for record in records[first : first + size]]
    for record in batch:
      missing = longest - len(record['log_mel'])
      record['log_mel'] = np.pad(record['log_mel'], [(0, missing), (0, 0)])
      record['clip'] = record['clip'].encode()
    yield {name: np.array([record[name] for record in batch]) for name in batch[0]}


@functools.cache
def made(kind):
  """Returns a small system that reads what `kind` says, and its variables."""
  config = tiny.get_config()
  if kind in ('visual', 'audio'):
    config.model['audio' if kind == 'visual' else 'visual'].tower = 'none'
    config.model.fusion = {'name': kind}
  if kind in ('features and audio', 'features'):
    config.model.visual.tower, config.data.features = 'features/given', {'given': WIDTH}
  if kind == 'features':
    config.model.audio.tower = 'none'
    config.model.fusion = {'name': 'visual'}
  system = System.from_config(config)
  return system, system.init(0)


@functools.cache
def wanted_of(kind):
  return whole_windows(make_records(CLIPS), *made(kind))


def whole_windows(records, system, variables):
  """Predicts each record by itself, and averages: {clip: {frame: {name: numbers}}}."""
  encode, decode, found = jax.jit(system.encode), jax.jit(system.decode), {}
  for batch in in_batches(records, 1):
    fields = {name: batch[name] for name in system.inputs.fields}
    visual, audio = encode(variables, fields)
    output = decode(variables, visual, audio, batch['real'])
    for i in range(12):
      if batch['real'][0, i]:
        clip = found.setdefault(batch['clip'][0].decode(), {})
        frame = clip.setdefault(int(batch['frames'][0, i]), {})
        frame.setdefault('prediction', []).append(output['prediction'][0, i])
        for name, scores in output['gates'].items():
          frame.setdefault(name, []).append(scores[0, i])
  return {
    clip: {
      k: {name: np.mean(values, axis=0) for name, values in by_name.items()}
      for k, by_name in by_frame.items()
    }
    for clip, by_frame in found.items()
  }


def predict(records, system, variables, size, batch_size=None):
  mesh = sharding.make_mesh()
  batches = in_batches(records, size)
  variables = sharding.replicate(variables, mesh)
  return predict_records(batches, system, variables, mesh, batch_size=batch_size or size, smooth=1)


def compare(records, series, wanted):
  """Compares all fields of the series with those of the records and the wanted predictions."""
  assert list(series) == sorted(wanted)
  for clip, found in series.items():
    assert found.frames.tolist() == sorted(wanted[clip])
    by_frame = [wanted[clip][k] for k in found.frames.tolist()]
    predictions = np.stack([frame['prediction'] for frame in by_frame])
    assert np.ptp(predictions) > 1e-3
    np.testing.assert_allclose(found.prediction, predictions, rtol=0, atol=1e-6)
    assert {'prediction', *found.gates} == set(by_frame[0])
    for name, scores in found.gates.items():
      gates = np.stack([frame[name] for frame in by_frame])
      np.testing.assert_allclose(scores, gates, rtol=0, atol=1e-6)
    for record in records:
      if record['clip'] == clip:
        rows = np.searchsorted(found.frames, record['frames'][record['real']])
        for name in ('times', 'annotated', 'face_present', 'audio_present'):
          np.testing.assert_array_equal(getattr(found, name)[rows], record[name][record['real']])
        np.testing.assert_array_equal(found.labels[rows], record['va'][record['real']])


@pytest.mark.parametrize('block', [5, 512])
@pytest.mark.parametrize('size', [1, 3, 20])
@pytest.mark.parametrize('order', ['of windows', 'backwards', 'mixed', 'alternating'])
def test_as_whole_windows(order, size, block, monkeypatch):
  """Predictions are those of whole windows, in every order of records and size of batches.

  A block of 5 frames ends within windows, one of 512 holds several batches.
  """
  monkeypatch.setattr(frames, 'BLOCK_FRAMES', block)
  records, (system, variables) = make_records(CLIPS), made('both')
  by_order = {
    'of windows': range(len(records)),
    'backwards': range(len(records))[::-1],
    'mixed': np.random.default_rng(2).permutation(len(records)),
    'alternating': sorted(range(len(records)), key=lambda i: int(records[i]['window'])),
  }
  ordered = [records[i] for i in by_order[order]]
  compare(records, predict(ordered, system, variables, size), wanted_of('both'))


@pytest.mark.parametrize('kind', ['visual', 'audio', 'features and audio', 'features'])
def test_systems_with_other_inputs(kind, monkeypatch):
  monkeypatch.setattr(frames, 'BLOCK_FRAMES', 7)
  records, (system, variables) = make_records(CLIPS), made(kind)
  compare(records, predict(records, system, variables, 4), wanted_of(kind))


def test_on_four_devices():
  """The tests above pass in a process with four devices."""
  code = (
    'import jax, pytest, sys; assert jax.device_count() == 4; '
    f'sys.exit(pytest.main([{__file__!r}, "-q", "-p", "no:cacheprovider", "-k", '
    '"mixed or windows or other_inputs or padding or once"]))'
  )
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=4'
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'XLA_FLAGS': flags},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('block', [5, 512])
def test_each_frame_is_encoded_once(block, monkeypatch):
  """The frames that are encoded are those of the clips, rounded up to blocks, and no padding."""
  monkeypatch.setattr(frames, 'BLOCK_FRAMES', block)
  records, (system, variables) = make_records(CLIPS), made('both')
  system, encode, blocks = System(**vars_of(system)), system.encode_step, []

  def counted(variables, batch):
    blocks.append(np.asarray(batch['real']))
    return encode(variables, batch)

  vars(system)['encode_step'] = counted
  series = predict(records, system, variables, 3)
  assert sum(len(found.frames) for found in series.values()) == DISTINCT
  size = blocks[0].size
  assert size == len(jax.devices()) * min(block, -(-3 // len(jax.devices())) * 12)
  assert len(blocks) == -(-DISTINCT // size) and {x.size for x in blocks} == {size}
  assert [int(x.sum()) for x in blocks] == [
    *[size] * (DISTINCT // size),
    *[DISTINCT % size] * (DISTINCT % size > 0),
  ]


def vars_of(system):
  """Returns the fields of a System, without what it has compiled."""
  return {name: getattr(system, name) for name in system.__dataclass_fields__}


def test_one_compilation():
  """Two evaluations, with other numbers of records, compile each program once."""
  system = System(**vars_of(made('both')[0]))
  records = make_records(CLIPS)
  for chosen in (records, records[:5]):
    predict(chosen, system, made('both')[1], 3)
  assert system.encode_step._cache_size() == system.decode_step._cache_size() == 1


def test_a_record_of_padding_only(monkeypatch):
  """A record of which no frame is real changes nothing; a clip of such records has no frames."""
  monkeypatch.setattr(frames, 'BLOCK_FRAMES', 5)
  records, (system, variables) = make_records({'a': range(1, 14), 'b': range(1, 4)}), made('both')
  wanted = whole_windows(records, system, variables)
  empty = {**records[0], 'clip': 'empty', 'real': np.zeros(12, bool)}
  for place in (0, 1, 3):
    series = predict([*records[:place], empty, *records[place:]], system, variables, 2)
    assert len(series.pop('empty').frames) == 0
    compare(records, series, wanted)
  assert len(predict([empty], system, variables, 2)['empty'].frames) == 0


def test_memory_does_not_grow_with_the_clip(monkeypatch):
  """Only the features of a few windows are kept, however many there are."""
  monkeypatch.setattr(frames, 'BLOCK_FRAMES', 5)
  system, variables = made('both')
  records = make_records({'long': range(1, 400), 'other': range(1, 400)})
  predictor, most = frames.WindowPredictor(system, variables, sharding.make_mesh(), 1), []

  def watched():
    for batch in in_batches(records, 1):
      most.append((len(predictor.numbers), len(predictor.waiting)))
      yield {name: values[0] for name, values in batch.items()}

  assert len(list(predictor.predict(watched()))) == len(records)
  assert max(kept for kept, _ in most) <= 3 * 12 and max(waiting for _, waiting in most) <= 3
  assert len(predictor.numbers) <= 12


def test_the_device_has_work_while_the_host_waits(monkeypatch):
  """A result is fetched once the next one is dispatched, and no later."""
  events = []

  def dispatched():
    for i in range(3):
      events.append(f'dispatch {i}')
      yield i, i

  monkeypatch.setattr(jax, 'device_get', lambda i: events.append(f'fetch {i}') or 10 * i)
  assert list(frames.fetch_late(dispatched())) == [(0, 0), (1, 10), (2, 20)]
  assert events == [
    *('dispatch 0', 'dispatch 1', 'fetch 0', 'dispatch 2', 'fetch 1', 'fetch 2'),
  ]
