"""Orbax behind one small class: the last two states to resume from, and the best variables, each leaf with a checksum."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp

from avjax.errors import InputError, one_line
from avjax.system import sharding


def ended(workdir):
  """Whether the run in workdir has come to its end, as its newest state says; not if that is damaged."""
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    return begun(workdir) and read_meta(checkpoints.last, checkpoints.last.latest_step())['schedule']['done']
  except Exception:  # whatever a damaged file makes Orbax raise: starting the run again mends it
    return False
  finally:
    checkpoints.close()


def begun(workdir):
  """Whether a run in workdir has saved a state, sound or not."""
  return any(path.name.isdigit() for path in pathlib.Path(workdir).glob('checkpoints/last/*'))


def checksums(tree):
  """{path of leaf: SHA-256 of its bytes}: Orbax restores a file with a flipped bit without a word."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): hashlib.sha256(np.ascontiguousarray(leaf)).hexdigest() for path, leaf in leaves}


def digest(meta):
  """SHA-256 of a JSON mapping, apart from its own 'digest'."""
  rest = {name: value for name, value in meta.items() if name != 'digest'}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read_meta(manager, step):
  """The meta of a step; raises whatever a damaged file makes Orbax raise, or ValueError where its checksum differs."""
  meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']
  if meta['digest'] != digest(meta):
    raise ValueError('checksum of its meta differs')
  return meta


class Checkpoints:
  """Checkpoints of one run under workdir/checkpoints: `last` (the newest two, whole states) and `best` (variables,
  of the newest and the second newest best epoch).

  A checkpoint is {'variables', 'opt_state'} (best: 'variables' alone) with `meta`, a JSON mapping that is read first,
  since the shapes of the optimizer's state follow from the stage it names.
  """

  def __init__(self, workdir, read_only=False):
    self.folder = pathlib.Path(workdir) / 'checkpoints'  # as the person named it
    self.last = self._manager('last', 2, read_only)
    self.best = self._manager('best', 2, read_only)

  def _manager(self, name, keep, read_only):
    own = {'read_only': True} if read_only else {'max_to_keep': keep}
    if not read_only and sharding.is_primary():  # of a save that was killed; Orbax's own cleaning leaves some
      for path in (self.folder / name).glob('*.orbax-checkpoint-tmp*'):
        shutil.rmtree(path, ignore_errors=True)
    return ocp.CheckpointManager((self.folder / name).absolute(), item_names=('state', 'meta'),
                                 options=ocp.CheckpointManagerOptions(enable_async_checkpointing=False, **own))

  def save(self, manager, step, state, meta):
    """Saves a tree of arrays and its meta as `step`.

    Steps from there on are the future of a run that was killed: they go, and one that is the same is left as it is.
    Raises InputError where the disk does not take it; the steps before are as they were.
    """
    state = jax.device_get(state)  # without a layout over devices, so that any other number of them can restore it
    meta = {**meta, 'sha256': checksums(state)}
    meta['digest'] = digest(meta)
    for old in manager.all_steps():
      if old == step and self._holds(manager, old, meta):
        return
      if old >= step:
        manager.delete(old)
    try:
      manager.save(step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)))
    except Exception as error:  # an OSError, or what TensorStore makes of one: '... File too large [os_error_code='27']'
      found = re.search(r"os_error_code='(\d+)'", str(error))
      number = int(found[1]) if found else getattr(error, 'errno', None)
      if number is None:
        raise
      sys.unraisablehook = lambda unraisable: None  # Orbax's event loop, which the failure has closed, complains of what it had to do
      raise InputError(f'checkpoint {step} cannot be written to {manager.directory}: {os.strerror(number)}; mend that and start the '
                       'same command again: the states before are as they were') from error

  def _holds(self, manager, step, meta):
    """Whether the step is sound and has this meta."""
    try:
      return self._read(manager, step, lambda meta: None)[1] == meta
    except Exception:  # damaged: it is written anew
      return False

  def _read(self, manager, step, abstract):
    """(state, meta) of a step; raises as `read_meta` does."""
    meta = read_meta(manager, step)
    state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract(meta))))['state']
    wrong = [path for path, found in checksums(state).items() if meta['sha256'].get(path) != found]
    if wrong or len(meta['sha256']) != len(jax.tree.leaves(state)):
      raise ValueError(f'checksum of {wrong[0] if wrong else "its arrays"} differs')
    return state, meta

  def restore_last(self, abstract, abstract_best):
    """Returns (state, meta, (best variables, their meta) or None, notes) of the newest state that is sound together with its best.

    abstract(meta) and abstract_best return trees of jax.ShapeDtypeStruct. notes: a line for each newer state that is not.
    InputError if there is no sound one.
    """
    notes = []
    for step in sorted(self.last.all_steps(), reverse=True):
      place, best = self.folder / 'last' / str(step), None
      try:
        state, meta = self._read(self.last, step, abstract)
        epochs = meta['schedule']['best_epoch'] + 1
        if epochs:
          place = self.folder / 'best' / str(epochs)
          best = self._read(self.best, epochs, abstract_best)
        return state, meta, best, notes
      except Exception as error:
        notes.append(f'checkpoint {place} is damaged ({one_line(error)}); the state before is taken')
    newest = f' ({place.parent.name}/{place.name}, for one)' if notes else ''
    raise InputError(f'all checkpoints in {self.folder} are damaged{newest}; start again with another --workdir')

  def restore_best(self, abstract):
    """Returns (variables, meta) of the best epoch. InputError if there is none yet, or it is damaged."""
    step = self.best.latest_step()
    if step is None:
      raise InputError(f'{self.folder.parent} has no best checkpoint yet; let its first epoch finish')
    try:
      return self._read(self.best, step, abstract)
    except Exception as error:
      raise InputError(f'{self.folder / "best" / str(step)} is damaged; start the run again, which goes back to a sound state') from error

  def close(self):
    self.last.close()
    self.best.close()
