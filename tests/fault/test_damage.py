"""Tests checkpoints and records with flipped bits, or cut, swapped or removed."""

import pathlib
import random
import shutil
import struct

import jax
import numpy as np
import pytest

from avjax.data import manifest
from avjax.errors import InputError
from avjax.runs import checkpoint
from data_prep import verify
from fault.harness import call, files, flags, one_line


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A folder with two states, and what they hold."""
  workdir = tmp_path_factory.mktemp('saved')
  rng = np.random.default_rng(0)
  states = {
    step: {
      'params': {
        'a': rng.normal(size=(40, 30)).astype(np.float32),
        'b': rng.normal(size=7).astype(np.float32),
      },
      'opt_state': {'count': np.int32(step)},
    }
    for step in (1, 2)
  }
  checkpoints = checkpoint.Checkpoints(workdir)
  for step, state in states.items():
    checkpoints.save(
      checkpoints.last,
      step,
      state,
      {'schedule': {'epoch': step, 'best_epoch': -1, 'best': 0.1234}, 'log': [[1.5, 2.25]]},
    )
  checkpoints.close()
  return workdir, states


def flip(path, rng):
  data = bytearray(path.read_bytes())
  data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


@pytest.mark.slow
def test_single_bits_of_a_checkpoint(saved, tmp_path, full, record):
  """After a flip in any file of the newest state no restore is silently wrong.

  The state is restored as it was saved, or the state before is, with one line of warning.
  """
  workdir, states = saved
  shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype), states[1])
  rng, silent, back = random.Random(0), 0, 0
  newest = 'checkpoints/last/2'
  names = [
    path.relative_to(workdir)
    for path in sorted((workdir / newest).rglob('*'))
    if path.is_file() and path.stat().st_size
  ]
  flips = 200 if full else 25
  for i in range(flips):
    copy = pathlib.Path(shutil.copytree(workdir, tmp_path / str(i)))
    flip(
      copy / rng.choices(names, [(workdir / name).stat().st_size ** 0.5 for name in names])[0], rng
    )
    checkpoints = checkpoint.Checkpoints(copy, read_only=True)
    state, meta, _, notes = checkpoints.restore_last(lambda meta: shape, None)
    checkpoints.close()
    step = meta['schedule']['epoch']
    sound = (
      step in states
      and meta['schedule'] == {'epoch': step, 'best_epoch': -1, 'best': 0.1234}
      and meta['log'] == [[1.5, 2.25]]
      and all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(states[step]), strict=True)
      )
    )
    silent += not sound
    back += step == 1
    assert len(notes) == (step == 1), notes
    shutil.rmtree(copy)
  record(
    'single-bit flips of a checkpoint: flips, silently wrong restores, '
    'steps back to the state before',
    [flips, silent, back],
  )
  assert silent == 0 and back > flips / 4


@pytest.mark.slow
def test_every_state_damaged(records, tmp_path):
  """If no state is valid, there is one error line and exit code 2, and nothing is written."""
  workdir = tmp_path / 'run'
  done = call(*flags(workdir, records, '--config.schedule.max_epochs=1'))
  assert done.returncode == 0, done.stderr
  for path in (workdir / 'checkpoints' / 'last').rglob('*'):
    if path.is_file() and path.name == 'metadata':
      path.write_bytes(b'\0' * path.stat().st_size)
  before = files(workdir)
  done = call(*flags(workdir, records, '--config.schedule.max_epochs=1'))
  assert done.returncode == 2 and one_line(done.stderr) and 'all checkpoints' in done.stderr, (
    done.stderr
  )
  assert files(workdir) == before


def lengths(data):
  """Returns where the records of a TFRecord file end."""
  ends = [0]
  while ends[-1] < len(data):
    ends.append(ends[-1] + 16 + struct.unpack('<Q', data[ends[-1] : ends[-1] + 8])[0])
  return ends


def test_damaged_records_are_found_and_named(records, tmp_path, full, record):
  """data_prep.verify finds every damage and names the file."""
  rng, folder = (
    random.Random(0),
    manifest.version_folder(shutil.copytree(records, tmp_path / 'records')),
  )
  shards = sorted(folder.glob('*.tfrecord*'))
  original = {path: path.read_bytes() for path in folder.iterdir()}

  def damage(path, content):
    return lambda: path.write_bytes(content)

  damages = []
  for path in shards:
    data = original[path]
    damages += [
      (path, damage(path, b'')),
      (path, damage(path, data[: lengths(data)[-2]])),
      (path, damage(path, data[: rng.randrange(1, len(data))])),
      (path, path.unlink),
    ]
  for _ in range(200 if full else 40):
    path = rng.choice(shards)
    data = bytearray(original[path])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    damages.append((path, damage(path, bytes(data))))
  a, b = shards[:2]
  damages.append((a, lambda: (a.write_bytes(original[b]), b.write_bytes(original[a]))))
  stray = folder / 'affwild2-chunk0.tfrecord-00007-of-00009'
  damages.append((stray, damage(stray, original[a])))
  found = 0
  for path, act in damages:
    act()
    with pytest.raises(InputError) as refused:
      verify.verify(folder)
    found += path.name in str(refused.value)
    if stray.exists():
      stray.unlink()
    for path, content in original.items():
      path.write_bytes(content)
  # A manifest of another build over these shards.
  made = folder / 'manifest.json'
  made.write_text(made.read_text().replace('"sha256": "', '"sha256": "0', 1))
  with pytest.raises(InputError):
    verify.verify(folder)
  record('damaged TFRecords: damages, found with the file named', [len(damages), found])
  assert found == len(damages)
