"""Decodes clips on a Dask cluster that somebody has started, on one machine or on many.

All machines have the data set and the folder of the unfinished records mounted under the same
paths. A job and the clip that is decoded from it are files in that folder. What travels by way of
the scheduler is the path of a job, and for an answer nothing or the text of an error. Dask itself
serializes the function and that path with pickle: whoever reaches the scheduler can run programs
as the person who started it.

A worker that dies costs the clip that it was decoding. Dask gives its jobs to others, and what it
had finished is in the folder. Each try to decode a clip leaves a byte in a third file, since Dask
counts a death against all clips that waited for that worker, too.
"""

import collections
import concurrent.futures
import contextlib
import importlib.metadata
import json
import logging
import pathlib
import pkgutil
import platform
import queue
import re
import sys
import threading
import traceback

import numpy as np

import avjax
from avjax import files
from avjax.data.records import Layout
from avjax.errors import InputError, one_line, writing
from data_prep import contents, found_faces, parallel
from data_prep.clips import Clip, DecodedClip, Job
from data_prep.labels import TimedLabels, Trace

# What the bytes of a clip depend on; the manifest has more, which only write records.
PACKAGES = ('av', 'librosa', 'numpy', 'opencv-python-headless', 'pillow')
SECONDS = 30  # for the scheduler to answer, and for workers to be there
AHEAD = 4  # clips for each thread of the workers that may be decoded, or wait on the disk


@contextlib.contextmanager
def connected(address):
  """Yields a client of the Dask scheduler at HOST:PORT, to which a worker has come at least.

  Raises InputError where dask.distributed is not installed, where nothing answers, or where no
  worker comes.
  """
  if not re.fullmatch(r'[^\s/]+:\d+', address):
    raise InputError(
      f'--scheduler {address} is not HOST:PORT, such as 10.0.0.5:8786; for TLS, set '
      "distributed.comm.default-scheme to tls in Dask's configuration"
    )
  with start(address) as client:
    try:
      client.wait_for_workers(1, timeout=SECONDS)
    except TimeoutError:
      raise InputError(
        f'the scheduler at {address} has no workers; start some with: dask worker {address}'
      ) from None
    try:  # a worker that cannot import what it is to run ends without a word
      client.run(pkgutil.resolve_name, f'{__name__}:decode_job')
    except ImportError as error:
      raise other_environment(error) from error
    yield client


def start(address):
  """Returns a distributed.Client; raises InputError where Dask is missing or no scheduler answers.

  It is made in a thread, since Dask waits forever for what speaks another protocol, such as a
  dashboard.
  """
  try:
    import distributed
  except ImportError as error:
    raise InputError(
      f"--scheduler needs dask.distributed ({one_line(error)}): pip install 'avjax[dask]'"
    ) from error
  for name in ('distributed', 'distributed.client', 'distributed.core'):
    logging.getLogger(name).setLevel(logging.CRITICAL)  # what is wrong is an InputError
  answers = queue.SimpleQueue()

  def connect():
    try:
      answers.put(distributed.Client(address, timeout=SECONDS, set_as_default=False))
    except (OSError, ValueError) as error:
      answers.put(error)

  threading.Thread(target=connect, daemon=True).start()
  try:
    found = answers.get(timeout=2 * SECONDS)
  except queue.Empty:
    found = TimeoutError('it speaks another protocol')
  if isinstance(found, Exception):
    raise InputError(
      f'no Dask scheduler answers at {address} ({one_line(found)}); start one with: dask scheduler'
    ) from found
  return found


@contextlib.contextmanager
def ordered(jobs, layout, client, folder):
  """Gives an iterator over what `contents.decode` returns for each job, in order.

  Args:
    jobs: of the clips.
    layout: the records.Layout.
    client: that `connected` yields.
    folder: a new folder on the disk that all machines share; it holds at most AHEAD clips for each
      thread of the workers.

  The iterator raises InputError where a clip cannot be decoded, where workers die of it, or where
  the scheduler is lost. Leaving the context early drops the work that has not begun.
  """
  folder = folder.absolute()
  folder.mkdir(parents=True)
  pending = collections.deque()
  try:
    yield parallel.progress(results(jobs, layout, client, folder, pending), len(jobs), 'clip')
  finally:
    client.cancel([future for _, future in pending])


