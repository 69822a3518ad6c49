"""Tells which part of the model a compiled program spends its time in, by a trace of one step."""

import collections
import pathlib
import re
import tempfile

import jax

# Parts are looked for in this order in the name of an operation, such as
# 'jit(step)/transpose(jvp(AudioVisual))/AudioVisual.decode/fusion/recursion_1/...'.
PARTS = {
  'visual tower': r'/visual/',
  'audio tower': r'/audio/',
  'temporal part': r'/(visual|audio)_(tcn|norm)/',
  'fusion': r'/fusion/',
  'head': r'/head/',
  'inputs': r'images|windows|threefry|randint|vmap\(\)',
}
# These only hold other operations, which have times of their own.
OUTER = re.compile(r'(while|conditional|call)(\.\d+)?$')


def part_of(name: str) -> str:
  """Returns the part of an operation by its name, with ', backward' where it is of a gradient."""
  for part, pattern in PARTS.items():
    if re.search(pattern, name):
      return f'{part}, backward' if 'transpose(jvp' in name else part
  return 'loss, optimizer and the rest'


def operation_names(text: str) -> dict[str, str]:
  """Returns {instruction: name of its operation} of a compiled program.

  The compiler makes some instructions without a name: these have that of what they read.
  """
  instructions = re.findall(r'^\s*(?:ROOT )?%?([^\s=]+) = (.*)$', text, re.MULTILINE)
  names, reads = {}, {}
  for instruction, rest in instructions:
    named = re.search(r'op_name="([^"]*)"', rest)
    if named:
      names[instruction] = named[1]
    else:
      reads[instruction] = re.findall(r'%([\w.\-]+)', rest)
  for _ in range(4):  # chains of such instructions are short
    for instruction, read in reads.items():
      named = [names[other] for other in read if other in names]
      if named:
        names[instruction] = max(named, key=len)  # the longest is of the innermost module
  return names


def milliseconds(program, run) -> dict[str, float]:
  """Returns {part: milliseconds} of one run of a compiled program, the longest part first.

  On a CPU these are summed over its threads.

  program: what `lower().compile()` returns. run: runs it once and waits for it.
  """
  names = operation_names(program.as_text())
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      run()
    (path,) = pathlib.Path(folder).rglob('*.xplane.pb')
    found = collections.Counter()
    for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
      for line in plane.lines:
        for event in line.events:
          operation = dict(event.stats).get('hlo_op')
          if operation and not OUTER.match(operation):
            found[part_of(names.get(operation, ''))] += event.duration_ns / 1e6
  return dict(found.most_common())
