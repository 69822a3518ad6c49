"""Trains a run: the loop over stages, epochs and batches."""

from __future__ import annotations

import contextlib
import functools
import logging
import pathlib
import threading
import time

import jax
import numpy as np

from avjax import files
from avjax.data import dataset
from avjax.errors import InputError
from avjax.evaluation.results import mean_score, score, write_results
from avjax.evaluation.shares import predict_split
from avjax.reports import plots
from avjax.runs import copies
from avjax.runs import folder as run_folder
from avjax.runs.background import Background
from avjax.runs.checkpoint import Checkpoints, check_best
from avjax.runs.history import History
from avjax.system import sharding, steps
from avjax.targets import criterion
from avjax.training.plan import Plan, prepare
from avjax.training.progress import (
  Progress,
  flat_scores,
  report_epoch,
  start_logging,
  summarize_updates,
)
from avjax.training.stage_steps import StageSteps
from avjax.training.state import Diverged, RunState, check_meta
from avjax.training.stop import Stopped, StopSignal
from avjax.training.unfreezing import Schedule
from avjax.weights.initialize import describe_changes, describe_origins

logger = logging.getLogger('avjax')


def train(config, workdir, stop: StopSignal):
  """Trains the run that the config describes in workdir, or continues the run that is there.

  Returns the results on the validation partition (see avjax.evaluation.results.write_results), or
  None if it was asked to stop before the end. Raises InputError, before anything is written, for a
  config, records or a workdir that do not fit; Diverged if more than config.skip_most updates in a
  row had a loss or gradient that was not finite, or if the loss or score of an epoch is not finite.
  """
  workdir = pathlib.Path(workdir)
  plan = prepare(config, workdir)
  # TensorFlow, which the first batch needs, is imported while JAX draws or restores the variables.
  threading.Thread(target=import_ahead).start()
  run, notes = restore_or_begin(plan, workdir)
  with contextlib.ExitStack() as stack:
    with sharding.together():
      stack.enter_context(run_folder.locked(workdir))
      run_folder.open_folder(plan.config, workdir, plan.records.manifest, plan.origins)
    start_logging(workdir / run_folder.LOG, sharding.is_primary())
    checkpoints = stack.enter_context(contextlib.closing(Checkpoints(workdir)))
    mesh = sharding.make_mesh()
    log_start(plan, workdir, run, notes, mesh)
    if plan.source and plan.source != workdir and run.best is not None:
      checkpoints.save(checkpoints.best, run.schedule.best_epoch + 1, run.best, run.best_meta)
    history = History(workdir, run.schedule.epoch, sharding.is_primary())
    try:
      run.state = sharding.replicate(run.state, mesh)
      with Background() as saving, StageSteps(plan, mesh) as train_step:
        series = run_stages(plan, run, train_step, checkpoints, history, saving, stop, mesh)
    except Stopped:
      return None
    except Diverged as error:
      logger.error(
        '%s. The states saved in %s are from before that: '
        'continue from them with --config.resume, a lower rate and another --workdir',
        error,
        workdir,
      )
      raise
  if sharding.is_primary():
    with files.replacing(workdir / run_folder.CURVES) as partial:
      plots.curves(history.history(), plan.config.targets, partial)
  extra = {'best_epoch': run.schedule.best_epoch}
  return write_results(workdir, plan.config, 'validation', series, extra, plan.records.subjects)


def import_ahead():
  """Imports TensorFlow; where the run is refused meanwhile, Python ends, and that may fail."""
  with contextlib.suppress(Exception):  # a true error is raised again by the first batch
    dataset.tensorflow()