def results(jobs, layout, client, folder, pending):
  """Yields the clips in order; `pending` holds (job, future) of those that are under way."""
  for job in jobs:
    path = folder / f'{job.clip.name}.job.npz'
    save_job(path, job, layout)
    pending.append((job, submit(client, path)))
    if len(pending) >= AHEAD * threads(client):
      yield take(client, folder, pending)
  while pending:
    yield take(client, folder, pending)


def submit(client, path):
  """Returns the future of a job whose file is at `path`."""
  return client.submit(decode_job, str(path), pure=False)


def threads(client):
  """Returns how many clips the workers that are there now decode at a time, 1 if there are none."""
  try:
    return sum(client.nthreads().values()) or 1
  except OSError as problem:
    raise lost(client) from problem


def lost(client):
  """Returns the error of a scheduler that was there and is no longer."""
  return InputError(
    f'the scheduler at {client.scheduler.address} is lost; the same command starts again'
  )


def wait_for(future, client):
  """Returns what a job has answered; says so where it waits since there are no workers any more."""
  told = False
  while True:
    try:
      return future.result(timeout=SECONDS)
    except TimeoutError:
      if not client.nthreads() and not told:
        told = True
        print('all workers have gone; the build waits for new ones', file=sys.stderr, flush=True)


def other_environment(problem):
  """Returns the error of a scheduler or workers that cannot import this module."""
  return InputError(
    f'scheduler or workers cannot run {__name__} ({one_line(problem)}); '
    'start them in an environment that has this avjax'
  )


def take(client, folder, pending):
  """Waits for the clip that is the first in `pending`, and reads it; its files are removed."""
  import distributed

  job, future = pending[0]
  paths = {kind: folder / f'{job.clip.name}.{kind}' for kind in ('clip.npz', 'job.npz', 'begun')}
  try:
    answer = wait_for(future, client)
  except distributed.KilledWorker as problem:
    tries = paths['begun'].stat().st_size if paths['begun'].exists() else 0
    if tries <= problem.allowed_failures:  # most of those workers had not begun with it
      pending[0] = job, submit(client, paths['job.npz'])
      return take(client, folder, pending)
    raise InputError(
      f'{tries} workers died of {job.clip.video}, probably for lack of memory; '
      'start fewer of them on a machine'
    ) from problem
  except (concurrent.futures.CancelledError, OSError) as problem:
    raise lost(client) from problem
  except RuntimeError as problem:  # of the scheduler, which deserializes the name of the function
    raise other_environment(problem) from problem
  if 'error' in answer:
    raise InputError(answer['error'])
  if 'bug' in answer:
    raise AssertionError(answer['bug'])
  pending.popleft()
  decoded = load_clip(paths['clip.npz'])
  for path in paths.values():
    path.unlink()
  return decoded


# What runs on the workers.


def decode_job(path):
  """Decodes the clip of a job's file into a file beside it, in one step.

  A clip that is there already, from a worker that died afterwards, is left as it is. Returns {}, or
  the text of an InputError as {'error': text}, or the traceback of another exception as {'bug':
  text}: Dask would wait forever for an exception that it cannot serialize.
  """
  try:
    path = pathlib.Path(path)
    target = path.with_name(path.name.replace('.job.npz', '.clip.npz'))
    if not target.exists():
      job, layout = check_job(path)
      with writing(target):
        with open(path.with_name(path.name.replace('.job.npz', '.begun')), 'a') as begun:
          begun.write('.')
        save_clip(target, *contents.decode(job, layout))
  except InputError as error:
    return {'error': f'{error}'}
  except Exception:
    return {'bug': traceback.format_exc()}
  return {}


