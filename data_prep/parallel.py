"""Computes in a pool of processes, which gives its results in order and shows its progress.

No worker outlives the main process.
"""

import collections
import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading

import tqdm

from avjax.errors import InputError
from avjax.files.mistakes import Mistakes


def core_count():
  """Returns how many cores this process may use; macOS tells only how many there are."""
  return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()


@contextlib.contextmanager
def spawned_pool(workers, initializer=None):
  """Gives a pool of processes that find packages where this process does.

  They are spawned, not forked: FFmpeg, librosa, TensorFlow and the caller hold threads and locks.
  """
  # A spawned process gets this one's sys.path, but only after its first imports. Without the
  # variable it would look for those in the current folder, which may be a stranger's.
  before = os.environ.get('PYTHONSAFEPATH')
  os.environ['PYTHONSAFEPATH'] = '1'
  try:
    context = multiprocessing.get_context('spawn')
    with concurrent.futures.ProcessPoolExecutor(workers, context, initializer) as pool:
      yield pool
  finally:
    if before is None:
      del os.environ['PYTHONSAFEPATH']
    else:
      os.environ['PYTHONSAFEPATH'] = before


@contextlib.contextmanager
def ordered(function, items, workers, unit):
  """Gives an iterator over function(item) for each item, in order, computed by `workers` processes.

  At most workers + 2 results are computed ahead, so that memory stays bounded however slowly they
  are taken. The iterator raises what the function raises. Leaving the context early drops the work
  that has not begun, and an error ends the context at once. Otherwise the workers have ended after
  it: a pool that is left to Python's end may complain there.
  """
  with spawned_pool(min(workers, len(items)), prepare_worker) as pool:
    try:
      yield progress(results(pool, function, items, workers + 2), len(items), unit)
    except BaseException as error:
      pool.shutdown(wait=False, cancel_futures=True)
      if isinstance(error, concurrent.futures.process.BrokenProcessPool):
        raise InputError(
          'a worker process was killed, probably for lack of memory; use fewer --workers'
        ) from None
      raise
    pool.shutdown(cancel_futures=True)


def ordered_or_mistakes(function, items, workers, unit):
  """Returns [function(item)] of all items, computed as `ordered` does.

  Raises one InputError with what every item is refused for, not only the first.
  """
  mistakes, found = Mistakes(), []
  with ordered(functools.partial(result_or_error, function), items, workers, unit) as computed:
    for result, error in computed:
      found.append(result)
      if error is not None:
        with mistakes.caught():
          raise error
  mistakes.raise_if_any()
  return found


def result_or_error(function, item):
  """Returns (function(item), None), or (None, the InputError that it raises)."""
  try:
    return function(item), None
  except InputError as error:
    return None, error


def results(pool, function, items, ahead):
  """Yields the results in order; at most `ahead` calls are under way or wait to be taken."""
  pending = collections.deque()
  for item in items:
    pending.append(pool.submit(function, item))
    if len(pending) >= ahead:
      yield pending.popleft().result()
  while pending:
    yield pending.popleft().result()


def progress(values, total, unit):
  """Passes values on, showing a bar on a terminal and about twenty plain lines elsewhere."""
  if sys.stderr.isatty():
    yield from tqdm.tqdm(values, total=total, unit=unit)
    return
  step = max(1, total // 20)
  for done, value in enumerate(values, 1):
    if done % step == 0 or done == total:
      print(f'{unit}s: {done} of {total}', file=sys.stderr, flush=True)
    yield value


def prepare_worker():
  """Makes a worker ignore Ctrl-C and end with the main process, not wait for work forever."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def watch():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=watch, daemon=True).start()
