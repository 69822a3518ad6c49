"""Joint context, ours and not the paper's: early concatenation and a convolution over both \
modalities in time."""

from ml_collections import ConfigDict

from configs import base


def get_config(argument=''):
  return base.get_config(argument, change, mini)


def change(config):
  config.model.fusion = ConfigDict({'name': 'joint_context', 'width': 128, 'reach': 4})
  config.model.fusion.update(dilation=12, gated=False)  # 1.6 seconds on each side


def mini(config):
  config.model.fusion.update(width=32, dilation=4)  # 1.1 seconds of the mini set
