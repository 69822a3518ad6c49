"""Tests that the shapes which models and losses state are checked: a wrong one is an error."""

import jax
import numpy as np
import pytest
import shapes
from jaxtyping import TypeCheckError

from avjax.models.fusion import FUSIONS
from avjax.models.layers import nothing_trainable
from avjax.targets import losses


def test_there_are_checks():
  assert len(shapes.CHECKED) >= 30


@pytest.mark.parametrize(
  'visual, audio, mask',
  [
    ((2, 5, 6), (2, 4, 3), (2, 5)),  # another number of frames
    ((2, 5, 6), (2, 5, 3), (2, 5, 1)),  # a mask with an axis too many
    ((5, 6), (5, 3), (5,)),
  ],
)  # no clips
def test_a_fusion_refuses_other_shapes(visual, audio, mask):
  model = FUSIONS['concatenation'](5)
  with pytest.raises(TypeCheckError):
    model.apply(
      {},
      np.zeros(visual, np.float32),
      np.zeros(audio, np.float32),
      np.ones(mask, bool),
      nothing_trainable,
    )


def test_a_loss_refuses_a_mask_per_target():
  x = np.zeros((2, 5, 1), np.float32)
  with pytest.raises(TypeCheckError):
    losses.ccc_loss(x, x, np.ones((2, 5, 1), bool))
  assert jax.eval_shape(losses.ccc_loss, x, x, np.ones((2, 5), bool)).shape == ()
