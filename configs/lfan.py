"""LFAN, leader-follower attention (Zhang, Zhao and Guan 2023), in the sizes of its authors' code: narrower TCNs, a linear head."""

from ml_collections import ConfigDict

from avjax.config import parse_argument
from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  mini = parse_argument(argument)['mini']
  config.model.temporal.update({'visual': (32, 16), 'audio': (16, 8)} if mini else
                               {'visual': (256, 256, 128, 128), 'audio': (64, 64, 32, 32)})
  config.model.fusion = ConfigDict({'name': 'lfan', 'width': 8 if mini else 32, 'heads': 2, 'dropout': 0.1})
  config.model.head = ConfigDict({'name': 'linear'})
  config.optimizer.rate_factors = ()
  return config
