"""The training loop: stages x epochs, from top to bottom."""

import dataclasses

import jax
from ml_collections import ConfigDict

from avjax import errors
from avjax.data.dataset import Records
from avjax.data.splits import fold_chunks
from avjax.errors import InputError
from avjax.models.audio_visual import AudioVisual
from avjax.runs import checkpoint
from avjax.runs import folder as run_folder
from avjax.system import step
from avjax.training import optimizer, unfreezing
from avjax.weights.initialize import initialize


@dataclasses.dataclass
class Plan:
  """What is known of a run before its first batch. variables: of pretrained parts; the others are jax.ShapeDtypeStruct."""
  config: ConfigDict     # with the widths of features that the records have
  model: AudioVisual
  records: Records
  train_splits: tuple
  validation_split: str
  sizes: tuple           # training and validation records
  stages: list           # an unfreezing.Trains each
  source: object         # the folder of the run whose state it starts from, or ''
  changed: list          # keys in which the config differs from that run's
  variables: dict
  origins: dict          # {part: metadata of the weights it starts from}


def prepare(config, workdir):
  """Checks config, records, workdir and weights, and writes nothing: InputError for whatever can be told before training."""
  check_ranges(config)
  model = step.make_model(config)
  records = Records(config.data.dir, config.data)
  config = config.copy_and_resolve_references()
  config.data.features = records.widths(step.feature_names(config))
  train_splits, validation_split = fold_chunks(config.fold)
  sizes = records.size(train_splits), records.size([validation_split])
  if not all(sizes):
    raise InputError(f'fold {config.fold} of the records in {config.data.dir} has no training or no validation records')
  try:
    variables = jax.eval_shape(lambda: step.init_variables(config, model, config.seed))
  except (AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:  # sizes that do not go together
    raise InputError(f'the model of the config cannot be built: {errors.one_line(error)}') from error
  stages = make_stages(config, step.paths(variables['params']))
  # What a run starts from, the first of these that there is:
  #   1. workdir: the newest sound state of this very run;
  #   2. config.resume: the newest state of the run in another folder, under other rates, schedule, batch size or seed;
  #   3. config.init: files of pretrained weights, part by part;
  #   4. random weights.
  run_folder.check_folder(config, workdir, records.manifest)
  source, changed, origins = workdir if checkpoint.begun(workdir) else config.resume, [], {}
  if not source:
    variables, origins = initialize(config, variables)
  elif source != workdir:
    changed, origins = run_folder.check_fork(config, source, records.manifest)
  return Plan(config, model, records, train_splits, validation_split, sizes, stages, source, changed, variables, origins)


def check_ranges(config):
  """Raises InputError for a value of the config that no run can have."""
  m, s = config.model, config.schedule
  layers = [('model.audio.widths', m.audio, 6), *((f'model.visual.{name}.{key}', m.visual[name], 4)
                                                  for name in ('ir50', 'resnet50') for key in ('widths', 'units'))]
  for name, good, wanted in (
      ('batch_size', config.batch_size >= 1, 'at least 1'),
      ('seed', 0 <= config.seed < 2 ** 31, '0 to 2147483647'),
      ('targets', len(config.targets) >= 1, 'at least one of valence and arousal'),
      ('crop', 1 <= config.crop <= config.data.face, f'1 to data.face = {config.data.face}'),
      ('model.temporal.kernel', m.temporal.kernel >= 1, 'at least 1'),
      ('model.temporal.dropout', 0 <= m.temporal.dropout < 1, '0 to below 1'),
      ('model.temporal.kernels', min(m.temporal.kernels, default=1) >= 1, 'numbers of at least 1'),
      *((f'model.{part}.dropout', 0 <= m[part].get('dropout', 0) < 1, '0 to below 1') for part in ('fusion', 'head')),
      *((f'model.fusion.{name}', m.fusion.get(name, 1) >= 1, 'at least 1') for name in ('layers', 'blocks', 'heads', 'width', 'states', 'rank')),
      ('optimizer.clip', config.optimizer.clip >= 0, '0 or more'),
      ('model.fusion.recursions', m.fusion.get('recursions', 1) >= 1, 'at least 1'),
      ('model.fusion.temperature', m.fusion.get('temperature', 1) > 0, 'above 0'),
      ('optimizer.decay', config.optimizer.decay in optimizer.DECAYS, ', '.join(optimizer.DECAYS)),
      ('smooth', config.smooth >= 1 and config.smooth % 2 == 1, 'an odd number of frames'),
      ('schedule.max_epochs', s.max_epochs >= 1, 'at least 1'),
      ('schedule.warmup', s.warmup in unfreezing.WARMUPS, ', '.join(unfreezing.WARMUPS)),
      ('schedule.release', s.release in unfreezing.RELEASES, ', '.join(unfreezing.RELEASES)),
      ('shuffle', config.shuffle in ('every_epoch', 'once'), 'every_epoch, once'),
      ('skip_most', config.skip_most >= 0, '0 or more'),
      ('schedule.factor', 0 < s.factor < 1, 'between 0 and 1'),
      ('schedule.rate_max', 0 < s.rate_min < s.rate_max, 'above schedule.rate_min, which is above 0'),
      *((name, len(part.get(name.split('.')[-1], range(count))) == count, f'{count} numbers') for name, part, count in layers)):
    if not good:
      raise InputError(f'config.{name} is out of range: it takes {wanted}')


def make_stages(config, paths):
  """The `unfreezing.Trains` of each stage, from the config's patterns and the names of the model's parameters."""
  towers = [name for name in (config.model.visual.tower, config.model.audio.tower) if name in config.unfreezing]
  parts = [config.unfreezing[name] for name in ('common', *towers)]
  groups = {name: [pattern for part in parts for pattern in part[name]] for name in parts[0]}
  frozen = groups.pop('frozen')
  try:
    optimizer.check_rate_factors(config.optimizer.rate_factors, paths)
    return unfreezing.stages([groups[name] for name in sorted(groups)], frozen, paths)
  except ValueError as error:
    raise InputError(str(error)) from error
