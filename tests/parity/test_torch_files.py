"""Tests that PyTorch's files are read in every format in which they are saved.

A file that asks to run code is refused. These tests need torch: `make parity`.
"""

import collections
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs torch: make parity')

from avjax.errors import InputError
from avjax.weights import files as weight_files
from avjax.weights.initialize import initialize
from benchmarks import parity, parity_cases

ROOT = pathlib.Path(__file__).parents[2]
STATE = {
  'input_layer.0.weight': torch.arange(24.0).reshape(4, 6),
  'input_layer.1.running_var': torch.ones(4),
  'input_layer.1.num_batches_tracked': torch.tensor(7),
}


@pytest.mark.parametrize(
  'wrap',
  [
    lambda state: state,
    collections.OrderedDict,
    lambda state: {'epoch': 3, 'state_dict': state, 'arguments': {'name': 'x'}},
    lambda state: {'model': {name: x.half() for name, x in state.items()}},
    lambda state: {
      name: torch.nn.Parameter(x.bfloat16(), False) if x.is_floating_point() else x
      for name, x in state.items()
    },
  ],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_every_way_to_save(tmp_path, wrap, zipped):
  path = tmp_path / 'weights.pth'
  torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
  found = weight_files.read_published(path)
  assert len(found) == len(STATE)
  for name, x in STATE.items():
    (match,) = [value for key, value in found.items() if key.endswith(name)]
    np.testing.assert_array_equal(match, x.numpy())


def test_small_files_that_would_grow(tmp_path):
  """Small files that would grow are read without growing, or refused.

  They hold 2^60 ways to one tensor, a tree that holds itself, and a tensor of many numbers of which
  one is stored.
  """
  path, tree = tmp_path / 'weights.pth', STATE
  for _ in range(60):
    tree = {'a': tree, 'b': tree}
  torch.save(tree, path)
  assert len(weight_files.read_published(path)) == len(STATE)
  tree = dict(STATE)
  tree['itself'] = tree
  torch.save(tree, path)
  assert weight_files.read_published(path).keys() == STATE.keys()
  torch.save(STATE | {'large': torch.zeros(1).expand(250_000_000)}, path)
  with pytest.raises(InputError, match="'large' has 250,000,000 numbers, more than are stored"):
    weight_files.read_published(path)
  torch.save(
    {'part': torch.arange(24.0).reshape(4, 6).T[1:3]}, path
  )  # strides and offsets are sound
  np.testing.assert_array_equal(
    weight_files.read_published(path)['part'], np.arange(24.0).reshape(4, 6).T[1:3]
  )


class Payload:
  """Stands for a hostile file's content: unpickling it would make a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (open, (self.path, 'w'))


@pytest.mark.parametrize('zipped', [True, False])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
  for content in (
    Payload(str(tmp_path / 'run')),
    {'state_dict': STATE, 'x': Payload(str(tmp_path / 'run'))},
    torch.nn.Linear(2, 3),
  ):
    torch.save(content, tmp_path / 'hostile.pth', _use_new_zipfile_serialization=zipped)
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'avjax.pretrained',
        'ir50',
        '--source',
        str(tmp_path / 'hostile.pth'),
        '--output',
        str(tmp_path / 'out'),
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    assert (
      done.returncode == 2 and len(done.stderr.splitlines()) == 1 and 'asks to run' in done.stderr
    ), done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ['hostile.pth']


def test_damaged_files(tmp_path):
  """Files that are cut anywhere, or have a flipped bit, are refused in one line.

  Where the format has no checksum of its own, a flipped bit may be read as it is.
  """
  path, rng = tmp_path / 'weights.pth', random.Random(0)
  for zipped in (True, False):
    torch.save(STATE, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    for i in range(50):
      content = bytearray(data)
      if i % 2:
        content[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
      else:
        del content[rng.randrange(len(data)) :]
      path.write_bytes(content)
      try:
        weight_files.read_published(path)
        assert i % 2, 'a file that was cut is read'
      except InputError as refused:
        assert '\n' not in str(refused)


@pytest.mark.parametrize('case', parity_cases.CONFIGS)
def test_a_predecessor_s_checkpoint_brought_along(tmp_path, case):
  """A checkpoint of the predecessors gives the same predictions through config.init.model.

  The file is model_state_dict.pth, as their trainer saves it; avjax.pretrained makes ours of it.
  """
  from avjax.models.layers import nothing_trainable
  from avjax.system import System

  reference, config = (
    parity.make_reference(case).eval(),
    parity_cases.CONFIGS[case].copy_and_resolve_references(),
  )
  torch.save(reference.state_dict(), tmp_path / 'model_state_dict.pth')
  (tmp_path / 'sizes.py').write_text(
    f'from benchmarks.parity_cases import CONFIGS\nget_config = lambda: CONFIGS[{case!r}]\n'
  )
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'avjax.pretrained',
      'model',
      '--config',
      str(tmp_path / 'sizes.py'),
      '--source',
      str(tmp_path / 'model_state_dict.pth'),
      '--output',
      str(tmp_path / 'ours.safetensors'),
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  config.init.model = str(tmp_path / 'ours.safetensors')
  system = System.from_config(config)
  variables, _ = initialize(config, system.init(5))
  images, log_mel = parity_cases.inputs(case, 3)
  ours = system.model.apply(
    variables, images, log_mel, np.ones(images.shape[:2], bool), nothing_trainable
  )
  theirs = reference(*map(parity.channels_first, (images, log_mel))).detach().numpy()
  assert theirs.std() > 1e-3
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
