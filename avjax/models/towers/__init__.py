"""Towers: one frame of one modality in, its features out. One file per tower, imported here, so that none is listed twice."""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f'{__name__}.{_module.name}')
