"""Runs a function on a stranger's file in a child process with limits on memory and time.

The rule for every file that others made: reading it takes at most 20 times its size plus 2 GB of
memory, and never more than 60 s without progress, to which a large file adds a second for each
10 MB. What can be bounded from sizes and shapes is checked before any work. The rest, such as
unpickling or running a program, is done here: the child limits itself before it opens the file, and
a crash of native code ends the child only.
"""

import contextlib
import functools
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np

from avjax.errors import InputError

SECONDS, PACE = 60, 10_000_000  # from one item of a child to the next; bytes a second
# What a child may allocate on top of its imports: less than the rule, since what Python and the
# libraries take, and what the parent keeps, count, too.
MEMORY, TIMES = 1 << 30, 14
Item = tuple[dict, np.ndarray]

# The child finds packages where its parent does, and none in the current folder (-P).
START = (
  'import json, sys; sys.path, *limits, calls = json.loads(sys.argv[1]); '
  'import avjax.bounded as b; b.serve(*limits, calls)'
)
NOTHING = np.zeros(0, np.uint8)


def stream(
  function: Callable,
  *arguments,
  size: int,
  what: str,
  prepare: tuple = (),
  content: bytes | None = None,
) -> Iterator[Item]:
  """Yields the items that `function` yields in a child process.

  Args:
    function: a generator function at the top of a module. It yields items (header, array), header
      a dict for JSON, at least every 60 s.
    arguments: its arguments, values for JSON.
    size: bytes of the file that it reads.
    what: the subject of the InputError's message, such as 'reading weights.pth'.
    prepare: another function and its arguments, called before the limits apply, for imports that
      take long; it must not touch the file.
    content: bytes that the function finds at its standard input.

  Raises the InputError that the function raises, and an InputError where the child is killed by its
  limits or crashes. Any other exception is a RuntimeError with the child's traceback.
  """
  memory, seconds = memory_for(size), SECONDS + size // PACE
  calls = [
    (called.__module__, called.__name__, given)
    for called, *given in filter(None, (prepare, (function, *arguments)))
  ]
  child = subprocess.Popen(
    [sys.executable, '-P', '-c', START, json.dumps([import_path(), memory, seconds, calls])],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,  # native code writes there before a crash
  )
  assert child.stdin and child.stdout
  # While items are read, since a pipe holds little. A file would need room on a disk.
  feeder = threading.Thread(target=feed, args=(child.stdin, content or b''))
  feeder.start()
  try:
    while message := read_message(child.stdout):
      header, array = message
      if 'error' in header:
        raise InputError(header['error'])
      if 'bug' in header:
        raise RuntimeError(header['bug'])
      if 'memory' in header:
        raise InputError(f'{what} {too_much(memory)}')
      if 'end' in header:
        return
      yield header['item'], array
    raise InputError(f'{what} {death(child.wait(), memory, seconds)}')
  finally:
    child.kill()
    child.wait()
    feeder.join()
    child.stdout.close()


def memory_for(size: int) -> int:
  """Returns the bytes of memory that a file, or weights, of this many bytes may take."""
  return MEMORY + TIMES * size


def feed(stdin: IO[bytes], content: bytes) -> None:
  """Writes content to the standard input of a child, which may end without reading it."""
  with contextlib.suppress(BrokenPipeError), stdin:
    stdin.write(content)


def import_path() -> list[str]:
  """Returns sys.path for a child; Python passes over what is no text, such as a pathlib.Path."""
  return [folder for folder in sys.path if isinstance(folder, str)]


def too_much(memory: int) -> str:
  """Returns the words for a child that would need more than `memory` bytes."""
  return f'takes more than {memory / 1e9:.1f} GB of memory'


def death(status: int, memory: int, seconds: int) -> str:
  """Returns how a child with this exit status has died."""
  if status == -signal.SIGALRM:
    return f'makes no progress for {seconds} s, unless this machine is very slow or busy'
  if status == -signal.SIGKILL:
    return 'was killed, probably for lack of memory'
  names = {-number: number.name for number in signal.Signals}
  # C++ code that is refused memory often aborts.
  return f'crashed ({names.get(status, status)}), or {too_much(memory)}'


# What runs in the child.


def serve(memory: int, seconds: int, calls: list) -> None:
  """Calls the functions that the parent names, and sends the items of the last one.

  Args:
    memory: bytes that they may allocate.
    seconds: from one item to the next.
    calls: (module, function, arguments) of each.
  """
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
  signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the system ends the process, whatever it is doing
  with os.fdopen(os.dup(sys.stdout.fileno()), 'wb') as replies:
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nothing else may come between the messages
    for header, array in messages(memory, seconds, calls):
      signal.alarm(0)  # a parent that is slow to read is no fault of the file
      write_message(replies, header, array)
      signal.alarm(seconds)


def messages(memory: int, seconds: int, calls: list) -> Iterator[Item]:
  """Yields the messages (header, array) to the parent, the last of which says how it ended."""
  try:
    *before, call = [
      functools.partial(getattr(importlib.import_module(module), name), *arguments)
      for module, name, arguments in calls
    ]
    for prepare in before:
      prepare()
    limit_memory(allocated() + memory)
    signal.alarm(seconds)
    for header, array in call():
      yield {'item': header}, array
    yield {'end': True}, NOTHING
  except InputError as error:
    yield {'error': str(error)}, NOTHING
  except MemoryError:
    yield {'memory': True}, NOTHING
  except Exception:
    yield {'bug': traceback.format_exc()}, NOTHING


def allocated() -> int:
  """Returns the bytes of memory that this process may write, on Linux; elsewhere 0."""
  if sys.platform != 'linux':
    return 0
  with open('/proc/self/statm', encoding='ascii') as file:
    return int(file.read().split()[5]) * resource.getpagesize()


def limit_memory(limit: int) -> None:
  """Limits the bytes of memory that this process may write.

  Only Linux enforces such a limit; elsewhere it does nothing. The address space is not limited: the
  drivers of accelerators reserve far more of it than they use.
  """
  if sys.platform != 'linux':
    return
  hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
  if hard != resource.RLIM_INFINITY:
    limit = min(limit, hard)
  resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def write_message(file, header: dict, array: np.ndarray) -> None:
  """Writes a line of JSON, header with the type and shape of the array, and behind it the bytes."""
  form = {'type': str(array.dtype), 'shape': array.shape}
  file.write(json.dumps({**header, **form}).encode() + b'\n')
  file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.nbytes else b'')
  file.flush()


def read_message(file) -> Item | None:
  """Reads what `write_message` has written; None at the end of the file."""
  line = file.readline()
  if not line.endswith(b'\n'):
    return None
  header = json.loads(line)
  array = np.empty(header['shape'], header['type'])
  rest = array.reshape(-1).view(np.uint8) if array.nbytes else NOTHING
  while len(rest):
    count = file.readinto(rest)
    if not count:
      return None
    rest = rest[count:]
  return header, array
