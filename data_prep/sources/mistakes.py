"""Collects the mistakes of a person's files, so that all of a kind are reported in one line."""

from avjax import errors


class Mistakes:
  """Collects mistakes by kind.

  A kind is what `errors.raise_if_any` begins with, such as 'rows have no number'.
  """

  def __init__(self):
    self.found: dict[tuple[str, str], list[str]] = {}

  def add(self, kind: str, where: str, hint: str = '') -> None:
    """Adds a mistake; `hint` ends the line of its kind, such as '; write a dot'."""
    self.found.setdefault((kind, hint), []).append(where)

  def raise_if_any(self) -> None:
    """Raises InputError for the kind that was found first, which names three of its mistakes."""
    for (kind, hint), places in self.found.items():
      errors.raise_if_any(kind, places, hint)
