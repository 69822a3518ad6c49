"""The training loop: stages x epochs, from top to bottom."""

import contextlib
import dataclasses
import logging
import math
import pathlib
import sys
import time

import jax
import numpy as np

from avjax.errors import InputError
from avjax.evaluation.results import score, write_results
from avjax.evaluation.series import predict_records
from avjax.reports import plots
from avjax.runs import folder as run_folder
from avjax.runs.checkpoint import Checkpoints
from avjax.runs.history import History
from avjax.system import sharding, step
from avjax.targets.metrics import METRICS
from avjax.training import optimizer, unfreezing
from avjax.training.plan import prepare
from avjax.training.progress import Progress, start_logging
from avjax.training.stop import Stopped
from avjax.weights.initialize import describe_origins

logger = logging.getLogger('avjax')


def train(config, workdir, stop):
  """Trains what the config describes in workdir, or goes on with the run there.

  stop: a StopSignal. Returns the results on the validation partition (see evaluate.score), or None if it was asked to stop before
  the end. Raises InputError, before anything is written, for a config, records or a workdir that do not fit; SystemExit(3)
  where too many updates in a row, or a whole epoch, had a loss or gradient that was not finite.
  """
  try:
    workdir = pathlib.Path(workdir)
    return run_stages(prepare(config, workdir), workdir, stop)
  except Stopped:
    return None


