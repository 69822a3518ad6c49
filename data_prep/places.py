"""Has a build read its source from a bucket, and write its records to one.

A build works on copies of both in the cache folder of the user, as on any folders. Of a source,
only what is missing there or has changed is copied. Finished records are written to the bucket with
the manifest last: a reader, who looks for it first, finds whole records or none. While they are
written, the object UNFINISHED says so. Where that is cut short, they are still here, and the same
command writes them again.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

from avjax import errors, files
from avjax.data import manifest
from avjax.errors import InputError
from avjax.files.folders import is_of_the_system
from data_prep import contents

FOLDER = f'/{manifest.NAME}/{manifest.VERSION}/'
MANIFEST = f'{FOLDER}{manifest.MANIFEST}'
CONTENTS = f'/{manifest.NAME}/{contents.NAME}'
UNFINISHED = f'/{manifest.NAME}.incomplete'
ARCHIVE = re.compile(r'\.(zip|tar|tgz|gz|bz2|xz|7z|rar)', re.IGNORECASE)
COPIED = 'copied.jsonl'  # what has been copied of a source, beside the copy
AT_ONCE = 16  # objects of a source: nearly all of them are crops of some KB

Check = Callable[[pathlib.Path], dict[str, Any]]  # folder of finished records -> their manifest


def path(text: str) -> str | pathlib.Path:
  """Returns a word of the command line as a path, or as it is if it is an address of a bucket."""
  return text if files.is_address(text) else pathlib.Path(text)


@contextlib.contextmanager
def here(args) -> Iterator[Check]:
  """Puts folders of this machine in the place of an args.source or args.data_dir on a bucket.

  Yields the function that checks records that are finished already. In the end new ones are written
  to the bucket. Raises InputError where that is not to be, as while another build does it.
  """
  if args.scheduler and any(map(files.is_address, (args.source, args.data_dir))):
    raise InputError(
      '--scheduler takes no gs:// for --source and --data_dir, since its workers do not see copies '
      'on this machine; build without it, or mount the bucket on all machines as a folder'
    )
  if files.is_address(args.data_dir) and args.contact_sheet:
    raise InputError(
      '--contact_sheet writes into DATA_DIR, which must be a folder of this machine for it'
    )
  check = manifest.check_sizes
  with contextlib.ExitStack() as stack:
    if files.is_address(args.data_dir):
      bucket = files.Bucket(args.data_dir)
      if getattr(args, 'crops_cache', '') is None:  # the faces that are found stay here
        args.crops_cache = cached('crops', bucket)
      if args.dry_run:
        args.data_dir = cached('builds', bucket)
      else:
        args.data_dir, check = stack.enter_context(records_on(bucket))
    if files.is_address(args.source):
      args.source = bring_source(args.source)
    yield check


# Records.


@contextlib.contextmanager
def records_on(bucket: files.Bucket) -> Iterator[tuple[pathlib.Path, Check]]:
  """Yields a folder of this machine for records on a bucket, and how to check finished ones.

  If they are finished on the bucket, it has what describes them, without the shards. If not, it is
  one in which they are built, and what is finished there is in the end written to the bucket.
  """
  folder = cached('builds', bucket)
  lock = files.Lock(bucket, 'building records')
  try:
    if bucket.read(MANIFEST)[0] is None:
      check_unfinished(bucket)
      yield folder, manifest.check_sizes
      if (folder / MANIFEST[1:]).exists():
        send(bucket, lock, folder)
        print(f'{folder}: written to {bucket.address}, and removed here')
    else:
      bucket.write(UNFINISHED, None)  # if it was killed just before
      described = files.own_folder() / folder.name
      errors.COPIED_FROM[str(described)] = bucket.address
      for name in (MANIFEST, CONTENTS):
        if (content := bucket.read(name)[0]) is not None:
          write(described / name[1:], content)
      before = contents_in(described)
      yield described, functools.partial(check_names, bucket)
      if (after := contents_in(described)) != before:
        with contextlib.suppress(InputError):  # it only saves time
          lock.write(CONTENTS, after)
    shutil.rmtree(folder.parent, ignore_errors=True)  # the bucket has them, or others
  finally:
    lock.release()


def check_unfinished(bucket: files.Bucket) -> None:
  """Raises InputError for records without a manifest that no build has left unfinished."""
  names = bucket.names()
  if f'/{files.locks.LOCK}' not in names:
    raise InputError(f'{bucket.address} may not be listed by you; ask its owner for the right')
  if UNFINISHED not in names and any(name.startswith(FOLDER) for name in names):
    raise InputError(
      f'{bucket.address}{FOLDER[:-1]} exists but has no {manifest.MANIFEST}, so it was not made by '
      'this program; remove it'
    )


def send(bucket: files.Bucket, lock: files.Lock, folder: pathlib.Path) -> None:
  """Writes finished records to a bucket that has none.

  Raises InputError where that fails; the records here stay as they are.
  """
  paths = (folder / manifest.NAME).rglob('*')
  own = {f'/{path.relative_to(folder)}' for path in paths if path.is_file()}
  left = {name for name in bucket.names() if name.startswith(f'/{manifest.NAME}/')} - own

  def write(name, content, generation=b''):
    if not lock.write(name, content, generation):
      raise InputError(
        f'{bucket.address}{name} has just been written by another program; these records are in '
        f'{folder}, and the same command writes them when that has ended'
      )

  def send_one(name, generation=b''):
    write(name, (folder / name[1:]).read_bytes(), generation)

  described, nothing = bucket.read(MANIFEST)
  if described is not None:
    lock.check()  # which says so where it was another build
    raise InputError(f'{bucket.address}{MANIFEST} has been written by another program meanwhile')
  write(UNFINISHED, b'')
  title = f'writing to {bucket.address}'
  files.at_once(send_one, sorted(own - {MANIFEST}), title)
  files.at_once(lambda name: write(name, None), sorted(left), title)  # of a killed build
  send_one(MANIFEST, nothing)
  write(UNFINISHED, None)


def check_names(bucket: files.Bucket, folder: pathlib.Path) -> dict[str, Any]:
  """Compares the names of the shards on a bucket with the manifest, which is in `folder`.

  Sizes are not asked for: an object is whole or not there, and its bytes are compared with the
  SHA-256 whenever they are read. Returns the manifest; raises InputError where a shard is missing
  or unknown.
  """
  made = manifest.read_manifest(folder, '--data_dir')
  shards = f'{FOLDER}{manifest.NAME}-'
  there = {name for name in bucket.names() if name.startswith(shards)}
  wanted = {FOLDER + name for name in made['shards']}
  for name in sorted(wanted - there):
    raise InputError(f'shard {bucket.address}{name} is missing; {manifest.REMEDY}')
  for name in sorted(there - wanted):
    raise InputError(f'shard {bucket.address}{name} is not in the manifest; remove it')
  return made


def contents_in(folder: pathlib.Path) -> bytes | None:
  """Returns what is in the file of contents of a folder, if there is one."""
  file = folder / CONTENTS[1:]
  return file.read_bytes() if file.exists() else None


# Sources.


def bring_source(address: str) -> pathlib.Path:
  """Copies a data set from a bucket to this machine, and returns its folder.

  What is there already and has not changed on the bucket is not copied again, and what is gone on
  the bucket is removed. Left out are what `files.visible` leaves out, and archives.

  Raises InputError where it cannot be read, or while another build copies it.
  """
  bucket = files.Bucket(address)
  folder = cached('sources', bucket)
  names = {name for name in bucket.names() if name.startswith('/') and is_needed(name)}
  if not names:
    raise InputError(f'{bucket.address} holds nothing, or may not be listed by you')
  for name in names:
    files.check_below(bucket.address, name)
  listed = folder.parent / COPIED
  with files.locked(folder.parent, busy=f'another build is copying {bucket.address}'):
    errors.COPIED_FROM[str(folder)] = bucket.address
    remove_others(folder, names)
    copied, one_at_a_time = read_copied(listed), threading.Lock()
    with errors.writing(listed), listed.open('a', buffering=1, encoding='utf-8') as log:

      def bring(name):
        file = folder / name[1:]
        generation, *state = copied.get(name, ('', None))
        known = bytes.fromhex(generation) if state == state_of(file) else None
        content, found = bucket.read(name, unless=known)
        if found == known:
          return
        if content is None:
          raise InputError(f'{bucket.address}{name} has vanished meanwhile; start again')
        write(file, content)
        with one_at_a_time:
          log.write(json.dumps([name, found.hex(), *state_of(file)]) + '\n')

      files.at_once(bring, sorted(names), f'copying {bucket.address}', AT_ONCE)
  return folder


def is_needed(name: str) -> bool:
  """Tells whether a source may have to do with an object."""
  parts = name[1:].split('/')
  return not any(map(is_of_the_system, parts)) and not ARCHIVE.fullmatch(pathlib.Path(name).suffix)


def remove_others(folder: pathlib.Path, names: set[str]) -> None:
  """Removes the files of a folder whose names are not among these, and then empty folders."""
  for parent, _, found in os.walk(folder, topdown=False):
    for name in found:
      if f'/{pathlib.Path(parent, name).relative_to(folder)}' not in names:
        pathlib.Path(parent, name).unlink()
    with contextlib.suppress(OSError):  # it is not empty
      os.rmdir(parent)


def read_copied(listed: pathlib.Path) -> dict[str, list[Any]]:
  """Returns {name: [generation of the object, *state_of(its copy)]} of what has been copied.

  A line that a kill has torn does not count, and its file is copied again. There may be millions of
  lines, all of which this program has written.
  """
  copied = {}
  if listed.exists():
    with listed.open(encoding='utf-8', errors='replace') as lines:
      for line in lines:
        with contextlib.suppress(ValueError):
          name, *about = json.loads(line)
          copied[name] = about
  return copied


def state_of(file: pathlib.Path) -> list[int]:
  """Returns the time of change and the size of a file; nothing if it is not there."""
  try:
    found = file.stat()
  except OSError:
    return []
  return [found.st_mtime_ns, found.st_size]


# Both.


def cached(kind: str, bucket: files.Bucket) -> pathlib.Path:
  """Returns the folder of this machine for what is at an address; it has the same name."""
  digest = hashlib.sha256(bucket.address.encode()).hexdigest()
  return files.cache_folder(kind) / digest / bucket.address.rsplit('/', 1)[-1]


def write(file: pathlib.Path, content: bytes) -> None:
  """Writes a file, and the folders above it if need be."""
  with errors.writing(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
