"""avjax.main in a process that sends itself a signal just before a batch: kill_at.py SIGNAL EPOCH BATCH FLAGS..."""

import os
import sys

from avjax import dataset, main
from data_prep import errors

number, epoch, batch = (int(argument) for argument in sys.argv[1:4])
batches, epochs = dataset.Records.batches, iter(range(1000))


def interrupted(self, splits, batch_size, seed=None, skip=0):
  now = next(epochs) if seed is not None else None
  for i, value in enumerate(batches(self, splits, batch_size, seed, skip)):
    if (now, i + skip) == (epoch, batch):
      os.kill(os.getpid(), number)
    yield value


dataset.Records.batches = interrupted
errors.run(main.main, sys.argv[:1] + sys.argv[4:])