def run_stages(
  plan: Plan,
  run: RunState,
  train_step: StageSteps,
  checkpoints,
  history,
  saving: Background,
  stop,
  mesh,
):
  """Trains stage after stage until the schedule is done.

  Each epoch is saved while the next one is trained. Returns the validation series of the best
  epoch. Raises Stopped once the state is saved, or Diverged, in which case the state is not saved.
  """
  config, schedule, batches_per_epoch = plan.config, run.schedule, plan.batches_per_epoch
  metric = criterion(config.targets)
  seconds, best_series = 0.0, None
  try:
    while not schedule.done:
      stage, epoch, start = schedule.stage, schedule.epoch, time.perf_counter()
      title = f'stage {stage + 1}/{len(plan.stages)}  epoch {epoch + 1}'
      epochs_left = schedule.max_epochs - epoch - 1
      bar = Progress(title, batches_per_epoch, run.batches_done, seconds, epochs_left, metric)
      with bar as progress:
        train_epoch(plan, run, train_step, progress, saving, stop, mesh)
      check_finite(run, config.skip_most)
      updates = summarize_updates(run.log)  # waits for the device
      speed = progress.done / (time.perf_counter() - start)

      series = validate(plan, run.state.variables, stop)
      scores = score(series, config.targets)
      value = mean_score(scores, config.targets)
      if not np.isfinite([updates['train_loss'], value]).all():
        loss = updates['train_loss']
        raise Diverged(
          f'epoch {epoch + 1} is not finite: loss {loss:g}, {metric.upper()} {value:g}'
        )
      rate = schedule.rate(batches_per_epoch - 1, batches_per_epoch)
      event = schedule.observe(value)
      if event == 'improved':
        run.best, best_series = jax.device_get(run.state.variables), series
        run.best_meta = {'epoch': epoch, metric: value}
      if schedule.stage != stage:  # the next starts from the best, with a fresh optimizer
        run.state = sharding.replicate(plan.initial_state(schedule.stage, run.best), mesh)
      elif config.schedule.reload_best:
        run.state = run.state.replace(**sharding.replicate(run.best, mesh))

      seconds = time.perf_counter() - start
      epoch_log = {'epoch': epoch, 'stage': stage + 1, 'rate': rate, **updates}
      epoch_log |= {f'validation_{metric}': value, f'best_{metric}': schedule.best}
      epoch_log |= {'examples_per_second': speed, 'seconds': seconds, 'event': event}
      epoch_log |= flat_scores(scores, config.targets)
      report_epoch(title, epoch_log, config.targets, len(run.log))
      run.end_epoch()
      if sharding.is_primary():
        made = run.copy(), epoch_log, event == 'improved'
        saving.begin(functools.partial(save_epoch, plan, *made, checkpoints, history))
    saving.wait()
    if best_series is None:  # the best epoch was trained before this process started
      best_series = validate(plan, run.best, stop)
    return best_series
  except Stopped:
    saving.wait()
    if not schedule.done:
      save(plan, run, checkpoints)
    logger.info(
      'stopped and saved after %d epochs and %d of %d batches; the same command continues',
      schedule.epoch,
      run.batches_done,
      batches_per_epoch,
    )
    raise


def train_epoch(
  plan: Plan, run: RunState, train_step: StageSteps, progress, saving: Background, stop, mesh
):
  """Trains on the batches of the current epoch that are not done yet.

  Raises Stopped between two batches, Diverged, or what the epoch before could not be saved for.
  """
  config, schedule = plan.config, run.schedule
  epoch_seed = schedule.epoch if config.shuffle == 'every_epoch' else 0
  order = int(np.random.SeedSequence([config.seed, epoch_seed]).generate_state(1)[0])
  key = jax.random.key(config.seed)
  rows = sharding.own_rows(sharding.padded_size(config.batch_size, mesh), mesh)
  batches = plan.records.batches(
    plan.train_splits, config.batch_size, order, run.batches_done, rows
  )
  for batch in stop.watch(batches):
    saving.check()
    rate = schedule.rate(run.batches_done, plan.batches_per_epoch)
    batch_key = jax.random.fold_in(key, run.step(plan.batches_per_epoch))
    own = sharding.pad_rows(plan.system.select(batch), len(rows))
    device_batch = sharding.shard(own, mesh, rows)
    device_rate = sharding.replicate(np.float32(rate), mesh)
    run.state, metrics = train_step(schedule.stage, run.state, device_batch, batch_key, device_rate)
    size = min(config.batch_size, plan.sizes[0] - run.batches_done * config.batch_size)
    run.add_batch(metrics)
    progress.update(size, rate, schedule.best)
    # Two batches late, so that the host does not wait for the device.
    check_finite(run, config.skip_most, leave_out=2)


def check_finite(run: RunState, most: int, leave_out: int = 0):
  """Raises Diverged if more than `most` updates in a row were skipped.

  leave_out: number of the newest updates that do not count yet.
  """
  if run.skipped_in_a_row(leave_out) > most:
    raise Diverged(
      f'more than skip_most = {most} updates in a row were skipped: loss or gradient is not finite'
    )


