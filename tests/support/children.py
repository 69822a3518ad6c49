"""Functions that run in the child of avjax/bounded.py; it imports nothing else of the tests."""

import os

import numpy as np

from avjax import bounded
from avjax.errors import InputError


def allocates(count):
  """Yields once it has allocated `count` bytes."""
  yield {'length': len(bytearray(count))}, bounded.NOTHING


def ends(how):
  """Goes wrong after its first item."""
  yield {}, np.arange(3)
  if how == 'loop':
    while True:
      pass
  if how == 'abort':
    os.abort()
  if how == 'refuse':
    raise InputError('refused')
  raise ZeroDivisionError
