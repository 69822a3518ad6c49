"""The training loop: stages x epochs, from top to bottom. `python -m avjax.main` calls `train`."""

import dataclasses
import math
import pathlib
import signal
import time

import jax
import numpy as np

from avjax import evaluate, optimizer, plots, run, sharding, step, unfreezing
from avjax.checkpoint import Checkpoints
from avjax.dataset import Records
from avjax.report import Metrics, Progress, logger, start_logging
from data_prep.affwild2 import fold_chunks
from data_prep.errors import InputError


class Stopped(Exception):
  """The process was asked to stop."""


class StopSignal:
  """Turns SIGTERM and the first Ctrl-C into a Stopped between two batches, so that the state can be saved."""

  def __enter__(self):
    self.asked = False
    self.old = {s: signal.signal(s, self._ask) for s in (signal.SIGTERM, signal.SIGINT)}
    return self

  def __exit__(self, *exception):
    for number, handler in self.old.items():
      signal.signal(number, handler)

  def _ask(self, number, frame):
    del frame
    if self.asked and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.asked = True

  def watch(self, batches):
    """The batches, until the signal comes."""
    for batch in batches:
      if self.asked:
        raise Stopped
      yield batch


def make_stages(config, params):
  """The `unfreezing.Trains` of each stage, from the config's patterns and the names of the model's parameters."""
  groups = [config.unfreezing.common, config.unfreezing[config.model.visual.tower]]
  merged = {name: [p for group in groups for p in group[name]] for name in ('group1', 'group2', 'group3', 'frozen')}
  try:
    optimizer.check_rate_factors(config.optimizer.rate_factors, step.paths(params))
    return unfreezing.stages([merged['group1'], merged['group2'], merged['group3']], merged['frozen'], step.paths(params))
  except ValueError as error:
    raise InputError(str(error)) from error


