"""Leader-follower attention in its first form (Zhang, Ding, Wei and Guan 2021): no norm after the \
TCN, one head, no tanh; projected from the features, as in their code of 2022."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.temporal.update(visual=(128, 128, 128, 128), audio=(32, 32, 32, 32), norm=False)
  config.model.fusion = ConfigDict({'name': 'leader_follower', 'width': 32, 'from_key': False})
  config.model.head = ConfigDict({'name': 'linear', 'tanh': False})
