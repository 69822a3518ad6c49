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
  # What the small size of version 0.1.0 had.
  config.model.temporal.norm = True
  config.schedule.update({'rate_max': 2e-3, 'rate_min': 2e-4, 'patience': 1})
  visual = {
    'group1': ('visual/output/', 'visual/stage[234]/'),
    'group2': ('visual/stage1/',),
    'group3': ('visual/input/',),
  }
  audio = {
    'group1': ('audio/fc', 'audio/conv4'),
    'group2': ('audio/conv3',),
    'group3': ('audio/conv[12]/',),
  }
  for tower, groups in (('ir50', visual), ('resnet50', visual), ('vggish', audio)):
    config.unfreezing[tower].update(groups)
  return config
