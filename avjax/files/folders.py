"""Looks at folders: what a person has put there, and whether a stranger's holds links."""

import os
import pathlib
import stat
import tempfile

import platformdirs

from avjax.errors import InputError

# What macOS, Windows and file servers leave in folders, in lower case; also all names with a dot.
NOT_OF_THE_USER = frozenset(
  {
    '__macosx',
    'icon\r',
    'thumbs.db',
    'ehthumbs.db',
    'desktop.ini',
    '$recycle.bin',
    'system volume information',
    'lost+found',
    '@eadir',
    '#recycle',
  }
)


def existing_folder(path):
  """Returns path as a pathlib.Path; raises InputError unless it is a folder."""
  path = pathlib.Path(path)
  if not path.is_dir():
    raise InputError(f'{path} is not a folder')
  return path


def user_cache(program):
  """Returns the folder in which a program keeps what it can make again for this user.

  It is None where there is no home folder; otherwise it need not exist.
  """
  try:
    folder = platformdirs.user_cache_path(program)
  except RuntimeError:
    return None
  return folder if folder.is_absolute() else None  # older versions of platformdirs leave ~ in it


def may_write_in(folder):
  """Tells whether files can be written in a folder, which is made if need be."""
  try:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError:
    return False
  return True


def visible(folder):
  """Returns the entries of a folder in order of name, without those that no person put there.

  Left out are .DS_Store, ._NAME and other names that begin with a dot, and NOT_OF_THE_USER.
  """
  return sorted(
    entry for entry in pathlib.Path(folder).iterdir() if not is_of_the_system(entry.name)
  )


def is_of_the_system(name):
  """Tells whether a name is one of those that `visible` leaves out."""
  return name.startswith('.') or name.lower() in NOT_OF_THE_USER


def check_no_links(folder):
  """Raises InputError if a folder holds a link, a named pipe, a device or a socket, at any depth.

  A folder that somebody else has made may hold a link to any place of this machine, where avjax
  would then write and delete. The folder itself may be reached through links: the person who typed
  its path has chosen them.
  """
  folders = [str(folder)]
  while folders:
    try:
      with os.scandir(folders.pop()) as entries:
        modes = {entry.path: entry.stat(follow_symlinks=False).st_mode for entry in entries}
    except (FileNotFoundError, NotADirectoryError):  # a checkpoint that is no longer needed
      continue
    except OSError as error:
      raise InputError(f'{error.filename} cannot be read: {error.strerror}') from error
    for path, mode in modes.items():
      if stat.S_ISDIR(mode):
        folders.append(path)
      elif not stat.S_ISREG(mode):
        kind = 'link' if stat.S_ISLNK(mode) else 'named pipe, a device or a socket'
        raise InputError(
          f'{path} is a {kind}, which avjax does not use inside {folder}; '
          'put a file or folder there, or remove it'
        )
