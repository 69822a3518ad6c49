"""Saves and restores the states of a run with Orbax, with a checksum for each array."""

from __future__ import annotations

import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from avjax import errors, files
from avjax.errors import InputError, on_disk
from avjax.runs import arrays
from avjax.runs.damage import (
  Damaged,
  Foreign,
  check_right_to_read,
  disk_error,
  is_damage,
  late_tasks_silenced,
  remedy,
  why_not,
)
from avjax.runs.folder import CHECKPOINTS, begun, check_name, json_sha256
from avjax.system import sharding

KEPT = 2  # checkpoints of each kind: if the newest is damaged, the one before it is used


def ended(workdir: str | pathlib.Path) -> bool:
  """Tells whether the newest state of the run in workdir is its last; False if it is damaged.

  Raises InputError if it may not be read.
  """
  workdir = pathlib.Path(workdir)
  checkpoints = Checkpoints(workdir, read_only=True)
  try:
    newest = checkpoints.last.latest_step()
    return begun(workdir) and read_meta(checkpoints.last, newest)['schedule']['done']
  except Exception as error:  # whatever a damaged file makes Orbax raise: the run repairs it
    why_not(error, workdir / CHECKPOINTS, workdir)
    return False
  finally:
    checkpoints.close()


def checksums(tree: Any) -> dict[str, str]:
  """Computes {path of leaf: SHA-256 of its bytes}.

  Orbax restores an array with a flipped bit without noticing.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): hashlib.sha256(
      np.ascontiguousarray(leaf)
    ).hexdigest()
    for path, leaf in leaves
  }


def describe(tree: Any) -> dict[str, tuple[list[int], str]]:
  """Returns {name that Orbax gives a leaf: (its shape, its type)}, as `arrays.check` takes them."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): (list(leaf.shape), str(leaf.dtype))
    for path, leaf in leaves
  }


def check_best(meta: dict, metric: str) -> None:
  """Raises Foreign unless the meta of the best variables names their epoch and their score."""
  if type(meta.get('epoch')) is not int or type(meta.get(metric)) not in (int, float):
    raise Foreign(f'its meta lacks an epoch or {metric}')


def digest(meta: dict) -> str:
  """Computes the SHA-256 of a JSON mapping without its own 'digest'."""
  return json_sha256({name: value for name, value in meta.items() if name != 'digest'})


def read_meta(manager: Manager, step: int) -> dict:
  """Reads the meta of a step.

  Raises whatever a damaged file makes Orbax raise, Damaged where its checksum differs, or
  InputError where it is larger than any.
  """
  arrays.size_of(pathlib.Path(manager.directory, str(step)))
  meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']
  if not isinstance(meta, dict) or meta.get('digest') != digest(meta):
    raise Damaged('checksum of its meta differs')
  return meta


