"""Turns the fields of a record that a model reads into the input of its towers.

Faces are cropped, flipped and normalised; the log-mel window of each frame is gathered.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from avjax.data.records import MEL_BANDS, WINDOW_ROWS
from avjax.models.audio_visual import FEATURES, MODALITIES

# The fields of a record that each tower reads. Features of another backbone may replace a tower.
TOWER_FIELDS = {'visual': ('faces',), 'audio': ('log_mel', 'starts')}


@dataclasses.dataclass(frozen=True)
class Inputs:
  """Tells which fields of a record a model reads, and prepares them for the towers.

  length: L, frames of a window.
  face: pixels per side of a stored face.
  crop: pixels per side of the image that the tower sees.
  towers: {modality: name of the tower, features/NAME, or none}.
  features: {NAME: width} of features in the records.
  """

  length: int
  face: int
  crop: int
  towers: Mapping[str, str]
  features: Mapping[str, int]

  @property
  def fields(self) -> tuple[str, ...]:
    """The names of the fields of a record that the model reads, in order."""
    read = []
    for modality in MODALITIES:
      tower = self.towers[modality]
      if tower.startswith(FEATURES):
        read.append(tower)
      elif tower != 'none':
        read.extend(TOWER_FIELDS[modality])
    return (*read, 'real')

  def has_input(self, face_present, audio_present):
    """Tells for each frame, (n,) bool, whether it has a face or sound that the model uses."""
    uses = [self.towers[modality] != 'none' for modality in MODALITIES]
    return (uses[0] & face_present) | (uses[1] & audio_present)

  def prepare(self, batch, key=None):
    """Returns the input of the towers, (visual, audio), from a batch on the device.

    visual: images (B,L,crop,crop,3), augmented if there is a key.
    audio: log-mel windows (B,L,96,64).
    Features in place of a tower are passed on. A modality that the model does not use is None.
    """
    prepared = []
    for modality in MODALITIES:
      tower = self.towers[modality]
      if tower == 'none':
        prepared.append(None)
      elif tower.startswith(FEATURES):
        prepared.append(batch[tower])
      elif modality == 'visual':
        prepared.append(images(batch['faces'], self.crop, key))
      else:
        prepared.append(windows(batch['log_mel'], batch['starts']))
    return tuple(prepared)

  def specs(self):
    """Returns {field: (shape, dtype, description)} of the fields that the model reads.

    'clips' and 'rows' in a shape stand for any number.
    """
    length, face = self.length, self.face
    known = {
      'faces': (('clips', length, face, face, 3), np.uint8, 'RGB'),
      'log_mel': (('clips', 'rows', MEL_BANDS), np.float16, 'VGGish log-mel, 100 rows a second'),
      'starts': (('clips', length), np.int32, 'the row at which the window of each frame starts'),
      'real': (('clips', length), np.bool_, 'False on padding'),
    }
    for name, width in self.features.items():
      known[FEATURES + name] = (('clips', length, width), np.float32, 'of another backbone')
    return {name: known[name] for name in self.fields}

  def blank_block(self, rows: int, n: int) -> dict[str, np.ndarray]:
    """Returns a batch of `rows` windows of n frames, all zeros, for frames of any clips.

    The log-mel windows of its frames do not overlap. `real` is False.
    """
    sizes = {'clips': rows, 'rows': n * WINDOW_ROWS, self.length: n}
    # Only the first two axes are replaced: a face may have as many pixels as a window has frames.
    block = {
      name: np.zeros((*(sizes[size] for size in shape[:2]), *shape[2:]), dtype)
      for name, (shape, dtype, _) in self.specs().items()
    }
    if 'starts' in block:
      block['starts'][:] = np.arange(n) * WINDOW_ROWS
    return block

  def copy_frames(self, record, chosen, block, first: int):
    """Copies frames of a record into a block.

    Args:
      record: the fields of one record that the model reads.
      chosen: (k,) which of its L frames.
      block: of `blank_block`.
      first: where in the block they begin, in its order row by row.
    """
    size = block['real'].size
    for name in block.keys() - {'starts'}:
      if name == 'log_mel':
        rows = record['starts'][chosen][:, None] + np.arange(WINDOW_ROWS)
        values = record[name].take(rows, axis=0, mode='clip')  # as JAX reads out of range
      else:
        values = record[name][chosen][:, None]
      # (size,96,64) for log_mel, (size,1,...) for others, and a view of the block
      frames = block[name].reshape(size, -1, *block[name].shape[2:])
      frames[first : first + len(chosen)] = values


def images(faces, crop, key=None):
  """Crops and normalises faces, uint8 (B,L,S,S,3) -> float32 (B,L,crop,crop,3) in [-1, 1].

  With a key, in training, each window gets one random crop and one random flip, the same for all
  its frames; without a key it gets the centre crop. Pixels become (x - 0.5) / 0.5: the 0.5 of the
  paper's section 4.3.2 is the argument of Normalize.
  """
  margin = faces.shape[2] - crop
  if key is None:
    first = margin // 2
    faces = faces[:, :, first : first + crop, first : first + crop]
  else:

    def augment(key, clip):
      crop_key, flip_key = jax.random.split(key)
      row, column = jax.random.randint(crop_key, (2,), 0, margin + 1)
      clip = jax.lax.dynamic_slice(clip, (0, row, column, 0), (clip.shape[0], crop, crop, 3))
      return jnp.where(jax.random.bernoulli(flip_key), clip[:, :, ::-1], clip)

    faces = jax.vmap(augment)(jax.random.split(key, faces.shape[0]), faces)
  return (faces.astype(jnp.float32) / 255 - 0.5) / 0.5


def windows(log_mel, window_starts):
  """Gathers each frame's log-mel window, float32 (B,L,96,64).

  log_mel: rows, float16 (B,R,64). window_starts: the first row of each frame's window, (B,L).
  """
  rows = window_starts[..., None] + jnp.arange(WINDOW_ROWS)[None, None]  # (B,L,96)
  return jax.vmap(lambda mel, index: mel[index])(log_mel, rows).astype(jnp.float32)
