from configs import grjca


def get_config(argument=''):
  config = grjca.get_config(f'mini,{argument}')
  config.data.update({'length': 12, 'stride': 8, 'face': 16})
  config.crop, config.batch_size = 12, 4
  for tower in ('ir50', 'resnet50'):
    config.model.visual[tower].update({'widths': (2, 2, 2, 2), 'features': 4})
  config.model.audio.update({'widths': (1, 1, 1, 1, 1, 1), 'hidden': 8, 'features': 4})
  config.model.temporal.update({'visual': (4,), 'audio': (4,)})
  config.schedule.update({'max_epochs': 2, 'max_stage_epochs': 1, 'reload_best': True})
  return config