def run_stages(plan, workdir, stop):
  """`train` of what is prepared; raises Stopped once the state is saved."""
  config, model, records, stages, source = plan.config, plan.model, plan.records, plan.stages, plan.source
  batches_per_epoch = math.ceil(plan.sizes[0] / config.batch_size)
  mesh = sharding.make_mesh()
  drawn = step.init_variables(config, model, config.seed)
  variables = jax.tree.map(lambda given, x: x if isinstance(given, jax.ShapeDtypeStruct) else given, plan.variables, drawn)
  optimizers = [optimizer.make_optimizer(is_trainable, config.optimizer)
                for is_trainable in stages]

  def new_state(stage, variables):
    return step.State(**variables, opt_state=optimizers[stage].init(variables['params']))

  # Where the run stands: the schedule, the batches done of the current epoch, their (loss, gradient norm), and how many updates
  # in a row had been skipped before them.
  settings = {name: value for name, value in config.schedule.items() if name != 'reload_best'}
  schedule = unfreezing.Schedule(len(stages), **settings)
  state, batches_done, log, skipped, best, notes = new_state(0, variables), 0, [], 0, None, []
  if source:
    saved = Checkpoints(source, read_only=True)
    state, meta, best, notes = saved.restore_last(
        lambda meta: jax.eval_shape(lambda: new_state(meta['schedule']['stage'], variables)), lambda meta: jax.eval_shape(lambda: variables))
    saved.close()
    best, best_meta = best or (None, None)
    schedule, batches_done, log, skipped = (unfreezing.Schedule(**meta['schedule'] | settings), meta['batches_done'], meta['log'],
                                            meta['skipped'])
    if source != workdir:  # it begins with a whole epoch, and is done when its own schedule says so
      batches_done, log, schedule.done = 0, [], False
      if schedule.epoch >= schedule.max_epochs:
        raise InputError(f'config.resume={source}: it has had its {schedule.epoch} epochs; raise config.schedule.max_epochs')

  lock = contextlib.ExitStack()
  lock.enter_context(run_folder.locked(workdir))
  run_folder.open_folder(config, workdir, records.manifest, plan.origins)
  start_logging(workdir / 'train.log', sharding.is_primary())
  for note in notes:
    logger.warning(note)
  checkpoints = Checkpoints(workdir)
  if source == workdir:
    logger.info('resumed after %d epochs and %d of %d batches, stage %d', schedule.epoch, batches_done, batches_per_epoch,
                schedule.stage + 1)
  elif source:
    if best is not None:
      checkpoints.save(checkpoints.best, schedule.best_epoch + 1, best, {'epoch': best_meta['epoch'], 'ccc': best_meta['ccc']})
    logger.info('goes on from %s after %d epochs, stage %d; changed: %s', source, schedule.epoch, schedule.stage + 1,
                ', '.join(plan.changed) or 'nothing')
    for line in describe_origins(config, plan.origins):
      logger.info('%s, at the start of that run', line)
  else:
    logger.info('%s for %s: %s parameters, %d training and %d validation records, %d device(s)', config.model.fusion.name,
                ' and '.join(config.targets), f'{step.count(variables["params"]):,}', *plan.sizes, mesh.size)
    for line in describe_origins(config, plan.origins):
      logger.info(line)
    for tower in ('visual', 'audio'):
      never = step.count(variables['params'], lambda path: path.startswith(f'{tower}/') and not stages[-1](path))
      if never and not {tower, 'model'} & plan.origins.keys():
        logger.warning('%s of the %s tower\'s random weights are never trained: give config.init.%s a file of pretrained ones, '
                       'as the paper does', f'{never:,}', {'visual': 'face'}.get(tower, tower), tower)
  state = sharding.replicate(state, mesh)
  metrics = History(workdir, schedule.epoch, sharding.is_primary())
  predict_step = step.make_predict_step(config, model)
  padded = sharding.padded_size(config.batch_size, mesh)
  key = jax.random.key(config.seed)

  def validate(variables, watch=lambda batches: batches):
    batches = watch(records.batches([plan.validation_split], config.batch_size))
    series = predict_records(batches, predict_step, sharding.replicate(variables, mesh), config, mesh)
    return series, score(series, config.targets)

  def save():
    meta = {'schedule': dataclasses.asdict(schedule), 'batches_done': batches_done, 'log': np.array(log, float).tolist(),
            'skipped': skipped}
    checkpoints.save(checkpoints.last, schedule.epoch * batches_per_epoch + batches_done, state, meta)

  def give_up(why):
    logger.error('%s. %s keeps the last state that was sound: go on from it with --config.resume, a lower rate and another '
                 '--workdir', why, workdir)
    sys.exit(3)

  def check_skipped(log):
    """Ends the run if too many of the last updates, the last ones of the epoch before among them, were skipped."""
    row = skipped_in_a_row(log)
    row += skipped if row == len(log) else 0
    if row > config.skip_most:
      give_up(f'more than skip_most = {config.skip_most} updates in a row were skipped: loss or gradient is not finite')
    return row

  stage, seconds = None, 0.0
  try:
    while not schedule.done:
      if stage != schedule.stage:  # one compilation a stage
        stage = schedule.stage
        train_step = step.make_train_step(config, model, stages[stage], optimizers[stage])
      epoch, start = schedule.epoch, time.perf_counter()
      title = f'stage {stage + 1}/{len(stages)}  epoch {epoch + 1}'
      shuffle = np.random.SeedSequence([config.seed, epoch if config.shuffle == 'every_epoch' else 0])
      order = int(shuffle.generate_state(1)[0])
      with Progress(title, batches_per_epoch, batches_done, seconds, schedule.max_epochs - epoch - 1) as progress:
        for batch in stop.watch(records.batches(plan.train_splits, config.batch_size, order, batches_done)):
          rate = schedule.rate(batches_done, batches_per_epoch)
          batch_key = jax.random.fold_in(key, epoch * batches_per_epoch + batches_done)
          device_batch = sharding.shard(sharding.pad_rows(step.on_device(batch, config), padded), mesh)
          state, values = train_step(state, device_batch, batch_key, np.float32(rate))
          log.append((values['loss'], values['gradient_norm']))
          batches_done += 1
          progress.update(len(batch['clip']), rate, schedule.best)
          check_skipped(log[:-2])  # two batches late, so that the device is not waited for
      row = check_skipped(log)
      values = np.array(log, float)  # waits for the device
      good = np.isfinite(values).all(axis=1)
      loss, gradient_norm = values[good].mean(axis=0) if good.any() else (np.nan, np.nan)
      speed = progress.done / (time.perf_counter() - start)
      _, scores = validate(state.variables, stop.watch)
      ccc = float(np.mean([scores[target]['ccc'] for target in config.targets]))
      if not np.isfinite([loss, ccc]).all():
        give_up(f'epoch {epoch + 1} is not finite: loss {loss:g}, CCC {ccc:g}')
      rate = schedule.rate(batches_per_epoch - 1, batches_per_epoch)
      event = schedule.observe(ccc)
      if event == 'improved':
        best = jax.device_get(state.variables)
        checkpoints.save(checkpoints.best, schedule.epoch, best, {'epoch': epoch, 'ccc': ccc})
      if schedule.stage != stage:  # a group opens upon the best state, with a fresh Adam
        state = sharding.replicate(new_state(schedule.stage, best), mesh)
      elif config.schedule.reload_best:
        state = state.replace(**sharding.replicate(best, mesh))
      batches_done, log, skipped = 0, [], row

      seconds = time.perf_counter() - start
      metrics.write(schedule.epoch * batches_per_epoch, {
          'epoch': epoch, 'stage': stage + 1, 'rate': rate, 'train_loss': float(loss), 'gradient_norm': float(gradient_norm),
          'skipped_updates': int((~good).sum()), 'validation_ccc': ccc, 'best_ccc': schedule.best, 'examples_per_second': speed,
          'seconds': seconds, 'event': event,
          **{f'validation_{m}_{target}': scores[target][m] for target in config.targets for m in METRICS}})
      logger.info('%s  loss %.3f  rate %.1e  %s  best %.3f  %.1f examples/s  %.0f s  %s', title, loss, rate,
                  '  '.join(f'{target} CCC {scores[target]["ccc"]:.3f}' for target in config.targets), schedule.best, speed,
                  seconds, event)
      if not good.all():
        logger.warning('%d of its %d updates were skipped: loss or gradient was not finite', (~good).sum(), len(good))
      save()  # last, so that a line of metrics is written again rather than missing
    series, _ = validate(best, stop.watch)
  except Stopped:
    if not schedule.done:
      save()
    logger.info('stopped and saved after %d epochs and %d of %d batches; the same command goes on', schedule.epoch,
                batches_done, batches_per_epoch)
    raise
  finally:
    checkpoints.close()
    lock.close()

  if sharding.is_primary():
    plots.curves(metrics.history(), config.targets, workdir / 'curves.png')
  return write_results(workdir, config, 'validation', series, {'best_epoch': schedule.best_epoch})


def skipped_in_a_row(log):
  """How many of the last entries of (loss, gradient norm) are not finite."""
  count = 0
  for values in reversed(log):
    if np.isfinite(np.array(values, float)).all():
      break
    count += 1
  return count
