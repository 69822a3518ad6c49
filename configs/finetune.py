"""Fine-tunes a trained model of any system on a small set.

--config=configs/finetune.py:system=rjca,target=arousal is configs/rjca.py:target=arousal with other
groups and rates; without `system` it is GRJCA. --config.init.model names the model to start from.
"""

import importlib
import pkgutil

import configs
from avjax.errors import InputError
from avjax.ranges import nearest

SYSTEMS = sorted(
  {file.name for file in pkgutil.iter_modules(configs.__path__)} - {'base', 'finetune'}
)


def get_config(argument=''):
  """Returns the config of the system that the argument names, changed for fine-tuning."""
  system, rest = 'grjca', []
  for part in (argument or '').split(','):
    if part.startswith('system='):
      system = part.removeprefix('system=')
    else:
      rest.append(part)
  if system not in SYSTEMS:
    raise InputError(f'config argument system={system}: unknown{nearest(system, SYSTEMS)}')
  config = importlib.import_module(f'configs.{system}').get_config(','.join(rest))
  open_towers_later(config.unfreezing)
  if 'mini' in rest:
    config.schedule.update({'rate_max': 5e-4, 'max_stage_epochs': 3})
  else:
    set_training(config)
  return config


def set_training(config):
  """Sets rates above the paper's, since a small set has few steps in an epoch, and shorter waits.

  They are guesses, which no set of real films has tested.
  """
  config.batch_size = 8
  config.schedule.update(
    {
      'rate_max': 5e-5,
      'rate_min': 5e-7,
      'warmup_epochs': 2,
      'patience': 3,
      'stop_patience': 10,
      'max_epochs': 60,
      'max_stage_epochs': 20,
    }
  )


def open_towers_later(unfreezing):
  """Opens each group of a tower a stage later than the system does, and the last one never.

  The first stage then trains what is behind the towers.
  """
  for tower, groups in unfreezing.items():
    if tower != 'common':
      groups.update(
        {
          'group1': (),
          'group2': groups.group1,
          'group3': groups.group2,
          'frozen': groups.frozen + groups.group3,
        }
      )
