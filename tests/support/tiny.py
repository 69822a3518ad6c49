"""Shrinks configs/grjca.py:mini further, for runs of seconds on the set of data_prep's tests."""

from configs import grjca


def get_config(argument=''):
  """Returns the mini config with small windows, small faces and a few channels.

  Windows have 12 frames and start every 8, faces have 16 pixels. The best state is reloaded, as in
  the paper.
  """
  config = grjca.get_config(f'mini,{argument}')
  config.data.update({'length': 12, 'stride': 8, 'face': 16})
  config.crop, config.batch_size = 12, 4
  for tower in ('ir50', 'resnet50'):
    config.model.visual[tower].update({'widths': (4, 4, 4, 4), 'features': 8})
  config.model.audio.update({'widths': (2, 2, 2, 2, 2, 2), 'hidden': 32, 'features': 8})
  config.model.temporal.update({'visual': (8,), 'audio': (4,)})
  config.schedule.update({'max_epochs': 4, 'max_stage_epochs': 2, 'reload_best': True})
  return config
