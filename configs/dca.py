"""DCA, dynamic cross-attention: as GRJCA with a gate between the unattended and the last attended features."""

from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(argument)
  config.model.fusion.name = 'dca'
  return config
