"""Reads and writes files: folders, text, JSON, SHA-256, writing in one step, locking a folder."""

from avjax.files.folders import (
  check_no_links,
  existing_folder,
  may_write_in,
  user_cache,
  visible,
)
from avjax.files.locks import locked
from avjax.files.reading import (
  MOST_JSON,
  check_readable,
  open_regular,
  read_bytes,
  read_json,
  read_text,
  sha256,
)
from avjax.files.writing import (
  check_free,
  in_one_step,
  open_to_append,
  remove_abandoned,
  replacing,
  temporary_folder,
  write_json,
  write_text,
)

__all__ = [
  'MOST_JSON',
  'check_free',
  'check_no_links',
  'check_readable',
  'existing_folder',
  'in_one_step',
  'locked',
  'may_write_in',
  'open_regular',
  'open_to_append',
  'read_bytes',
  'read_json',
  'read_text',
  'remove_abandoned',
  'replacing',
  'sha256',
  'temporary_folder',
  'user_cache',
  'visible',
  'write_json',
  'write_text',
]
