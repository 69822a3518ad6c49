"""RJCA in the formulation of the authors' public code (RJCMA): attention over channels, two \
recursions, dropout 0.6."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'rjca', 'formulation': 'author', 'recursions': 2})
  config.model.fusion.update(dropout=0.6, joint_fc=False)
