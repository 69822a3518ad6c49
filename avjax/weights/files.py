"""Files of named arrays: what others published (PyTorch, TensorFlow, safetensors) is read here, and our own are written.

A file of ours is a safetensors file with names such as 'params/stage1/unit0/conv1/kernel'. safetensors has no checksum, so
ours carry one over names, shapes, bytes and metadata, and one that does not agree is refused. Nothing that is read here can
run code: PyTorch files are read by its weights-only reader, and no other pickle at all.
"""

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

# torch.hub's rule is that a name ends with the first digits of its SHA-256. A date has digits too, but no letters.
HASHED = re.compile(r'-(10086976|(?=\d*[a-f])[0-9a-f]{8,64})\.(pth|pt)$')
TABLE = 0xdb4775248b80fb57.to_bytes(8, 'little')  # what TensorFlow's older checkpoints end with, which are one file


def save(path, arrays, metadata):
  """Writes {name: array} and {name: string} as a safetensors file with a checksum, in one step. InputError if it exists."""
  check_printable(path, metadata)
  arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
  with files.in_one_step(path) as partial:
    partial.write_bytes(sorted_header(safetensors.numpy.save(arrays, {**metadata, 'sha256': digest(arrays, metadata)})))


def check_printable(path, metadata):
  """Raises InputError where a string has line breaks or control characters, by which it could forge lines of a log or page."""
  for name, text in metadata.items():
    if not (name + text).isprintable():
      raise InputError(f'{path}: its metadata have unprintable characters, {name!r}: {text[:60]!r}')


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
  check_printable(path, metadata)
  wanted = metadata.pop('sha256')
  if digest(arrays, metadata) != wanted:
    raise InputError(f'{path} is damaged: its checksum does not agree; copy or convert it again')
  return arrays, metadata


def digest(arrays, metadata):
  """SHA-256 of arrays with their names, types and shapes, and of the metadata."""
  total = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
  for name in sorted(arrays):
    total.update(json.dumps([name, str(arrays[name].dtype), arrays[name].shape]).encode())
    total.update(arrays[name].tobytes())
  return total.hexdigest()


def read_safetensors(path):
  """Returns ({name: array}, metadata) of any safetensors file."""
  files.check_readable(path)
  try:
    with safetensors.safe_open(path, 'np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
  except Exception as error:  # SafetensorError, and what NumPy says of types it lacks
    raise InputError(f'{path} is no sound safetensors file: {errors.one_line(error)}') from error


def read_published(path):
  """Returns {name: array} of a file or checkpoint that others have published; names of nested dicts are joined by dots.

  PyTorch files (zip or legacy), safetensors, and TensorFlow checkpoints, by their prefix or, of the older kind, their file.
  InputError if it is none of them, is damaged, asks to run code, is a file of ours, or is not what the digits in its name say
  ('resnet50-0676ba61.pth', as torch.hub names files).
  """
  path = pathlib.Path(path)
  if not os.path.isfile(path) and os.path.exists(f'{path}.index'):
    return read_tensorflow(path)
  files.check_readable(path)
  digits = HASHED.search(path.name)
  if digits and not files.sha256(path).startswith(digits[1]):
    raise InputError(f'{path} is damaged: its SHA-256 does not begin with the {digits[1]} of its name; download it again, or '
                     'rename it if they are no SHA-256')
  with open(path, 'rb') as file:
    start = file.read(9)
    file.seek(max(os.path.getsize(path) - len(TABLE), 0))
    end = file.read()
  if start[:2] == b'PK' or start[:1] == b'\x80':
    return read_torch(path)
  if start[8:9] == b'{':
    arrays, metadata = read_safetensors(path)
    if 'avjax' in metadata:
      raise InputError(f'{path} is already converted; it is what config.init takes')
    return arrays
  if end == TABLE:
    return read_tensorflow(path)
  raise InputError(f'{path} is neither a PyTorch file, nor safetensors, nor the prefix of a TensorFlow checkpoint')


def read_torch(path):
  """{name: array} of a PyTorch file, by its weights-only reader, which runs no code. Arrays are views: nothing grows."""
  try:
    import torch
  except ImportError as error:
    raise InputError(f'{path} is a PyTorch file: reading it needs torch, '
                     "pip install -c constraints.txt -e '.[convert]'") from error
  try:
    content = torch.load(path, map_location='cpu', weights_only=True)
  except Exception as error:  # whatever a damaged or hostile file makes it raise
    code = re.search(r'GLOBAL (\S+)', str(error))
    reason = f'it asks to run {code[1]}, which a file of weights has no need of' if code else errors.one_line(error)
    raise InputError(f'{path} cannot be read as a PyTorch state dict: {reason}') from error
  arrays, seen = {}, set()

  def collect(prefix, value):
    if isinstance(value, torch.Tensor):
      if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(f'{path}: {prefix!r} has {value.numel():,} numbers, more than are stored')
      value = value.detach()
      half = value.dtype == torch.bfloat16  # which NumPy has no name for
      arrays[prefix] = value.view(torch.int16).numpy().view(ml_dtypes.bfloat16) if half else value.numpy()
    elif isinstance(value, dict) and id(value) not in seen:  # a dict may be in a file once and in its tree 2^60 times
      seen.add(id(value))
      for key, nested in value.items():
        collect(f'{prefix}.{key}' if prefix else str(key), nested)

  try:
    collect('', content)
  except (RuntimeError, TypeError, RecursionError) as error:
    raise InputError(f'{path} holds tensors that cannot be read: {errors.one_line(error)}') from error
  return arrays


def read_tensorflow(path):
  """{name: array} of a TensorFlow checkpoint; strings are arrays too."""
  import tensorflow as tf  # the only use outside data_prep and dataset.py
  try:
    reader = tf.train.load_checkpoint(str(path))
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}
  except Exception as error:  # TensorFlow's errors have no common class below Exception
    raise InputError(f'{path} is no sound TensorFlow checkpoint: {errors.one_line(error)}') from error


def sha256_of_source(path):
  """Returns the SHA-256 of a published file; of the prefix of a TensorFlow checkpoint, that of its index and data in order."""
  if os.path.isfile(path):
    return files.sha256(path)
  return files.sha256(f'{path}.index', *sorted(glob.glob(f'{glob.escape(str(path))}.data-*')))
