"""What the suites share."""

import os
import tempfile

os.environ['JAX_PLATFORMS'] = 'cpu'  # the tests' numbers are the CPU's
# The processes that tests start compile the same few programs over and over.
_cache = tempfile.TemporaryDirectory(prefix='avjax-tests-')
os.environ['JAX_COMPILATION_CACHE_DIR'] = _cache.name
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.1'
