"""RJCA in the formulation of the authors' public code (RJCMA): attention over channels, two recursions, dropout 0.6."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'rjca', 'formulation': 'author', 'recursions': 2, 'dropout': 0.6, 'joint_fc': False})
