"""Defines fusions: visual (B,L,Dv), audio (B,L,Da), frame mask (B,L) -> fused features (B,L,D).

There is one file per family. A class that a config may name is decorated with
`@FUSIONS.register('name', ...)`. Every file of this folder is imported here, so a new system is a
new file and needs no edit elsewhere. Each class takes `length`, the L of the records, and is called
with `is_trainable` (see avjax/models/layers.py).
"""

import importlib
import pkgutil

from avjax.models.registry import FUSIONS

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f'{__name__}.{_module.name}')

__all__ = ['FUSIONS']
