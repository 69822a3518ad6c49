"""DCA, dynamic cross-attention: as GRJCA with a gate between the unattended and the last attended \
features."""

from configs import base

# Frames that its authors' code averages predictions over (docs/deviations.md, row 49).
SMOOTH = {'valence': 20, 'arousal': 50}


def get_config(argument=''):
  return base.get_config(argument, change, author=author)


def change(config):
  config.model.fusion.name = 'dca'


def author(config):
  config.smooth = tuple(SMOOTH[name] for name in config.targets)
