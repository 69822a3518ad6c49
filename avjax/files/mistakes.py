"""Collects the mistakes of a person's files, and puts them into words."""

import contextlib
import re
from collections.abc import Iterator, Sequence

from avjax.errors import InputError

LONGEST = 193  # characters of a line that names several places: 200 with the 'error: ' before it
SINGULAR = {'are': 'is', 'do': 'does', 'have': 'has'}  # other verbs get an s
VERBS = 'are', 'begin', 'belong', 'do', 'end', 'have', 'hold', 'overlap'


class Mistakes:
  """Collects mistakes, so that all of them are told at once, those of a kind in one line.

  A kind is what `counted` takes, such as 'rows have no number'.
  """

  def __init__(self):
    self.found: dict[tuple[str, str], list[str]] = {}  # {(kind, hint): places}
    self.others: list[str] = []  # lines

  def add(self, kind: str, where: str, hint: str = '') -> None:
    """Adds a mistake; `hint` ends the line of its kind, such as '; write a dot'."""
    self.found.setdefault((kind, hint), []).append(where)

  def __len__(self):
    return sum(map(len, self.found.values())) + len(self.others)

  def lines(self) -> list[str]:
    """Returns a line for each kind, and the others."""
    return [
      line_of(kind, places, hint) for (kind, hint), places in self.found.items()
    ] + self.others

  @contextlib.contextmanager
  def caught(self) -> Iterator[None]:
    """Keeps what an InputError says, so that what comes after it is looked at, too."""
    try:
      yield
    except InputError as error:
      known = self.lines()
      self.others += [line for line in error.args if line not in known]

  def raise_if_any(self) -> None:
    """Raises one InputError with all that was found."""
    if self:
      raise InputError(*self.lines())


def line_of(kind: str, places: Sequence[str], hint: str) -> str:
  """Returns the line of a kind of mistake: it names as many of the places as it has room for.

  It has at most LONGEST characters, unless it takes more to name the first place.
  """
  line = ''
  for n in range(min(len(places), LONGEST), 0, -1):
    rest = f', ... and {len(places) - n:,} more' if n < len(places) else ''
    line = f'{counted(len(places), kind)}: {", ".join(places[:n])}{rest}{hint}'
    if len(line) <= LONGEST:
      break
  return line


def counted(n: int, what: str) -> str:
  """Returns n and words for several things, as for one where n is 1: '1 row has no number'.

  what: words such as 'rows have no number' or 'files of labels have no video', with one of VERBS.
  """
  if n != 1:
    return f'{n:,} {what}'
  things, verb, rest = re.split(rf'\b({"|".join(VERBS)})\b', what, maxsplit=1)
  first, blank, others = things.partition(' ')
  first = re.sub('ies$', 'y', first) if first.endswith('ies') else first.removesuffix('s')
  rest = rest.replace(' and are ', ' and is ')
  return f'1 {first}{blank}{others}{SINGULAR.get(verb, verb + "s")}{rest}'
