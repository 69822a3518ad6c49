"""DCA, dynamic cross-attention: as GRJCA with a gate between the unattended and the last attended \
features."""

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change)


def change(config):
  config.model.fusion.name = 'dca'
