"""Checks names that come from other people's files, since files are named by them."""

import unicodedata

from avjax.errors import InputError

SIGNS = " ._-()[]+,@&'"  # allowed within a name, besides letters, digits and accents of any script
MOST_BYTES = 200  # in UTF-8; file systems take 255, and endings such as .csv are added


def check_name(name: str, where: str) -> str:
  """Returns the name of a clip, a split or a file if a path can safely be made of it.

  Such a name begins with a letter, a digit or _, holds letters, digits and accents of any script
  and SIGNS, ends with neither a blank nor a dot, and has at most MOST_BYTES. So it leads to no
  other folder, holds nothing that a terminal obeys, and begins no formula in a table.

  where: begins the message. Raises InputError for any other name.
  """
  is_plain = (
    isinstance(name, str)
    and (name[:1].isalnum() or name[:1] == '_')
    and name[-1] not in ' .'
    and all(c in SIGNS or unicodedata.category(c)[0] in 'LMN' for c in name)
    and len(name.encode()) <= MOST_BYTES
  )
  if not is_plain:
    shown = ascii(name)[:60] + ('...' if len(ascii(name)) > 60 else '')
    raise InputError(
      f'{where}: {shown} cannot be a name: it takes letters, digits, blanks and any of {SIGNS[1:]} '
      f'begins with a letter or digit, and has at most {MOST_BYTES} bytes'
    )
  return name
