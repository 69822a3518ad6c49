"""DCA, dynamic cross-attention: as GRJCA with a gate between the unattended and the last attended features."""

from configs import grjca


def get_config(argument=''):
  return grjca.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'dca'