def validate(plan: Plan, variables, stop):
  """Returns {clip: Series} of the validation partition. Raises Stopped."""
  return predict_split(
    plan.records,
    plan.validation_split,
    plan.system,
    variables,
    batch_size=plan.config.batch_size,
    smooth=plan.config.smooth,
    watch=stop.watch,
  )


def save_epoch(plan: Plan, run: RunState, epoch_log, improved, checkpoints, history):
  """Saves what an epoch has made: the best variables if it has improved, its line, the state."""
  epoch = run.schedule.epoch
  if improved:
    checkpoints.save(checkpoints.best, epoch, run.best, run.best_meta)
  history.write(epoch * plan.batches_per_epoch, epoch_log)
  # Saved last: after a kill, a line of metrics may be written again but is never missing.
  save(plan, run, checkpoints)


def save(plan: Plan, run: RunState, checkpoints):
  """Saves the state of the run as its newest one, on its bucket as well, in the primary process."""
  checkpoints.save(checkpoints.last, run.step(plan.batches_per_epoch), run.state, run.to_meta())
  copies.publish(checkpoints.folder.parent)


def restore_or_begin(plan: Plan, workdir):
  """Returns the RunState that the plan starts from, and notes for the log.

  Its arrays are on the host.
  """
  settings, shapes = plan.schedule_settings, plan.system.shapes
  if not plan.source:
    state = plan.initial_state(0, plan.initial_variables())
    return RunState(state, Schedule(len(plan.stages), **settings)), []
  metric = criterion(plan.config.targets)

  def state_shapes(meta):
    check_meta(meta, len(plan.stages))
    stage = meta['schedule']['stage']
    return jax.eval_shape(lambda variables: plan.initial_state(stage, variables), shapes)

  def best_shapes(meta):
    check_best(meta, metric)
    return shapes

  with contextlib.closing(Checkpoints(plan.source, read_only=True)) as saved:
    state, meta, best, notes = saved.restore_last(state_shapes, best_shapes)
  run = RunState.from_meta(state, meta, settings)
  if best:
    kept = 'epoch', metric
    run.best, run.best_meta = best[0], {name: best[1][name] for name in kept}
  if plan.source != workdir:
    run.begin_fork()
    if run.schedule.epoch >= run.schedule.max_epochs:
      raise InputError(
        f'config.resume={plan.source}: it has trained its {run.schedule.epoch} epochs; raise '
        'config.schedule.max_epochs'
      )
  return run, notes


def log_start(plan: Plan, workdir, run: RunState, notes, mesh):
  """Logs what the run starts or continues from."""
  for note in notes:
    logger.warning(note)
  schedule, config = run.schedule, plan.config
  if plan.source == workdir:
    logger.info(
      'resumed after %d epochs and %d of %d batches, stage %d',
      schedule.epoch,
      run.batches_done,
      plan.batches_per_epoch,
      schedule.stage + 1,
    )
    return
  if plan.source:
    logger.info(
      'continues from %s after %d epochs, stage %d; changed: %s',
      plan.source,
      schedule.epoch,
      schedule.stage + 1,
      ', '.join(plan.changed) or 'nothing',
    )
    for line in describe_origins(config, plan.origins):
      logger.info('%s, at the start of that run', line)
    return
  logger.info(
    '%s for %s: %s parameters, %d training and %d validation records, %d device(s), towers in %s',
    config.model.fusion.name,
    ' and '.join(config.targets),
    f'{steps.parameter_count(run.state.params):,}',
    *plan.sizes,
    mesh.size,
    plan.system.model.tower_type,
  )
  if config.resume:
    logger.info(
      'config.resume=%s was trained on other records: this run begins with its best weights, '
      'its own schedule and a fresh optimizer',
      config.resume,
    )
  for line in describe_origins(config, plan.origins):
    logger.info(line)
  for line in describe_changes(plan.origins):
    logger.warning(line)
  last = plan.stages[-1]
  for tower in ('visual', 'audio'):

    def never_trained(path, tower=tower):
      return path.startswith(f'{tower}/') and not last(path)

    never = steps.parameter_count(run.state.params, never_trained)
    if never and not {tower, 'model'} & plan.origins.keys():
      logger.warning(
        "%s of the %s tower's random weights are never trained: "
        'give config.init.%s a file of pretrained ones, as the paper does',
        f'{never:,}',
        tower,
        tower,
      )
