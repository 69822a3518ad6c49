"""Orbax behind one small class: the last two states to resume from, and the best variables, each leaf with a checksum."""

import hashlib
import json
import logging
import os
import pathlib
import re

import jax
import numpy as np
import orbax.checkpoint as ocp

from avjax.weights import brief
from data_prep.errors import InputError

logger = logging.getLogger('avjax')


def begun(workdir):
  """Whether a run in workdir has saved a state, sound or not."""
  return any(path.name.isdigit() for path in pathlib.Path(workdir).glob('checkpoints/last/*'))


def checksums(tree):
  """{path of leaf: SHA-256 of its bytes}: Orbax restores a file with a flipped bit without a word."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): hashlib.sha256(np.ascontiguousarray(leaf)).hexdigest() for path, leaf in leaves}


def digest(meta):
  """SHA-256 of a JSON mapping, apart from its own 'digest'."""
  rest = {name: value for name, value in meta.items() if name != 'digest'}
  return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


class Checkpoints:
  """Checkpoints of one run under workdir/checkpoints: `last` (the newest two, whole states) and `best` (variables,
  of the newest and the second newest best epoch).

  A checkpoint is {'variables', 'opt_state'} (best: 'variables' alone) with `meta`, a JSON mapping that is read first,
  since the shapes of the optimizer's state follow from the stage it names.
  """

  def __init__(self, workdir, read_only=False):
    self.folder = pathlib.Path(workdir).absolute() / 'checkpoints'
    self.last = self._manager('last', 2, read_only)
    self.best = self._manager('best', 2, read_only)

  def _manager(self, name, keep, read_only):
    own = {'read_only': True} if read_only else {'max_to_keep': keep, 'cleanup_tmp_directories': True}
    return ocp.CheckpointManager(self.folder / name, item_names=('state', 'meta'),
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
      if old == step and self._meta(manager, old) == meta:
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
      raise InputError(f'checkpoint {step} cannot be written to {manager.directory}: {os.strerror(number)}; mend that and start the '
                       'same command again: the states before are as they were') from error

  def _meta(self, manager, step):
    try:
      return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']
    except Exception:  # damaged: it is written anew
      return None

  def restore(self, manager, abstract):
    """Returns (state, meta) of the newest sound step, or None if there is no step at all.

    abstract(meta) returns the tree of jax.ShapeDtypeStruct that a checkpoint with this meta holds. A damaged step costs
    one warning and the step before is taken; InputError if every step is damaged.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    for step in steps:
      try:
        meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))['meta']
        if meta['digest'] != digest(meta):
          raise ValueError('checksum of its meta differs')
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract(meta))))['state']
        wrong = [path for path, found in checksums(state).items() if meta['sha256'].get(path) != found]
        if wrong:
          raise ValueError(f'checksum of {wrong[0]} differs')
        return state, meta
      except Exception as error:  # whatever a damaged file makes Orbax raise
        logger.warning('checkpoint %s is damaged (%s)%s', manager.directory / str(step), brief(error),
                       '; the one before is taken' if step != steps[-1] else '')
    if steps:
      raise InputError(f'all checkpoints in {manager.directory} are damaged; start again with another --workdir')
    return None

  def close(self):
    self.last.close()
    self.best.close()
