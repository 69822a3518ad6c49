"""Plans a run: reads the config, and checks what can be checked before the first batch."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from typing import Any

import jax
import optax

from avjax import ranges, targets
from avjax.config import Config
from avjax.data.dataset import Records
from avjax.errors import InputError
from avjax.evaluation.series import smoothing_widths
from avjax.models.audio_visual import FEATURES, MODALITIES, TOWERS
from avjax.runs import copies, settings
from avjax.runs import folder as run_folder
from avjax.system import System, steps
from avjax.training import optimizer, unfreezing
from avjax.training.unfreezing import TrainableMask
from avjax.weights.adapt import complete
from avjax.weights.initialize import initialize

RANGES = {
  'batch_size': ranges.at_least(1),
  'seed': ranges.Range(lambda seed: 0 <= seed < 2**31, '0 to 2147483647'),
  'shuffle': ranges.OneOf(('every_epoch', 'once')),
  'skip_most': ranges.NOT_NEGATIVE,
}


@dataclasses.dataclass
class Plan:
  """Holds what is known of a run before its first batch.

  config: the config, with the widths of the features that the records have.
  system: the System of the config.
  records: the opened records.
  train_splits, validation_split: the splits of the fold.
  sizes: (training, validation), the numbers of records in these splits.
  stages, optimizers: for each stage the parameters that it trains, and its optax transform.
  source: folder from which the run takes a state to start from, or ''; it may be its own.
  changed: the keys in which the config differs from that of `source`, if that is another run.
  variables: arrays of pretrained parts, and jax.ShapeDtypeStruct for what is drawn from the seed;
    a np.ma.MaskedArray masks the part of it that is.
  origins: {part: metadata of the weights that it starts from}.
  """

  config: Config
  system: System
  records: Records
  train_splits: tuple[str, ...]
  validation_split: str
  sizes: tuple[int, int]
  stages: list[TrainableMask]
  optimizers: list[optax.GradientTransformation]
  source: str | pathlib.Path
  changed: list[str]
  variables: Any
  origins: dict[str, dict]

  @property
  def batches_per_epoch(self) -> int:
    """The number of batches of an epoch; the last one may be smaller."""
    return math.ceil(self.sizes[0] / self.config.batch_size)

  @property
  def schedule_settings(self) -> dict[str, Any]:
    """The arguments of `unfreezing.Schedule` that the config gives."""
    return {name: value for name, value in self.config.schedule.items() if name != 'reload_best'}

  def initial_variables(self):
    """Returns the variables that the run starts from.

    What is not pretrained is drawn from the seed.
    """
    return jax.tree.map(complete, self.variables, self.system.init(self.config.seed))

  def initial_state(self, stage: int, variables) -> steps.State:
    """Returns the state at the start of a stage, with a fresh optimizer."""
    return steps.make_state(variables, self.optimizers[stage])


def prepare(config: Config, workdir: str | pathlib.Path) -> Plan:
  """Checks config, records, workdir and weights, and returns the Plan; writes nothing.

  Raises InputError for every mistake that can be found before the first batch.
  """
  check_ranges(config)
  # Before the records are opened, since its message about a wrong name is clearer than theirs.
  System.from_config(config)
  config, records = open_records(config)
  system = System.from_config(config)
  train_splits, validation_split = records.fold(config.fold)
  sizes = records.size(train_splits), records.size([validation_split])
  if not all(sizes):
    raise InputError(
      f'fold {config.fold} of the records in {config.data.dir} '
      'has no training or no validation records'
    )
  variables = system.shapes
  stages = make_stages(config, steps.parameter_paths(variables['params']))
  run_folder.check_folder(config, workdir, records.manifest)
  # A run starts from the first of these that exists:
  #   1. workdir: the newest valid state of this run;
  #   2. config.resume: the newest state of the run in another folder, under other rates, schedule,
  #      batch size or seed; or, if that run was trained on other records, its best weights;
  #   3. config.init: pretrained weights, part by part, or those of a whole model;
  #   4. random weights.
  source = workdir if run_folder.begun(workdir) else copies.here(config.resume, copies.RunCopy)
  changed, origins, start = [], {}, config
  if source and source != workdir:
    if any(config.init.values()):
      raise InputError('config.resume takes the weights of a run: give no config.init with it')
    if run_folder.has_records(source, records.manifest):
      changed, origins = run_folder.check_fork(config, source)
    else:  # the state of an optimizer, and a best CCC, are of the records that they were found on
      start = config.copy_and_resolve_references()
      start.init.model, source = str(source), ''
  if not source:
    variables, origins = initialize(start, variables)
  return Plan(
    config,
    system,
    records,
    train_splits,
    validation_split,
    sizes,
    stages,
    [optimizer.make_optimizer(stage, config.optimizer) for stage in stages],
    source,
    changed,
    variables,
    origins,
  )


def open_records(config: Config) -> tuple[Config, Records]:
  """Returns (config, the records that it names); the config has the widths of their features."""
  records = Records(config.data.dir, config.data)
  config = config.copy_and_resolve_references()
  config.data.features = records.widths(feature_names(config))
  return config, records


def feature_names(config: Config) -> list[str]:
  """Returns the names of the features that a config takes from records.

  They replace towers, or are the labels of a target.
  """
  towers = [config.model[modality].tower for modality in MODALITIES]
  read = dict.fromkeys([*towers, *targets.label_fields(config.targets)])
  return [name.removeprefix(FEATURES) for name in read if name.startswith(FEATURES)]


def check_ranges(config: Config):
  """Raises InputError, naming the key, for a setting that no run can have."""
  settings.check(config)
  ranges.check('', config, RANGES)
  smoothing_widths(config.smooth, config.targets)
  ranges.check('optimizer', config.optimizer, optimizer.RANGES)
  ranges.check('schedule', config.schedule, unfreezing.RANGES)
  lowest = config.schedule.rate_min
  above = ranges.Range(lambda rate: 0 < lowest < rate, 'above schedule.rate_min, which is above 0')
  ranges.check('schedule', config.schedule, {'rate_max': above})


def make_stages(config: Config, paths: list[str]) -> list[TrainableMask]:
  """Returns for each stage a mask over the names of the parameters: those that it trains.

  The patterns are those of the config. A tower that is not in config.unfreezing has the groups that
  it is registered with.
  """
  sections = [config.unfreezing.common]
  for modality, registry in TOWERS.items():
    tower = config.model[modality].tower
    if tower in registry:
      sections.append(config.unfreezing.get(tower) or registry[tower].groups)
  groups = {
    name: [pattern for section in sections for pattern in section.get(name, ())]
    for name in config.unfreezing.common
  }
  frozen = groups.pop('frozen')
  try:
    optimizer.check_rate_factors(config.optimizer.rate_factors, paths)
    return unfreezing.stages([groups[name] for name in sorted(groups)], frozen, paths)
  except ValueError as error:
    raise InputError(str(error)) from error
