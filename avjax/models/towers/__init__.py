"""Defines towers, which turn one frame of one modality into features.

There is one file per tower. All files of this folder are imported here, so a new tower is a new
file and needs no edit elsewhere.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f'{__name__}.{_module.name}')
