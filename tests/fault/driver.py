"""Runs avjax.main and sends itself a signal at a mark: driver.py SIGNAL MARK FLAGS...

Marks: train:EPOCH:BATCH and validate:EPOCH:BATCH, just before that batch (EPOCH counts from the
start of this process), when the epoch before is saved; unsaved:EPOCH:BATCH, just before that batch
of training while the epoch before is not saved yet; compile:STAGE, while the step of that stage is
being compiled, and compile:STAGE:MS, where SIGKILL follows after so many ms; save:N, in the N-th
checkpoint of the state; save:N:K, at the K-th file operation of this process since it began. All of
them count from 0.
"""

import functools
import os
import signal
import sys
import threading
import time

from avjax import errors, main
from avjax.data import dataset
from avjax.runs import background, checkpoint
from avjax.training.stage_steps import StageSteps

number, (kind, *place) = int(sys.argv[1]), sys.argv[2].split(':')
place = [int(part) for part in place]


def signal_now():
  print(f'signalled {time.time()}', file=sys.stderr, flush=True)
  os.kill(os.getpid(), number)


def at_batch(batches):
  epochs = {True: iter(range(1000)), False: iter(range(1000))}

  def interrupted(self, splits, batch_size, seed=None, skip=0, *rest, **named):
    training = seed is not None
    now = next(epochs[training])
    for i, value in enumerate(batches(self, splits, batch_size, seed, skip, *rest, **named)):
      if (training, [now, i + skip]) == (kind != 'validate', place):
        signal_now()
      yield value

  return interrupted


def in_compilation(begin):
  def signalled(self, stage, *arguments):
    if stage == place[0]:
      threading.Timer(0.2, signal_now).start()
      for milliseconds in place[1:]:
        end = functools.partial(os.kill, os.getpid(), signal.SIGKILL)
        threading.Timer(0.2 + milliseconds / 1000, end).start()
    return begin(self, stage, *arguments)

  return signalled


def in_save(save):
  saves = iter(range(1000))

  def interrupted(self, manager, *arguments):
    if manager is self.last and next(saves) == place[0]:
      if len(place) == 1:
        signal_now()
      else:
        operations = iter(range(10**6))
        sys.addaudithook(
          lambda event, _: (
            event in ('open', 'os.rename', 'os.mkdir', 'os.remove', 'os.rmdir', 'shutil.rmtree')
            and next(operations) == place[1]
            and signal_now()
          )
        )
    return save(self, manager, *arguments)

  return interrupted


def never_ending(save):
  saves = iter(range(1000))

  def waiting(self, manager, *arguments):
    if manager is self.last and next(saves) == place[0] - 1:
      threading.Event().wait()
    return save(self, manager, *arguments)

  return waiting


def at_once(begin):
  def saved(self, job):
    begin(self, job)
    self.wait()

  return saved


if kind in ('train', 'validate'):
  background.Background.begin = at_once(background.Background.begin)
if kind in ('train', 'validate', 'unsaved'):
  dataset.Records.batches = at_batch(dataset.Records.batches)
if kind == 'unsaved':
  checkpoint.Checkpoints.save = never_ending(checkpoint.Checkpoints.save)
elif kind == 'compile':
  StageSteps.begin = in_compilation(StageSteps.begin)
elif kind == 'save':
  checkpoint.Checkpoints.save = in_save(checkpoint.Checkpoints.save)
errors.run_command(main.main, sys.argv[:1] + sys.argv[3:], buckets=main.BUCKETS)
