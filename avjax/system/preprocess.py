"""What happens to a batch on the device, inside jit: crop and flip, normalise, gather the log-mel windows."""

import jax
import jax.numpy as jnp

from avjax.data.records import WINDOW_ROWS


def images(faces, crop, key=None):
  """uint8 faces (B,L,S,S,3) -> float images (B,L,crop,crop,3) in [-1, 1].

  With a key, one random crop and one random flip per clip, the same for all its frames (training); without, the centre
  crop. Pixels are (x - 0.5) / 0.5: the 0.5 of the paper's section 4.3.2 is Normalize's argument.
  """
  room = faces.shape[2] - crop
  if key is None:
    faces = faces[:, :, room // 2:room // 2 + crop, room // 2:room // 2 + crop]
  else:
    def one(key, clip):
      where, flip = jax.random.split(key)
      row, column = jax.random.randint(where, (2,), 0, room + 1)
      clip = jax.lax.dynamic_slice(clip, (0, row, column, 0), (clip.shape[0], crop, crop, 3))
      return jnp.where(jax.random.bernoulli(flip), clip[:, :, ::-1], clip)
    faces = jax.vmap(one)(jax.random.split(key, faces.shape[0]), faces)
  return (faces.astype(jnp.float32) / 255 - 0.5) / 0.5


def windows(log_mel, starts):
  """float16 rows (B,R,64) and each frame's first row (B,L) -> VGGish examples (B,L,96,64) in float32, not normalised."""
  rows = starts[..., None] + jnp.arange(WINDOW_ROWS)  # (B,L,96)
  return jax.vmap(lambda mel, index: mel[index])(log_mel, rows).astype(jnp.float32)