class Manager(ocp.CheckpointManager):
  """Orbax's manager, which does not ask JAX whether the process is to be stopped.

  It would ask by the numbers of its steps, and StopSignal asks by batches: JAX, which stops all
  processes at the number that was asked for last, would stop them at one that has long passed.
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class Checkpoints:
  """Keeps the checkpoints of one run under workdir/checkpoints.

  `last` has the newest two states to resume from: variables and the optimizer's state. `best` has
  the variables of the newest and the second newest best epoch. Each comes with `meta`, a JSON
  mapping that is read first, since the shapes of the optimizer's state follow from the stage that
  it names.

  Of several processes each reads by itself, and only the primary one writes: all have the same
  state, and so none waits for another.
  """

  def __init__(self, workdir: str | pathlib.Path, read_only: bool = False):
    check_name(workdir)
    files.check_no_links(pathlib.Path(workdir, CHECKPOINTS))  # Orbax follows and deletes them
    self.folder = pathlib.Path(workdir) / CHECKPOINTS  # for messages: as the person named it
    self.last = self._manager('last', read_only)
    self.best = self._manager('best', read_only)

  def _manager(self, name: str, read_only: bool) -> Manager:
    """Opens the checkpoints of one kind, and removes what killed saves have left."""
    folder, own = (self.folder / name).absolute(), jax.process_index()
    mode = {'read_only': True}
    if not read_only and sharding.is_primary():
      mode = {'max_to_keep': KEPT, 'create': False}  # Orbax creates none for one of several
      with errors.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
      # Orbax removes such folders as well, but not all.
      for path in folder.glob('*.orbax-checkpoint-tmp*'):
        shutil.rmtree(path, ignore_errors=True)
    processes = ocp.options.MultiprocessingOptions(
      primary_host=own, active_processes={own}, barrier_sync_key_prefix=f'avjax{own}'
    )
    handlers = {
      'state': ocp.StandardCheckpointHandler(multiprocessing_options=processes),
      'meta': ocp.JsonCheckpointHandler(multiprocessing_options=processes),
    }
    options = ocp.CheckpointManagerOptions(
      enable_async_checkpointing=False, multiprocessing_options=processes, **mode
    )
    return Manager(folder, item_handlers=handlers, options=options)

  def save(self, manager: Manager, step: int, state: Any, meta: dict) -> None:
    """Saves a tree of arrays and its meta as `step`, in the primary process.

    A run that was killed may have left this step and later ones: they are deleted, unless this step
    is there and the same. Raises InputError if it cannot be written; earlier steps stay as they
    are.
    """
    if not sharding.is_primary():
      return
    # Arrays on the host have no layout over devices, so any number of devices can restore them.
    state = jax.device_get(state)
    meta = {**meta, 'sha256': checksums(state)}
    meta['digest'] = digest(meta)
    for old in manager.all_steps():
      if old == step and self._holds(manager, old, state, meta):
        return
      if old >= step:
        manager.delete(old)
    items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
    try:
      with late_tasks_silenced():
        manager.save(step, args=items)
    except Exception as error:
      number = disk_error(error)
      if number is None:
        raise
      raise InputError(
        f'checkpoint {step} cannot be written to {on_disk(manager.directory)}: '
        f'{os.strerror(number)}; mend that and start the same command again: the states before are '
        'as they were'
      ) from error

  def _holds(self, manager: Manager, step: int, state: Any, meta: dict) -> bool:
    """Tells whether the step is undamaged, and has this meta and arrays of these shapes."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    try:
      return self._read(manager, step, lambda meta: shapes)[1] == meta
    except Exception:  # damaged: it is written again
      return False

  def _read(self, manager: Manager, step: int, abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
    """Reads (state, meta) of a step; raises as `read_meta` does."""
    meta = read_meta(manager, step)
    wanted = abstract(meta)
    arrays.check(pathlib.Path(manager.directory, str(step)), describe(wanted))
    arguments = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
    with late_tasks_silenced():
      state = manager.restore(step, args=arguments)['state']
    wrong = [path for path, found in checksums(state).items() if meta['sha256'].get(path) != found]
    if wrong or len(meta['sha256']) != len(jax.tree.leaves(state)):
      raise Damaged(f'checksum of {wrong[0] if wrong else "its arrays"} differs')
    return state, meta

  def restore_last(
    self, abstract: Callable[[dict], Any], abstract_best: Callable[[dict], Any]
  ) -> tuple[Any, dict, tuple[Any, dict] | None, list[str]]:
    """Restores the newest state that is undamaged together with the best that belongs to it.

    Args:
      abstract: maps the meta of a state to its tree of jax.ShapeDtypeStruct.
      abstract_best: maps the meta of the best variables to theirs.

    Returns (state, meta, (best variables, their meta) or None, notes); notes has a line for each
    newer state that cannot be restored. Raises InputError if none can.
    """
    workdir, notes, damaged = self.folder.parent, [], True
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
        why = why_not(error, place, workdir)
        damaged &= is_damage(error, workdir)
        notes.append(f'{why}; the one before it is used')
    another = 'start again with another --workdir'
    if damaged:
      newest = f' (such as {place.parent.name}/{place.name})' if notes else ''
      raise InputError(f'all checkpoints in {self.folder} are damaged{newest}; {another}')
    raise InputError(f'{why}, nor can the others; {remedy(workdir, another)}')

  def restore_best(self, abstract: Callable[[dict], Any]) -> tuple[Any, dict]:
    """Restores (variables, meta) of the best epoch.

    abstract: maps the meta to the tree of jax.ShapeDtypeStruct. Raises InputError if there is no
    best epoch yet, or if it cannot be restored.
    """
    step = self.best.latest_step()
    if step is None:
      check_right_to_read(self.folder)
      raise InputError(
        f'{self.folder.parent} has no best checkpoint yet; let its first epoch finish'
      )
    try:
      return self._read(self.best, step, abstract)
    except Exception as error:
      again = 'start the run again, which returns to an undamaged state'
      why = why_not(error, self.folder / 'best' / str(step), self.folder.parent)
      todo = again if is_damage(error, self.folder.parent) else remedy(self.folder.parent, again)
      raise InputError(f'{why}; {todo}') from error

  def close(self) -> None:
    """Closes the managers."""
    self.last.close()
    self.best.close()
