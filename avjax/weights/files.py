"""Reads files of weights that others published (PyTorch, TensorFlow, safetensors) and writes ours.

A file of ours is a safetensors file with names such as 'params/stage1/unit0/conv1/kernel'.
safetensors has no checksum, so ours carry one over names, shapes, bytes and metadata, and a file
whose checksum does not agree is rejected. Nothing that is read here can run code: PyTorch files are
read by PyTorch's weights-only reader, and no other pickle is read at all.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pathlib
import re

import ml_dtypes
import numpy as np
import safetensors.numpy

from avjax import errors, files
from avjax.errors import InputError

Arrays = dict[str, np.ndarray]
Metadata = dict[str, str]

# torch.hub's rule is that a file name ends with the first digits of the file's SHA-256. A date has
# digits too, but no letters; 10086976 is VGGish's.
SHA256_IN_NAME = re.compile(r'-(10086976|(?=\d*[a-f])[0-9a-f]{8,64})\.(pth|pt)$')
# TensorFlow's older checkpoints, which are one file, end with this magic number.
TENSORFLOW_ENDING = 0xDB4775248B80FB57.to_bytes(8, 'little')


def save(path: str | pathlib.Path, arrays: Arrays, metadata: Metadata) -> None:
  """Writes arrays and metadata as a safetensors file with a checksum, in one step.

  Raises InputError if the file exists.
  """
  check_printable(path, metadata)
  arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  with_checksum = {**metadata, 'sha256': digest(arrays, metadata)}
  with files.in_one_step(path) as partial:
    partial.write_bytes(sorted_header(safetensors.numpy.save(arrays, with_checksum)))


def check_printable(path: str | pathlib.Path, metadata: Metadata) -> None:
  """Raises InputError where a string has line breaks or control characters.

  With these it could forge lines of a log or of a page.
  """
  for name, text in metadata.items():
    if not (name + text).isprintable():
      raise InputError(f'{path}: its metadata have unprintable characters, {name!r}: {text[:60]!r}')


def sorted_header(content: bytes) -> bytes:
  """Sorts the metadata in the bytes of a safetensors file.

  The library's own order differs between processes; files with the same content must be equal.
  """
  end = 8 + int.from_bytes(content[:8], 'little')
  header = json.loads(content[8:end])
  header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
  text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text + content[end:]


def load(path: str | pathlib.Path) -> tuple[Arrays, Metadata]:
  """Returns the arrays and metadata of a file that `save` wrote.

  Raises InputError if it is missing, damaged or not ours.
  """
  arrays, metadata = read_safetensors(path)
  if 'sha256' not in metadata:
    raise InputError(f'{path} was not written by avjax; convert it by python -m avjax.pretrained')
  check_printable(path, metadata)
  wanted = metadata.pop('sha256')
  if digest(arrays, metadata) != wanted:
    raise InputError(f'{path} is damaged: its checksum does not agree; copy or convert it again')
  return arrays, metadata


def digest(arrays: Arrays, metadata: Metadata) -> str:
  """Computes the SHA-256 of arrays with their names, types and shapes, and of the metadata."""
  total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name in sorted(arrays):
    array = arrays[name]
    total.update(json.dumps([name, str(array.dtype), array.shape]).encode())
    total.update(array.tobytes())
  return total.hexdigest()


def read_safetensors(path: str | pathlib.Path) -> tuple[Arrays, Metadata]:
  """Returns ({name: array}, metadata) of any safetensors file."""
  files.check_readable(path)
  try:
    with safetensors.safe_open(path, 'np') as file:
      names = file.keys()
      return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
  except Exception as error:  # SafetensorError, and what NumPy says of types it lacks
    raise InputError(f'{path} is not a valid safetensors file: {errors.one_line(error)}') from error


def read_published(path: str | pathlib.Path) -> Arrays:
  """Returns the arrays of a file or checkpoint that others have published.

  It reads PyTorch files (zip or legacy), in which names of nested dicts are joined by dots,
  safetensors, and TensorFlow checkpoints, which are given by their prefix or, where they are of the
  older kind, by their file.
  Raises InputError if it is none of them, is damaged, asks to run code, is a file of ours, or does
  not have the SHA-256 whose digits are in its name ('resnet50-0676ba61.pth', as torch.hub names
  files).
  """
  path = pathlib.Path(path)
  if not os.path.isfile(path) and os.path.exists(f'{path}.index'):
    return read_tensorflow(path)
  files.check_readable(path)
  digits = SHA256_IN_NAME.search(path.name)
  if digits and not files.sha256(path).startswith(digits[1]):
    raise InputError(
      f'{path} is damaged: its SHA-256 does not begin with the {digits[1]} of its name; '
      'download it again, or rename it if these digits are not a SHA-256'
    )
  with open(path, 'rb') as file:
    start = file.read(9)
    file.seek(max(os.path.getsize(path) - len(TENSORFLOW_ENDING), 0))
    end = file.read()
  if start[:2] == b'PK' or start[:1] == b'\x80':
    return read_torch(path)
  if start[8:9] == b'{':
    arrays, metadata = read_safetensors(path)
    if 'avjax' in metadata:
      raise InputError(f'{path} is already converted; it is what config.init takes')
    return arrays
  if end == TENSORFLOW_ENDING:
    return read_tensorflow(path)
  raise InputError(
    f'{path} is neither a PyTorch file, nor safetensors, nor the prefix of a TensorFlow checkpoint'
  )


def read_torch(path: pathlib.Path) -> Arrays:
  """Reads a PyTorch file with PyTorch's weights-only reader, which runs no code.

  The arrays are views of what is stored, so that a small file cannot grow in memory.
  """
  try:
    import torch
  except ImportError as error:
    raise InputError(
      f'{path} is a PyTorch file: reading it needs torch, '
      "pip install -c constraints.txt -e '.[convert]'"
    ) from error
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # whatever a damaged or hostile file makes it raise
    code = re.search(r'GLOBAL (\S+)', str(error))
    reason = (
      f'it asks to run {code[1]}, which a file of weights does not need'
      if code
      else errors.one_line(error)
    )
    raise InputError(f'{path} cannot be read as a PyTorch state dict: {reason}') from error
  arrays, seen = {}, set()

  def collect(prefix, value):
    if isinstance(value, torch.Tensor):
      if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f'{path}: {prefix!r} has {value.numel():,} numbers, more than are stored')
      value = value.detach()
      if value.dtype == torch.bfloat16:  # NumPy has no name for it
        arrays[prefix] = value.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
      else:
        arrays[prefix] = value.numpy()
    # A hostile file may store a dict once and refer to it 2^60 times.
    elif isinstance(value, dict) and id(value) not in seen:
      seen.add(id(value))
      for key, nested in value.items():
        collect(f'{prefix}.{key}' if prefix else str(key), nested)

  try:
    collect('', content)
  except (RuntimeError, TypeError, RecursionError) as error:
    raise InputError(
      f'{path} holds tensors that cannot be read: {errors.one_line(error)}'
    ) from error
  return arrays


def read_tensorflow(path: pathlib.Path) -> Arrays:
  """Reads a TensorFlow checkpoint; strings in it are arrays, too."""
  # Imported late: every run imports this module, and only this format needs TensorFlow.
  import tensorflow as tf

  try:
    reader = tf.train.load_checkpoint(str(path))
    names = reader.get_variable_to_shape_map()
    return {name: np.asarray(reader.get_tensor(name)) for name in names}
  except Exception as error:  # TensorFlow's errors have no common class below Exception
    raise InputError(
      f'{path} is not a valid TensorFlow checkpoint: {errors.one_line(error)}'
    ) from error


def sha256_of_source(path: str | pathlib.Path) -> str:
  """Returns the SHA-256 of a published file.

  For the prefix of a TensorFlow checkpoint it is that of its index and data files, in order.
  """
  if os.path.isfile(path):
    return files.sha256(path)
  return files.sha256(f'{path}.index', *sorted(glob.glob(f'{glob.escape(str(path))}.data-*')))
