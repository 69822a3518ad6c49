"""The training loop: stages x epochs, from top to bottom."""

import dataclasses
import logging
import math
import pathlib
import sys
import time

import jax
import numpy as np

from avjax import evaluate, optimizer, plots, run, sharding, step, unfreezing
from avjax.checkpoint import Checkpoints
from avjax.dataset import Records
from avjax.report import Metrics, Progress, start_logging
from avjax.stop import Stopped, StopSignal
from data_prep.affwild2 import fold_chunks
from data_prep.errors import InputError

logger = logging.getLogger('avjax')


def train(config, workdir):
  """Trains what the config describes in workdir, or goes on with the run there.

  Returns the results on the validation partition (see evaluate.score), or None if it was asked to stop before the end.
  Raises InputError, before anything is written, for records, patterns or a workdir that do not fit the config.
  """
  workdir, model = pathlib.Path(workdir), step.make_model(config)
  records = Records(config.data.dir, {name: config.data[name] for name in ('length', 'stride', 'face')})
  train_splits, validation_split = fold_chunks(config.fold)
  sizes = [records.size(train_splits), records.size([validation_split])]
  if not all(sizes):
    raise InputError(f'fold {config.fold} of the records in {config.data.dir} has no training or no validation records')
  batches_per_epoch = math.ceil(sizes[0] / config.batch_size)

  mesh = sharding.make_mesh()
  variables = step.init_variables(config, model, config.seed)
  stages = make_stages(config, step.paths(variables['params']))
  optimizers = [optimizer.make_optimizer(trains, config.optimizer.weight_decay, config.optimizer.rate_factors)
                for trains in stages]
  run.open_run(config, workdir, records.manifest)
  start_logging(workdir / 'train.log')

  def new_state(stage, variables):
    return step.State(**variables, opt_state=optimizers[stage].init(variables['params']))

  # Where the run stands: the schedule, the batches done of the current epoch and their (loss, gradient norm).
  schedule = unfreezing.Schedule(len(stages), **{k: v for k, v in config.schedule.items() if k != 'reload_best'})
  state, batches_done, log, best = new_state(0, variables), 0, [], None
  checkpoints = Checkpoints(workdir)
  restored = checkpoints.restore(
      checkpoints.last, lambda meta: jax.eval_shape(lambda: new_state(meta['schedule']['stage'], variables)))
  if restored:
    state, meta = restored
    schedule, batches_done, log = unfreezing.Schedule(**meta['schedule']), meta['batches_done'], meta['log']
    if schedule.best_epoch >= 0:
      best, _ = checkpoints.restore(checkpoints.best, lambda meta: jax.eval_shape(lambda: variables))
    logger.info('resumed after %d epochs and %d of %d batches, stage %d', schedule.epoch, batches_done, batches_per_epoch,
                schedule.stage + 1)
  else:
    logger.info('%s for %s: %s parameters, %d training and %d validation records, %d device(s)', config.model.fusion.name,
                ' and '.join(config.targets), f'{step.count(variables["params"]):,}', *sizes, mesh.size)
  state = sharding.replicate(state, mesh)
  metrics = Metrics(workdir, schedule.epoch)
  predict_step = step.make_predict_step(config, model)
  padded = sharding.padded_size(config.batch_size, mesh)
  key = jax.random.key(config.seed)

  def validate(variables, watch=lambda batches: batches):
    batches = watch(records.batches([validation_split], config.batch_size))
    series = evaluate.predict(batches, predict_step, sharding.replicate(variables, mesh), config.batch_size, mesh)
    return series, evaluate.score(series, config.targets)

  def save():
    meta = {'schedule': dataclasses.asdict(schedule), 'batches_done': batches_done, 'log': np.array(log, float).tolist()}
    checkpoints.save(checkpoints.last, schedule.epoch * batches_per_epoch + batches_done, state, meta)

  stage, rate, speed, seconds = None, 0.0, 0.0, 0.0
  with StopSignal() as stop:
    try:
      while not schedule.done:
        if stage != schedule.stage:  # one compilation a stage
          stage = schedule.stage
          train_step = step.make_train_step(config, model, stages[stage], optimizers[stage])
        epoch, start, first = schedule.epoch, time.perf_counter(), batches_done
        title = f'stage {stage + 1}/{len(stages)}  epoch {epoch + 1}'
        progress = Progress(title, batches_per_epoch, batches_done, seconds * (schedule.max_epochs - epoch))
        order = int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0])
        for batch in stop.watch(records.batches(train_splits, config.batch_size, order, batches_done)):
          rate = schedule.rate((batches_done + 1) / batches_per_epoch)
          batch_key = jax.random.fold_in(key, epoch * batches_per_epoch + batches_done)
          device_batch = sharding.shard(sharding.pad_rows(step.on_device(batch), padded), mesh)
          state, values = train_step(state, device_batch, batch_key, np.float32(rate))
          log.append((values['loss'], values['gradient_norm']))
          batches_done += 1
          progress.update(config.batch_size, rate, schedule.best)
        progress.close()
        loss, gradient_norm = np.mean(np.array(log, float), axis=0)  # waits for the device
        speed = (batches_done - first) * config.batch_size / (time.perf_counter() - start)
        if not np.isfinite(loss):
          logger.error('the loss is not finite in epoch %d; %s keeps the epoch before. Try a lower rate.', epoch + 1, workdir)
          sys.exit(3)

        _, scores = validate(state.variables, stop.watch)
        ccc = float(np.mean([scores[target]['ccc'] for target in config.targets]))
        event = schedule.observe(ccc)
        if event == 'improved':
          best = jax.device_get(state.variables)
          checkpoints.save(checkpoints.best, schedule.epoch, best, {'epoch': epoch, 'ccc': ccc})
        if config.schedule.reload_best or schedule.stage != stage:  # a group always opens upon the best state
          state = state.replace(**sharding.replicate(best, mesh))
        if schedule.stage != stage:  # a fresh Adam for the groups that open
          state = sharding.replicate(new_state(schedule.stage, state.variables), mesh)
        batches_done, log = 0, []

        seconds = time.perf_counter() - start
        metrics.write(schedule.epoch * batches_per_epoch, {
            'epoch': epoch, 'stage': stage + 1, 'rate': rate, 'train_loss': float(loss), 'gradient_norm': float(gradient_norm),
            'validation_ccc': ccc, 'best_ccc': schedule.best, 'examples_per_second': speed, 'seconds': seconds, 'event': event,
            **{f'validation_{m}_{target}': scores[target][m] for target in config.targets for m in evaluate.METRICS}})
        logger.info('%s  loss %.3f  rate %.1e  %s  best %.3f  %.1f examples/s  %.0f s  %s', title, loss, rate,
                    '  '.join(f'{target} CCC {scores[target]["ccc"]:.3f}' for target in config.targets), schedule.best, speed,
                    seconds, event)
        save()  # last, so that a line of metrics is written again rather than missing
    except Stopped:
      progress.close()
      save()
      logger.info('stopped and saved after %d epochs and %d of %d batches; the same command goes on', schedule.epoch,
                  batches_done, batches_per_epoch)
      return None
    finally:
      checkpoints.close()

  series, _ = validate(best)
  plots.curves(metrics.history(), config.targets, workdir / 'curves.png')
  return evaluate.write_results(workdir, config, 'validation', series, {'best_epoch': schedule.best_epoch})


def make_stages(config, paths):
  """The `unfreezing.Trains` of each stage, from the config's patterns and the names of the model's parameters."""
  parts = [config.unfreezing.common, config.unfreezing[config.model.visual.tower]]
  groups = {name: [pattern for part in parts for pattern in part[name]] for name in parts[0]}
  frozen = groups.pop('frozen')
  try:
    optimizer.check_rate_factors(config.optimizer.rate_factors, paths)
    return unfreezing.stages([groups[name] for name in sorted(groups)], frozen, paths)
  except ValueError as error:
    raise InputError(str(error)) from error
