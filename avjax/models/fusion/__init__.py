"""Fusion models: visual (B,L,Dv), audio (B,L,Da), mask (B,L) -> (B,L,D). One file per family.

A class that a config may name is decorated with `@fusion('name')`. Every file of this folder is imported here, so a new
system is a new file and no edit elsewhere. Each takes `length`, the L of the records, and `trains` (see models/layers.py).
"""

import importlib
import pkgutil

from avjax.models.fusion.registry import FUSIONS, fusion

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f'{__name__}.{_module.name}')

__all__ = ['FUSIONS', 'fusion']
