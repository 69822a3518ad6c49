"""Tests that processes share an evaluation out, and that all of them have all of it in the end."""

import json
import os
import random
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from fault.harness import ROOT

from avjax.data.dataset import Records
from avjax.data.records import Layout
from avjax.evaluation import shares
from avjax.evaluation.series import Series
from avjax.system import System
from benchmarks.reading import make_records

LAYOUT = Layout(length=12, stride=8, face=16)
PROCESSES = 3
# What each process does: the number of records that it parses, and the series that it has.
CHILD = """
import json, sys
from avjax.system import sharding
port, number, count, folder, *sets = sys.argv[1:]
sharding.start(f'127.0.0.1:{port}', int(count), int(number))
import jax, tiny
from avjax.data.dataset import Records
from avjax.evaluation import shares
from avjax.system import System

parsed, batches, check = [0], [0], Records._check
def counted(self, batch, clips):
  parsed[-1] += len(batch['clip'])
  return check(self, batch, clips)
def watch(found):
  for batch in found:
    batches[-1] += 1
    yield batch
Records._check = counted
system = System.from_config(tiny.get_config())
variables = sharding.replicate(system.init(0), sharding.make_mesh())
own = sharding.replicate(variables, sharding.make_mesh(jax.local_devices()))
for whole, local in zip(jax.tree.leaves(variables), jax.tree.leaves(own), strict=True):
  places = [{x.device: x.data.unsafe_buffer_pointer() for x in y.addressable_shards}
            for y in (whole, local)]
  assert places[0] == places[1] and len(places[0]) == 2  # nothing was copied
for i, path in enumerate(sets):
  data = Records(path, {'length': 12, 'stride': 8, 'face': 16})
  series = shares.predict_split(
    data, 'chunk5', system, variables, batch_size=4, smooth=5, watch=watch)
  with open(f'{folder}/{number}.{i}', 'wb') as file:
    file.write(shares.pack(series))
  parsed.append(0)
  batches.append(0)
print(json.dumps([parsed, batches]))
"""


def test_every_clip_is_in_one_share():
  """The shares are of like size, and the same whatever the order in which clips are named."""
  rng = random.Random(0)
  clips = {f'clip{i}': rng.randint(1, 9000) for i in range(120)}
  mixed = dict(rng.sample(sorted(clips.items()), len(clips)))
  for count in (1, 2, 7, 64):
    found = shares.share_out(clips, count)
    assert found == shares.share_out(mixed, count) and len(found) == count
    assert sorted(clip for share in found for clip in share) == sorted(clips)
    frames = [sum(clips[clip] for clip in share) for share in found]
    assert max(frames) - min(frames) <= max(clips.values())
    assert max(frames) <= 1.35 * sum(frames) / count
  assert shares.share_out({'b': 5, 'a': 5, 'c': 9}, 4) == [['c'], ['a'], ['b'], []]


def test_series_come_back_as_they_were():
  rng = np.random.default_rng(0)

  def one(n, gates):
    masks = (rng.random(n) < 0.5 for _ in range(3))
    prediction = rng.normal(size=(n, 2)).astype(np.float32)
    return Series(
      np.arange(1, n + 1), rng.random(n), prediction, rng.random((n, 2)), *masks, gates=gates
    )

  series = {
    "10-60 (x)'s_right": one(4, {'a/b': rng.random((4, 3)), 'c': np.full((4, 1), np.nan)}),
    'Frühling': one(0, {}),
  }
  found = dict(shares.unpack(shares.pack(series)))
  assert list(found) == list(series)
  for clip, wanted in series.items():
    jax.tree.map(np.testing.assert_array_equal, vars(found[clip]), vars(wanted))
    kinds = (jax.tree.map(lambda x: x.dtype, vars(x)) for x in (found[clip], wanted))
    assert next(kinds) == next(kinds)
  assert not dict(shares.unpack(shares.pack({})))


@pytest.mark.slow
def test_each_process_reads_its_clips_and_has_all(records, tmp_path):
  """Five clips, and one clip, of which two processes have none."""
  make_records(tmp_path / 'five', LAYOUT, clips_each=5, windows=3)
  sets = [tmp_path / 'five', records]
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  flags = f'{os.environ["XLA_FLAGS"]} --xla_force_host_platform_device_count=2'
  path = os.pathsep.join([str(ROOT), str(ROOT / 'tests' / 'support')])
  words = [str(port), '{}', str(PROCESSES), str(tmp_path), *map(str, sets)]
  children = [
    subprocess.Popen(
      [sys.executable, '-c', CHILD, *(word.format(number) for word in words)],
      cwd=ROOT,
      env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': path},
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(PROCESSES)
  ]
  printed = [child.communicate(timeout=900) for child in children]
  assert not any(child.returncode for child in children), printed
  parsed, batches = zip(*(json.loads(out.splitlines()[-1]) for out, _ in printed), strict=True)
  assert sorted(counts[0] for counts in parsed) == [3, 6, 6]  # of 15 records
  assert sorted(counts[1] for counts in parsed) == [0, 0, 3]
  assert len({tuple(counts) for counts in batches}) == 1  # all ask equally often whether to stop
  system = System.from_config(tiny.get_config())
  for i, folder in enumerate(sets):
    data = Records(folder, vars(LAYOUT))
    wanted = shares.predict_split(
      data, 'chunk5', system, system.init(0), batch_size=4, smooth=5, watch=iter
    )
    contents = [(tmp_path / f'{number}.{i}').read_bytes() for number in range(PROCESSES)]
    assert contents[0] == contents[1] == contents[2]
    found = dict(shares.unpack(contents[0]))
    assert list(found) == list(wanted) == sorted(data.manifest['chunks']['chunk5']['clips'])
    for clip, one in wanted.items():
      assert np.ptp(one.prediction) > 1e-4
      jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6),
        vars(found[clip]),
        vars(one),
      )
