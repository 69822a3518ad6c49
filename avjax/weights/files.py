"""Reads files of weights that others published (PyTorch, TensorFlow, safetensors) and writes ours.

A file of ours is a safetensors file with names such as 'params/stage1/unit0/conv1/kernel'.
safetensors has no checksum, so ours carry one over names, shapes, bytes and metadata, and a file
whose checksum does not agree is rejected. Nothing that is read here can run code: PyTorch files are
read by PyTorch's weights-only reader, and no other pickle is read at all.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from avjax import bounded, errors, files
from avjax.errors import InputError

Arrays = dict[str, np.ndarray]
Metadata = dict[str, str]

# torch.hub's rule is that a file name ends with the first digits of the file's SHA-256. A date has
# digits too, but no letters; 10086976 is VGGish's.
SHA256_IN_NAME = re.compile(r'-(10086976|(?=\d*[a-f])[0-9a-f]{8,64})\.(pth|pt)$')
# TensorFlow's older checkpoints, which are one file, end with this magic number.
TENSORFLOW_ENDING = 0xDB4775248B80FB57.to_bytes(8, 'little')
# How many times its own size a published file may hold. Some list the same array under two names.
GROWTH = 4


def save(path: str | pathlib.Path, arrays: Arrays, metadata: Metadata) -> None:
  """Writes arrays and metadata as a safetensors file with a checksum, in one step.

  path may be on a bucket. Raises InputError if the file exists.
  """
  check_printable(path, metadata)
  arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  with_checksum = {**metadata, 'sha256': digest(arrays, metadata)}
  with files.new_file(path) as local, files.in_one_step(local) as partial:
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

  A file on a bucket is copied first, since safetensors maps a file into memory. Raises InputError
  if it is missing, damaged or not ours.
  """
  path = files.copy_of_file(path)
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
  """Reads a PyTorch file with PyTorch's weights-only reader, which runs no code, in a child."""
  if importlib.util.find_spec('torch') is None:
    raise InputError(
      f'{path} is a PyTorch file: reading it needs torch, '
      "pip install -c constraints.txt -e '.[convert]'"
    )
  return read_in_child(torch_arrays, path, os.path.getsize(path), import_first='torch')


def read_tensorflow(path: pathlib.Path) -> Arrays:
  """Reads a TensorFlow checkpoint in a child; strings in it are arrays, too."""
  parts = files_of(path)
  for part in parts:
    files.check_readable(part)
  size = sum(map(os.path.getsize, parts))
  return read_in_child(tensorflow_arrays, path, size, import_first='tensorflow')


def read_in_child(function: Callable, path: pathlib.Path, size: int, import_first: str) -> Arrays:
  """Collects the arrays that function(path) yields in a child process.

  size: bytes of the file. Raises InputError where the arrays take more than GROWTH times as many.
  """
  arrays, total = {}, 0
  items = bounded.stream(
    function,
    os.fspath(path),
    size=size,
    what=f'{path} cannot be read: it',
    prepare=(importlib.import_module, import_first),
  )
  for header, array in items:
    total += array.nbytes
    check_growth(path, total, size)
    arrays[header['name']] = array
  return arrays


def check_growth(path: str | pathlib.Path, found: int, size: int) -> None:
  """Raises InputError where a file of `size` bytes holds more than GROWTH times as many."""
  if found > GROWTH * size:
    raise InputError(
      f'{path} holds {found:,} bytes in a file of {size:,}: it is compressed, or holds the same '
      'numbers many times; save its arrays once and uncompressed, as torch.save does'
    )


def torch_arrays(path: str) -> Iterator[bounded.Item]:
  """Yields ({'name': ...}, array) of each tensor in a PyTorch file. It runs in a child."""
  import torch

  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as archive:
        stored = sum(entry.file_size for entry in archive.infolist())
      check_growth(path, stored, os.path.getsize(path))
    content = torch.load(path, map_location='cpu', weights_only=True)
  except (InputError, MemoryError):
    raise
  except Exception as error:  # whatever a damaged or hostile file makes them raise
    code = re.search(r'GLOBAL (\S+)', str(error))
    reason = (
      f'it asks to run {code[1]}, which a file of weights does not need'
      if code
      else errors.one_line(error)
    )
    raise InputError(f'{path} cannot be read as a PyTorch state dict: {reason}') from error
  try:
    for name, tensor in named_tensors(torch.Tensor, '', content, set()):
      if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise InputError(f'{path}: {name!r} has {tensor.numel():,} numbers, more than are stored')
      tensor = tensor.detach()
      if tensor.dtype == torch.bfloat16:  # NumPy has no name for it
        array = tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
      else:
        array = tensor.numpy()
      yield {'name': name}, array
  except (RuntimeError, TypeError, RecursionError) as error:
    raise InputError(
      f'{path} holds tensors that cannot be read: {errors.one_line(error)}'
    ) from error


def named_tensors(kind: type, prefix: str, value: Any, seen: set[int]) -> Iterator[tuple]:
  """Yields (name, tensor) of all tensors in nested dicts, names joined by dots.

  seen: ids of the dicts so far. A hostile file may store a dict once and refer to it 2^60 times.
  """
  if isinstance(value, kind):
    yield prefix, value
  elif isinstance(value, dict) and id(value) not in seen:
    seen.add(id(value))
    for key, nested in value.items():
      yield from named_tensors(kind, f'{prefix}.{key}' if prefix else str(key), nested, seen)


def tensorflow_arrays(path: str) -> Iterator[bounded.Item]:
  """Yields ({'name': ...}, array) of each array in a TensorFlow checkpoint. It runs in a child."""
  import tensorflow as tf

  try:
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
      array = np.asarray(reader.get_tensor(name))
      yield {'name': name}, array.astype('S') if array.dtype == object else array
  except MemoryError:
    raise
  except Exception as error:  # TensorFlow's errors have no common class below Exception
    raise InputError(
      f'{path} is not a valid TensorFlow checkpoint: {errors.one_line(error)}'
    ) from error


def files_of(path: str | pathlib.Path) -> list[str]:
  """Returns the files of a published file or of the prefix of a TensorFlow checkpoint, in order."""
  if os.path.isfile(path):
    return [os.fspath(path)]
  return [f'{path}.index', *sorted(glob.glob(f'{glob.escape(str(path))}.data-*'))]


def sha256_of_source(path: str | pathlib.Path) -> str:
  """Returns the SHA-256 of a published file.

  For the prefix of a TensorFlow checkpoint it is that of its index and data files, in order.
  """
  return files.sha256(*files_of(path))