def train(config, workdir):
  """Trains what the config describes in workdir, or goes on with the run there. Returns its results, or None if stopped."""
  workdir = pathlib.Path(workdir)
  records = Records(config.data.dir, {name: config.data[name] for name in ('length', 'stride', 'face')})
  train_splits, validation_split = fold_chunks(config.fold)
  count, examples = math.ceil(records.size(train_splits) / config.batch_size), records.size(train_splits)
  records.size([validation_split])
  model, mesh = step.make_model(config), sharding.make_mesh()
  variables = step.init_variables(config, model, config.seed)
  stages = make_stages(config, variables['params'])
  run.open_run(config, workdir, records.manifest)
  start_logging(workdir / 'train.log')

  schedule_config = config.schedule.to_dict()
  reload_best = schedule_config.pop('reload_best')
  schedule = unfreezing.Schedule(len(stages), **schedule_config)
  checkpoints = Checkpoints(workdir)

  def stage_optimizer(stage):
    return optimizer.make_optimizer(stages[stage], config.optimizer.weight_decay, config.optimizer.rate_factors)

  def new_state(stage, variables):
    return step.State(**variables, opt_state=stage_optimizer(stage).init(variables['params']))

  def abstract_state(meta):
    return jax.eval_shape(lambda v: new_state(meta['schedule']['stage'], v), variables)

  restored = checkpoints.restore(checkpoints.last, abstract_state)
  if restored:
    state, meta = restored
    schedule, batches_done, log = unfreezing.Schedule(**meta['schedule']), meta['batches_done'], meta['log']
    best = checkpoints.restore(checkpoints.best, lambda meta: jax.eval_shape(lambda: variables))
    best = best[0] if best else None
    if not schedule.done:
      logger.info('resumed at epoch %d, batch %d of %d, stage %d', schedule.epoch, batches_done, count, schedule.stage + 1)
  else:
    state, batches_done, best, log = new_state(0, variables), 0, None, []
    total = sum(math.prod(x.shape) for x in jax.tree.leaves(variables['params']))
    logger.info('%s for %s: %s parameters, %d training and %d validation records, %d device(s)', config.model.fusion.name,
                ' and '.join(config.targets), f'{total:,}', examples, records.size([validation_split]), mesh.size)
  metrics = Metrics(workdir, schedule.epoch)
  state = sharding.replicate(state, mesh)
  predict_step = step.make_predict_step(config, model)
  size = sharding.padded_size(config.batch_size, mesh)
  key = jax.random.key(config.seed)

  def predict(variables, split, watch=lambda batches: batches):
    batches = watch(records.batches([split], config.batch_size))
    return evaluate.predict(batches, predict_step, variables, config.batch_size, mesh)

  def save():
    meta = {'schedule': dataclasses.asdict(schedule), 'batches_done': batches_done, 'log': np.array(log, float).tolist()}
    checkpoints.save(checkpoints.last, schedule.epoch * count + batches_done, state, meta)

  rate, built = 0.0, None  # the stage whose step is compiled
  epoch_seconds = 0.0
  with StopSignal() as stop:
    try:
      while not schedule.done:
        if built != schedule.stage:
          built = schedule.stage
          train_step = step.make_train_step(config, model, stages[built], stage_optimizer(built))
        epoch, start = schedule.epoch, time.perf_counter()
        order = int(np.random.SeedSequence([config.seed, epoch]).generate_state(1)[0])
        name = f'stage {built + 1}/{len(stages)} epoch {epoch + 1}'
        progress = Progress(name, count, batches_done, epoch_seconds * (schedule.max_epochs - epoch))
        first = batches_done
        for batch in stop.watch(records.batches(train_splits, config.batch_size, order, batches_done)):
          rate = schedule.rate((batches_done + 1) / count)
          batch_key = jax.random.fold_in(key, epoch * count + batches_done)
          device = sharding.shard(sharding.pad_rows(step.on_device(batch), size), mesh)
          state, values = train_step(state, device, batch_key, np.float32(rate))
          log.append((values['loss'], values['gradient_norm']))
          batches_done += 1
          speed = (batches_done - first) * config.batch_size / (time.perf_counter() - start)
          progress.update(speed, rate, schedule.best)
        train_loss, gradient_norm = np.mean(np.array(log, float), axis=0)  # waits for the device
        train_seconds = time.perf_counter() - start
        progress.close()

        scores = evaluate.score(predict(state.variables, validation_split, stop.watch), config.targets)
        ccc = float(np.mean([scores[target]['ccc'] for target in config.targets]))
        event = schedule.observe(ccc)
        if event == 'improved':
          best = jax.device_get(state.variables)
          checkpoints.save(checkpoints.best, schedule.epoch, best, {'epoch': epoch, 'ccc': ccc})
        elif reload_best and best is not None:
          state = state.replace(**sharding.replicate(best, mesh))
        if schedule.stage != built and not schedule.done:  # a fresh Adam for the stage that opens
          state = sharding.replicate(new_state(schedule.stage, state.variables), mesh)
        batches_done, log = 0, []
        save()

        epoch_seconds = time.perf_counter() - start
        row = {'epoch': epoch, 'stage': built + 1, 'rate': rate, 'train_loss': float(train_loss),
               'gradient_norm': float(gradient_norm), 'validation_ccc': ccc, 'best_ccc': schedule.best,
               **{f'validation_{m}_{t}': scores[t][m] for t in config.targets for m in ('ccc', 'pcc', 'rmse')},
               'examples_per_second': (count - first) * config.batch_size / train_seconds, 'seconds': epoch_seconds,
               'event': event}
        metrics.write(schedule.epoch * count, row)
        logger.info('%s  loss %.3f  rate %.1e  %s  best %.3f  %.1f examples/s  %.0f s  %s', name, train_loss, rate,
                    '  '.join(f'{t} CCC {scores[t]["ccc"]:.3f}' for t in config.targets), schedule.best,
                    row['examples_per_second'], epoch_seconds, event)
    except Stopped:
      save()
      logger.info('stopped and saved at epoch %d, batch %d of %d; the same command goes on', schedule.epoch, batches_done, count)
      return None

  series = predict(best, validation_split)
  results = evaluate.write_results(workdir, config, 'validation', series, {'best_epoch': schedule.best_epoch})
  plots.curves(metrics.history(), config.targets, workdir / 'curves.png')
  checkpoints.close()
  return results
