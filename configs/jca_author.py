"""JCA in the formulation of the authors' public code: a single recursion of attention over channels."""

from ml_collections import ConfigDict

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'rjca', 'formulation': 'author', 'recursions': 1, 'dropout': 0.6, 'joint_fc': False})
