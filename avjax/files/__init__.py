"""Reads and writes files: folders, text, JSON, SHA-256, writing in one step, locks, buckets."""

from avjax.files.bucket_copies import (
  Copy,
  cache_folder,
  check_below,
  check_free,
  copy_of_file,
  copy_to_cache,
  new_file,
  new_folder,
  own_folder,
)
from avjax.files.bucket_lock import Lock
from avjax.files.buckets import Bucket, at_once, below, is_address
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
  'Bucket',
  'Copy',
  'Lock',
  'at_once',
  'below',
  'cache_folder',
  'check_below',
  'check_free',
  'check_no_links',
  'check_readable',
  'copy_of_file',
  'copy_to_cache',
  'existing_folder',
  'in_one_step',
  'is_address',
  'locked',
  'may_write_in',
  'new_file',
  'new_folder',
  'open_regular',
  'open_to_append',
  'own_folder',
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
