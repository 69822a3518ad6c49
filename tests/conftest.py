"""What the suites share."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'  # the tests' numbers are the CPU's