def check_job(path):
  """Returns the job and the layout of a file.

  Raises InputError where this worker does not see the files that it needs, or has other versions.
  """
  where = f'the worker on {platform.node()}'
  remedy = 'must be on a disk that all machines have mounted under the same path'
  if not path.exists():
    raise InputError(f'{where} does not find {path}; --data_dir {remedy}')
  job, layout, wanted = load_job(path)
  found = versions(job)
  for name in wanted:
    if found[name] != wanted[name]:
      raise InputError(
        f'{where} has another {name} ({found[name]}, not {wanted[name]}), with which the records '
        'may have other bytes; install the same versions'
      )
  crops = () if job.face else (job.clip.crops,)
  for source in (job.clip.video, *crops, *job.features.values()):
    if not source.exists():
      raise InputError(f'{where} does not find {source}; --source {remedy}')
  return job, layout


def versions(job):
  """Returns the versions of what the bytes of a clip depend on."""
  found = {'python': platform.python_version(), 'avjax': avjax.__version__}
  found |= {name: importlib.metadata.version(name) for name in PACKAGES}
  return found | (found_faces.programs() if job.face else {})


# The files.


def save(path, values, arrays):
  """Writes values that JSON can hold, and arrays, in one step."""
  with files.replacing(path) as partial:
    np.savez(partial, values=np.array(json.dumps(values)), **arrays)


def load(path):
  """Returns the values and the arrays that `save` has written."""
  with np.load(path, allow_pickle=False) as found:
    arrays = {name: found[name] for name in found.files}
  return json.loads(str(arrays.pop('values'))), arrays


def save_job(path, job, layout):
  """Writes a job, with absolute paths, the layout, and the versions here."""
  clip = {
    name: str(value.absolute()) if isinstance(value, pathlib.Path) else value
    for name, value in vars(job.clip).items()
  }
  values = {
    'clip': clip,
    'unreadable': sorted(job.unreadable),
    'features': {name: str(file.absolute()) for name, file in job.features.items()},
    'ignore_length': job.ignore_length,
    'face': job.face,
    'subject': job.subject,
    'layout': vars(layout),
    'versions': versions(job),
  }
  arrays = {'crop_ids': job.crop_ids, 'labels': job.labels, 'annotated': job.annotated}
  if job.timed is not None:
    fields = {name: getattr(job.timed, name) for name in ('by_frame', 'lag', 'gap')}
    values['timed'] = fields | {'annotators': [trace.annotator for trace in job.timed.traces]}
    arrays['weights'] = job.timed.weights
    for i, trace in enumerate(job.timed.traces):
      arrays |= {f'places/{i}': trace.places, f'values/{i}': trace.values}
  save(path, values, {name: array for name, array in arrays.items() if array is not None})


def load_job(path):
  """Returns the job, the layout and the versions that `save_job` has written."""
  values, arrays = load(path)
  clip = values['clip']
  paths = {
    name: clip[name] and pathlib.Path(clip[name]) for name in ('video', 'crops', 'annotation')
  }
  timed = values.get('timed')
  if timed:
    names = timed.pop('annotators')
    traces = [
      Trace(name, arrays[f'places/{i}'], arrays[f'values/{i}']) for i, name in enumerate(names)
    ]
    timed = TimedLabels(tuple(traces), arrays['weights'], **timed)
  job = Job(
    clip=Clip(**clip | paths),
    crop_ids=arrays['crop_ids'],
    labels=arrays.get('labels'),
    annotated=arrays.get('annotated'),
    unreadable=frozenset(values['unreadable']),
    features={name: pathlib.Path(file) for name, file in values['features'].items()},
    ignore_length=values['ignore_length'],
    timed=timed,
    face=values['face'],
    subject=values['subject'],
  )
  return job, Layout(**values['layout']), values['versions']


def save_clip(path, clip, seen):
  """Writes a decoded clip, and the contents of the files that it was decoded from."""
  fields = dict(vars(clip))
  arrays = {f'features/{name}': rows for name, rows in fields.pop('features').items()}
  arrays |= {name: value for name, value in fields.items() if isinstance(value, np.ndarray)}
  plain = {name: value for name, value in fields.items() if name not in arrays}
  save(path, {'clip': plain, 'seen': seen}, arrays)


def load_clip(path):
  """Returns the clip and the contents that `save_clip` has written."""
  values, arrays = load(path)
  features = {
    name.removeprefix('features/'): arrays.pop(name)
    for name in list(arrays)
    if name.startswith('features/')
  }
  return DecodedClip(**values['clip'], **arrays, features=features), values['seen']
