"""Files of named arrays: what others published (PyTorch, TensorFlow, safetensors) is read here, and our own are written.

A file of ours is a safetensors file with names such as 'params/stage1/unit0/conv1/kernel'. safetensors has no checksum, so
ours carry one over names, shapes, bytes and metadata, and one that does not agree is refused. Nothing that is read here can
run code: PyTorch files are read by its weights-only reader, and no other pickle at all.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil

import numpy as np
import safetensors.numpy

from data_prep.errors import InputError


def save(path, arrays, metadata):
  """Writes {name: array} and {name: string} as a safetensors file with a checksum, in one step. InputError if it exists."""
  path = pathlib.Path(path)
  if path.exists():
    raise InputError(f'{path} exists; it is not overwritten')
  arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  partial = path.with_name(path.name + '.partial')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = safetensors.numpy.save(arrays, {**metadata, 'sha256': digest(arrays, metadata)})
    partial.write_bytes(sorted_header(content))
    partial.replace(path)
  except (OSError, safetensors.SafetensorError) as error:
    partial.unlink(missing_ok=True)
    raise InputError(f'{path} cannot be written: {error}') from error


def sorted_header(content):
  """A safetensors file whose metadata are in order: the library's order is another one in each process."""
  end = 8 + int.from_bytes(content[:8], 'little')
  header = json.loads(content[8:end])
  header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
  text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text + content[end:]


def load(path):
  """Returns ({name: array}, {name: string}) of a file that `save` wrote. InputError if it is missing, damaged or not ours."""
  arrays, metadata = read_safetensors(path)
  if 'sha256' not in metadata:
    raise InputError(f'{path} was not written by avjax; convert it by python -m avjax.pretrained')
  wanted = metadata.pop('sha256')
  if digest(arrays, metadata) != wanted:
    raise InputError(f'{path} is damaged: its checksum does not agree; copy or convert it again')
  return arrays, metadata


def digest(arrays, metadata):
  """SHA-256 of arrays with their names, types and shapes, and of the metadata."""
  total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name in sorted(arrays):
    total.update(json.dumps([name, str(arrays[name].dtype), arrays[name].shape]).encode())
    total.update(arrays[name])
  return total.hexdigest()


def read_safetensors(path):
  """Returns ({name: array}, metadata) of any safetensors file."""
  check_readable(path)
  try:
    with safetensors.safe_open(path, 'np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except Exception as error:  # SafetensorError, and what NumPy says of types it lacks
    raise InputError(f'{path} is no sound safetensors file: {brief(error)}') from error


def read_published(path):
  """Returns {name: array} of a file or checkpoint that others have published; names of nested dicts are joined by dots.

  PyTorch files (zip or legacy), safetensors, and TensorFlow checkpoints by their prefix. InputError if it is none of them,
  is damaged, asks to run code, or is not what the digits in its name say ('vggish-10086976.pth', as torch.hub names files).
  """
  path = pathlib.Path(path)
  if path.with_name(path.name + '.index').exists():
    return read_tensorflow(path)
  check_readable(path)
  digits = re.search(r'-([0-9a-f]{8,64})\.(pth|pt)$', path.name)
  if digits and not sha256_of_file(path).startswith(digits[1]):
    raise InputError(f'{path} is damaged: its SHA-256 does not begin with the {digits[1]} of its name; download it again')
  with open(path, 'rb') as file:
    start = file.read(9)
  if start[:2] == b'PK' or start[:1] == b'\x80':
    return read_torch(path)
  if start[8:9] == b'{':
    return read_safetensors(path)[0]
  raise InputError(f'{path} is neither a PyTorch file, nor safetensors, nor the prefix of a TensorFlow checkpoint')


def read_torch(path):
  """{name: array} of a PyTorch file, by its weights-only reader, which runs no code."""
  try:
    import torch
  except ImportError as error:
    raise InputError(f"{path} is a PyTorch file: reading it needs torch, pip install -c constraints.txt -e '.[convert]'") from error
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # whatever a damaged or hostile file makes it raise
    code = re.search(r'GLOBAL (\S+)', str(error))
    reason = f'it asks to run {code[1]}, which a file of weights has no need of' if code else brief(error)
    raise InputError(f'{path} cannot be read as a PyTorch state dict: {reason}') from error
  arrays = {}

  def collect(prefix, value):
    if isinstance(value, torch.Tensor):
      value = value.detach()
      arrays[prefix] = (value.float() if value.is_floating_point() else value).contiguous().numpy()
    elif isinstance(value, dict):
      for key, nested in value.items():
        collect(f'{prefix}.{key}' if prefix else str(key), nested)

  try:
    collect('', content)
  except (RuntimeError, TypeError, RecursionError) as error:
    raise InputError(f'{path} holds tensors that cannot be read: {brief(error)}') from error
  return arrays


def read_tensorflow(path):
  """{name: array} of a TensorFlow checkpoint."""
  import tensorflow as tf  # the only use outside data_prep and dataset.py
  try:
    reader = tf.train.load_checkpoint(str(path))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
  except Exception as error:  # TensorFlow's errors have no common class below Exception
    raise InputError(f'{path} is no sound TensorFlow checkpoint: {brief(error)}') from error


def check_readable(path):
  """Raises InputError unless path is a file that may be read."""
  try:
    if not os.path.isfile(path):
      raise InputError(f'{path} is no file' if os.path.exists(path) else f'{path} does not exist')
    open(path, 'rb').close()
  except OSError as error:
    raise InputError(f'{path}: {error.strerror}') from error


def sha256_of_file(path):
  """The SHA-256 of a file's bytes; of a TensorFlow checkpoint, that of its files one after another."""
  path = pathlib.Path(path)
  total = hashlib.sha256()
  for part in [path] if path.is_file() else sorted(path.parent.glob(path.name + '.*')):
    with open(part, 'rb') as file:
      while block := file.read(1 << 20):
        total.update(block)
  return total.hexdigest()


def remove_folder(path):
  """Removes what an export that was killed has left."""
  shutil.rmtree(path, ignore_errors=True)


def brief(error):
  """The beginning of an error's message, on one line."""
  return ' '.join(str(error).split())[:100] or type(error).__name__
