"""JCA as first published (CVPRW 2022), whose equations differ; on this protocol's towers in place \
of R(2+1)D and ResNet-18."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion = ConfigDict({'name': 'jca_2022', 'width': 128, 'maps': 32})
  config.model.head = ConfigDict({'name': 'perceptron', 'hidden': 128, 'relu': False})
  config.model.head.update(dropout=0.6, tanh=False)
