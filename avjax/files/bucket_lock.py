"""Locks a folder on a bucket against a second process, by an object that says who works there."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time

from avjax import errors
from avjax.errors import InputError, one_line
from avjax.files.buckets import Bucket
from avjax.files.locks import LOCK

BEAT = 20  # seconds from one sign of life of an owner to the next
STALE = 120  # seconds without one, after which an owner is taken for dead
LONGEST_LOCK = 4096  # bytes


class Lock:
  """Keeps others from working in a folder on a bucket, by an object that says who does.

  The object LOCK is created only if it is not there. It holds the owner and the time, which is
  written anew every BEAT seconds; if that has not happened for STALE seconds, the owner is dead,
  and the next one takes its place. Whoever has lost the lock in this way, as by standing still for
  as long, learns it from `check`. The clocks of the machines should agree to some seconds.

  work: what is done there, for messages, such as 'training'.
  """

  def __init__(self, bucket: Bucket, work: str = 'training'):
    self.bucket, self.name, self.token = bucket, f'/{LOCK}', secrets.token_hex(16)
    self.work = work
    self.generation, self.renewed = b'', 0.0
    self.lost, self.ended = False, threading.Event()
    self._one_at_a_time = threading.Lock()
    self._acquire()
    self._heart = threading.Thread(target=self._beat, daemon=True)
    self._heart.start()

  def _content(self) -> bytes:
    owner = f'process {os.getpid()} on {socket.gethostname()}'
    return json.dumps({'owner': owner, 'token': self.token, 'time': time.time()}).encode()

  def _acquire(self):
    """Takes the lock; waits for a sign of life of its owner, or until that is taken for dead."""
    first, begin = None, time.monotonic()
    while True:
      content, generation = self.bucket.read(self.name)
      if content is not None:
        owner, _, seconds = self._parse(content)
        silent = max(time.time() - seconds, time.monotonic() - begin)
        if first not in (None, generation):
          raise InputError(f'{self.bucket.address}: {owner} is {self.work} there; stop it first')
        if silent < STALE:
          if first is None:
            print(
              f'{self.bucket.address}: {owner} was {self.work} there {max(silent, 0):.0f} s '
              'ago; waiting to see whether it still does',
              file=sys.stderr,
            )
          first = generation
          time.sleep(BEAT / 10)
          continue
      if self._write(generation):  # else another has been faster
        return

  def _parse(self, content: bytes) -> tuple[str, str, float]:
    """Returns (owner, token, time of the last sign of life)."""
    with errors.as_input_error(
      f'{self.bucket.address}{self.name} is not of avjax; remove it if nobody is {self.work} there'
    ):
      found = json.loads(content[:LONGEST_LOCK])
      return one_line(found['owner']), found['token'], float(found['time'])

  def _write(self, generation: bytes) -> bool:
    """Writes the lock if it is of this generation; tells whether it is ours now.

    Where the answer to a request is lost, TensorStore asks again, and learns only that there is a
    newer object: its own.
    """
    written = self.bucket.write(self.name, self._content(), generation)
    if not written:
      content, written = self.bucket.read(self.name)
      if content is None or self._parse(content)[1] != self.token:
        return False
    self.generation, self.renewed = written, time.time()
    return True

  def _beat(self):
    while not self.ended.wait(BEAT):
      with contextlib.suppress(InputError):  # no network: the next one may succeed
        self._renew()

  def _renew(self, age: float = 0):
    """Writes the lock anew if that was done more than `age` seconds ago."""
    with self._one_at_a_time:
      if not self.lost and not self.ended.is_set() and time.time() - self.renewed > age:
        self.lost = not self._write(self.generation)

  def check(self) -> None:
    """Raises InputError unless the lock is still held; nothing may be written then."""
    self._renew(age=1)  # an object may be written once a second
    if self.lost:
      raise InputError(
        f'{self.bucket.address}: another process has begun {self.work} there, since this one was '
        f'silent for more than {STALE} s; what this one has not saved is left to that one'
      )

  def write(self, name: str, content: bytes | None, generation: bytes = b'') -> bytes:
    """Writes an object of the folder, or deletes it if the content is None, if the lock is held.

    A process may stand still at any moment, and go on when another one has taken its place. So the
    object is written only if it still is as it was when the lock was held.

    generation: that of the object then, as `Bucket.write` takes it; by default it is asked for.
    Returns the new generation; b'' where another program, which does not know the lock, has written
    the object meanwhile, and nothing was written here. Raises InputError as `check`.
    """
    generation = generation or self.bucket.read(name)[1]
    self.check()
    written = self.bucket.write(name, content, generation)
    if not written:
      found, written = self.bucket.read(name)
      if found != content:  # else the answer to our own request was lost
        self._renew()
        self.check()
        return b''
    return written

  def release(self) -> None:
    """Removes the lock, if it is held. If that fails, it is taken for dead after STALE seconds."""
    self.ended.set()
    with self._one_at_a_time, contextlib.suppress(InputError):
      if not self.lost and self._parse(self.bucket.read(self.name)[0] or b'{}')[1] == self.token:
        self.bucket.write(self.name, None, self.generation)
