"""Builds the config of a system from the settings that all systems share: the paper's, section 4.3.

Every other file of this folder is one system, except finetune.py, which changes any of them. It
has `get_config(argument)`, which calls the one here with `change`, a function that sets what
differs, with `mini` where `shrink` does not suffice, and with `author` where the authors' code of
this system does more than RJCMA does.

Argument, separated by commas, as in --config=configs/grjca.py:target=arousal,fold=3:
  target=valence|arousal|joint   one dimension, or one model for both; target=both is two runs
  fold=0..5                      0 is the official split; fold=0+3 or fold=all is several runs
  protocol=paper|author          follow the paper or the authors' code where the two differ
                                 (docs/deviations.md)
  mini                           small, trained from scratch, for the set of data_prep.mini
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import FieldReference

from avjax.config import parse_argument
from avjax.targets import CHOICES


def get_config(argument='', change=None, mini=None, author=None):
  """Returns the config of a system.

  Args:
    argument: what follows the colon of --config, see above.
    change: function that sets, in the full-size config, what differs in this system. The first line
      of the docstring of its file describes the system.
    mini: function that sets what differs in its small size, after `shrink`.
    author: function that sets what its authors' code does, after `follow_the_authors`.
  """
  chosen = parse_argument(argument)
  config = ConfigDict()
  config.system = describe(change)
  config.seed = 0
  config.targets = CHOICES[chosen['target'] or ('joint' if chosen['mini'] else 'valence')]
  config.fold = chosen['fold']
  set_data_and_start(config)
  set_model(config)
  set_training(config)
  set_unfreezing(config)
  if change:
    change(config)
  if chosen['mini']:
    shrink(config)
    if mini:
      mini(config)
  if chosen['protocol'] == 'author':
    follow_the_authors(config)
    if author:
      author(config)
  return config


def describe(change):
  """Returns the first line of the docstring of the file that defines `change`, '' for none."""
  lines = ((change and change.__globals__['__doc__']) or '').strip().splitlines()
  return ' '.join(lines[0].split()).removesuffix('.') if lines else ''


def set_data_and_start(config):
  """Sets which records are read and from which weights a run starts."""
  # `features` is {name: width} of features in place of towers; a run takes it from its records.
  config.data = ConfigDict({'dir': '', 'length': 300, 'stride': 200, 'face': 48, 'features': {}})
  # Weights to start from, files of python -m avjax.pretrained; `model` is for all parts at once,
  # and may be the folder of a run or of an exported model, too.
  config.init = ConfigDict({'visual': '', 'audio': '', 'model': ''})
  # The folder of another run, whose training this one continues; on other records it begins with
  # the best weights of that run, as with `init.model`.
  config.resume = ''


def set_model(config):
  """Sets the sizes of towers, temporal part, fusion and head."""
  config.model = ConfigDict(
    {
      'visual': {
        'tower': 'ir50',
        'ir50': {
          'widths': (64, 128, 256, 512),
          'units': (3, 4, 14, 3),
          'features': 512,
          'dropout': 0.4,
        },
        'resnet50': {'widths': (64, 128, 256, 512), 'units': (3, 4, 6, 3), 'features': 512},
      },
      'audio': {
        'tower': 'vggish',
        'widths': (64, 128, 256, 256, 512, 512),
        'hidden': 4096,
        'features': 128,
      },
      'temporal': {
        'visual': (512, 512, 512, 512),
        'audio': (128, 128, 128, 128),
        'kernel': 5,
        'dropout': 0.1,
        'kernels': (),
        'activation': 'leaky_relu',
        'norm': True,
      },
      # The settings of joint cross-attention. The paper's systems set only the name.
      'fusion': {
        'name': '',
        'recursions': 3,
        'temperature': 0.1,
        'formulation': 'paper',
        'dropout': 0.6,  # dropout and joint_fc have an effect in the formulation 'author' only
        'joint_fc': False,
      },
      'head': {'name': 'mlp', 'hidden': 256},
    }
  )


def set_training(config):
  """Sets batches, loss, optimizer and learning rate."""
  # Towers compute in 'float32' or 'bfloat16'; what is behind them, and all parameters, in float32.
  config.precision = ConfigDict({'towers': 'float32', 'rest': 'float32'})
  config.crop = 40
  config.augment = True
  config.batch_size = 12
  config.shuffle = 'every_epoch'  # or 'once': the same batches in every epoch
  # Or 'training': frozen norms use and update batch statistics, and frozen dropout drops.
  config.frozen_mode = 'evaluation'
  # Frames of the moving average over predictions, one number or one for each target; 1 is none.
  config.smooth = FieldReference(1, field_type=object)
  # Updates in a row that may be skipped because the loss or the gradient is not finite.
  config.skip_most = 20
  config.loss = ConfigDict({'scope': 'sequence', 'variance': 'biased'})
  config.optimizer = ConfigDict(
    {'decay': 'coupled', 'weight_decay': 1e-3, 'clip': 0.0, 'rate_factors': ()}
  )
  config.schedule = ConfigDict(
    {
      'rate_max': 1e-5,
      'rate_min': 1e-8,
      'warmup': 'paper',
      'warmup_epochs': 5,
      'release': 'at_minimum',
      'patience': 5,
      'factor': 0.1,
      'max_epochs': 100,
      'max_stage_epochs': 100,
      'stop_patience': 50,
      'reload_best': True,
    }
  )


def set_unfreezing(config):
  """Sets which parameters each stage trains, as patterns that match the beginnings of their paths.

  Stage k trains the groups 1 to k; `frozen` is never trained. The groups of a system are the common
  ones and those of its towers.
  """
  config.unfreezing = ConfigDict(
    {
      'common': {  # all parameters outside the towers
        'group1': (r'(?!(visual|audio)/)',),
        'group2': (),
        'group3': (),
        'frozen': (),
      },
      'ir50': {
        'group1': ('visual/output/',),
        'group2': ('visual/stage4/',),
        'group3': (r'visual/stage3/unit1[1-3]/',),  # the last three of fourteen
        'frozen': ('visual/input/', 'visual/stage[12]/', r'visual/stage3/unit(\d|10)/'),
      },
      'resnet50': {
        'group1': ('visual/output/',),
        'group2': ('visual/stage4/',),
        'group3': ('visual/stage3/unit[3-5]/',),  # the last three of six
        'frozen': ('visual/input/', 'visual/stage[12]/', 'visual/stage3/unit[0-2]/'),
      },
      'vggish': {
        'group1': ('audio/fc2/',),
        'group2': ('audio/fc1_2/',),
        'group3': ('audio/fc1_1/',),
        'frozen': ('audio/conv',),
      },
    }
  )


def follow_the_authors(config):
  """Sets what the authors' public code (RJCMA) does where it differs from the paper.

  docs/deviations.md lists these switches.
  """
  if 'formulation' in config.model.fusion:
    config.model.fusion.update({'formulation': 'author', 'dropout': 0.6, 'joint_fc': False})
    config.optimizer.rate_factors = ()  # for the L x L weights, which this formulation lacks
  config.loss.variance = 'mixed'
  config.schedule.update({'warmup': 'author', 'release': 'below_minimum'})
  config.frozen_mode, config.shuffle = 'training', 'once'


def shrink(config):
  """Makes the system small enough for two CPU cores, with rates for randomly initialised towers."""
  config.data.update({'length': 120, 'stride': 120, 'face': 24})
  config.crop = 22  # a mouth is a few pixels high, so a larger shift would hide how it bends
  config.batch_size = 4
  shrink_model(config.model)
  # The L x L weights need a lower rate than the towers: the forward pass sums over L frames, and so
  # their updates add up. Post-norm encoders need a lower rate, too.
  if config.model.fusion.get('formulation') == 'paper':
    config.optimizer.rate_factors = ((r'fusion/.*/w_[ch]', 0.03),)
  elif config.model.fusion.name == 'transformer':
    config.optimizer.rate_factors = ((r'fusion/.*', 0.1),)
  # An epoch has about twenty steps here, not a thousand: the rate is cut as soon as an epoch is no
  # better, and reloading the best state after each would undo most of the training.
  config.schedule.update(
    {
      'rate_max': 1e-3,
      'rate_min': 1e-4,
      'warmup_epochs': 1,
      'patience': 0,
      'factor': 0.3,
      'max_epochs': 9,
      'max_stage_epochs': 4,
      'reload_best': False,
    }
  )
  # A tower that starts from random weights learns through all of its layers. Only the first ones
  # wait; those of the audio tower take half the time of a step.
  visual = {
    'group1': ('visual/stage', 'visual/output/'),
    'group2': ('visual/input/',),
    'group3': (),
    'frozen': (),
  }
  audio = {
    'group1': ('audio/fc', 'audio/conv[34]'),
    'group2': ('audio/conv2/',),
    'group3': ('audio/conv1/',),
    'frozen': (),
  }
  config.unfreezing.update({'ir50': visual, 'resnet50': visual, 'vggish': audio})


def shrink_model(model):
  """Shrinks the towers to fixed sizes, and what comes after them to an eighth or a sixteenth."""
  tower = {'widths': (8, 8, 16, 16), 'units': (1, 1, 1, 1), 'features': 32}
  model.visual.update({'ir50': tower | {'dropout': 0.0}, 'resnet50': tower})
  model.audio.update({'widths': (4, 4, 8, 8, 8, 8), 'hidden': 32, 'features': 16})
  temporal = model.temporal
  temporal.visual = tuple(max(width // 16, 16) for width in temporal.visual[-2:])
  temporal.audio = tuple(max(width // 8, 8) for width in temporal.audio[-2:])
  temporal.norm = False  # the statistics of four clips vary too much
  for part in (model.fusion, model.head):
    for name in part:
      if name in ('width', 'hidden', 'each') and part[name]:
        part[name] = max(part[name] // 8, 8)
      elif name in ('layers', 'blocks'):
        part[name] = min(part[name], 2)
      elif name == 'stem':
        part[name] = tuple(width // 8 for width in part[name])
