"""GRJCA, gated recursive joint cross-attention, as in the paper, section 4.3.

The other configs change only what differs.

Argument, separated by commas, as in --config=configs/grjca.py:target=arousal,fold=3:
  target=valence|arousal|joint   one dimension, or one model for both; target=both is two runs
  fold=0..5                      0 is the official split; fold=0+3 or fold=all is several runs
  protocol=paper|author          where the authors' code differs from the paper (docs/deviations.md), the one or the other
  mini                           small, trained from scratch, for the synthetic set of data_prep.mini
"""

from ml_collections import ConfigDict

from avjax.config import parse_argument
from avjax.targets import CHOICES


def get_config(argument='', change=lambda config: None):
  """The paper's settings; with `mini`, its sizes shrunk. change: what another system alters in the full-size config."""
  chosen = parse_argument(argument)
  config = ConfigDict()
  config.seed = 0
  config.targets = CHOICES[chosen['target'] or ('joint' if chosen['mini'] else 'valence')]  # trained separately
  config.fold = chosen['fold']
  config.data = ConfigDict({'dir': '', 'length': 300, 'stride': 200, 'face': 48,
                            'features': {}})  # {name: width} of features in place of towers; a run takes it from its records
  # What a run starts from: files of python -m avjax.pretrained, or the folder of a run. avjax/train.py says in which order.
  config.init = ConfigDict({'visual': '', 'audio': '', 'model': ''})
  config.resume = ''
  config.crop = 40
  config.augment = True
  config.batch_size = 12
  config.shuffle = 'every_epoch'      # or 'once': the same batches in every epoch
  config.frozen_mode = 'evaluation'   # or 'training': frozen norms use and update batch statistics, frozen dropout drops
  config.smooth = 1                   # frames of the moving average over predictions; 1 is none
  config.skip_most = 20               # updates in a row that may be skipped because loss or gradient is not finite

  config.model = ConfigDict({
      'visual': {
          'tower': 'ir50',
          'ir50': {'widths': (64, 128, 256, 512), 'units': (3, 4, 14, 3), 'features': 512, 'dropout': 0.4},
          'resnet50': {'widths': (64, 128, 256, 512), 'units': (3, 4, 6, 3), 'features': 512},
      },
      'audio': {'tower': 'vggish', 'widths': (64, 128, 256, 256, 512, 512), 'hidden': 4096, 'features': 128},
      'temporal': {'visual': (512, 512, 512, 512), 'audio': (128, 128, 128, 128), 'kernel': 5, 'dropout': 0.1,
                   'kernels': (), 'activation': 'leaky_relu', 'norm': True},
      'fusion': {'name': 'grjca', 'recursions': 3, 'temperature': 0.1,
                 'formulation': 'paper', 'dropout': 0.6, 'joint_fc': False},  # the last two of the formulation 'author' alone
      'head': {'name': 'mlp', 'hidden': 256},
  })
  config.loss = ConfigDict({'scope': 'sequence', 'variance': 'biased'})
  config.optimizer = ConfigDict({'decay': 'coupled', 'weight_decay': 1e-3, 'clip': 0.0, 'rate_factors': ()})
  config.schedule = ConfigDict({
      'rate_max': 1e-5, 'rate_min': 1e-8, 'warmup': 'paper', 'warmup_epochs': 5, 'release': 'at_minimum', 'patience': 5,
      'factor': 0.1, 'max_epochs': 100, 'max_stage_epochs': 100, 'stop_patience': 50, 'reload_best': True,
  })
  # Prefixes of parameter paths. Stage k trains groups 1 to k; `frozen` is never trained. A tower's own groups join the common ones.
  config.unfreezing = ConfigDict({
      'common': {'group1': (r'(?!(visual|audio)/)',), 'group2': (), 'group3': (), 'frozen': ()},  # all that is no tower
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
      'vggish': {'group1': ('audio/fc2/',), 'group2': ('audio/fc1_2/',), 'group3': ('audio/fc1_1/',), 'frozen': ('audio/conv',)},
  })
  change(config)
  config = shrink(config) if chosen['mini'] else config
  return as_the_authors(config) if chosen['protocol'] == 'author' else config


def as_the_authors(config):
  """What the authors' public code (RJCMA) does where it differs from the paper: the switches of docs/deviations.md."""
  if 'formulation' in config.model.fusion:
    config.model.fusion.update({'formulation': 'author', 'dropout': 0.6, 'joint_fc': False})
    config.optimizer.rate_factors = ()  # they name the paper's L x L weights
  config.loss.variance = 'mixed'
  config.schedule.update({'warmup': 'author', 'release': 'below_minimum'})
  config.frozen_mode, config.shuffle = 'training', 'once'
  return config


def shrink(config):
  """The same system in a size for two CPU cores, with rates for towers that start from nothing."""
  config.data.update({'length': 120, 'stride': 120, 'face': 24})
  config.crop = 20
  config.batch_size = 4
  tower = {'widths': (8, 8, 16, 16), 'units': (1, 1, 1, 1), 'features': 32}
  m = config.model
  m.visual.update({'ir50': tower | {'dropout': 0.0}, 'resnet50': tower})
  m.audio.update({'widths': (4, 4, 8, 8, 8, 8), 'hidden': 32, 'features': 16})
  m.temporal.visual = tuple(max(width // 16, 16) for width in m.temporal.visual[-2:])
  m.temporal.audio = tuple(max(width // 8, 8) for width in m.temporal.audio[-2:])
  for part in (m.fusion, m.head):
    part.update({name: max(part[name] // 8, 8) for name in part if name in ('width', 'hidden', 'each') and part[name]})
    part.update({name: min(part[name], 2) for name in part if name in ('layers', 'blocks')})
    part.update({name: tuple(width // 8 for width in part[name]) for name in part if name == 'stem'})
  # What cannot take the rate of the towers: the L x L weights, which are summed over L frames in the forward pass, as their updates
  # then are; and encoders that have their norms last.
  if m.fusion.get('formulation') == 'paper':
    config.optimizer.rate_factors = ((r'fusion/.*/w_[ch]', 0.03),)
  elif m.fusion.name in ('transformer', 'cross_modal'):
    config.optimizer.rate_factors = ((r'fusion/.*', 0.1),)
  # An epoch is some twenty steps here, not a thousand: to go back to the best after each would undo most of the training.
  config.schedule.update({'rate_max': 2e-3, 'rate_min': 2e-4, 'warmup_epochs': 1, 'patience': 1, 'factor': 0.3,
                          'max_epochs': 20, 'max_stage_epochs': 8, 'reload_best': False})
  face = {'group1': ('visual/output/', 'visual/stage[234]/'), 'group2': ('visual/stage1/',), 'group3': ('visual/input/',), 'frozen': ()}
  config.unfreezing.update({'ir50': face, 'resnet50': face, 'vggish': {
      'group1': ('audio/fc', 'audio/conv4'), 'group2': ('audio/conv3',), 'group3': ('audio/conv[12]/',), 'frozen': ()}})
  return config
