"""Tests that the processes of a run wait for what one of them does alone."""

import os
import socket
import subprocess
import sys

import pytest
from fault.harness import ROOT

PROCESS = """
import sys, time
from avjax.errors import InputError, PassingError
from avjax.system import sharding
number, port = map(int, sys.argv[1:])
sharding.start(f'127.0.0.1:{port}', 2, number)
with sharding.together():
  if sharding.is_primary():  # all devices are known, as where a run waits for a lock
    time.sleep(95)
with sharding.together():
  print('all have come')
try:
  with sharding.together():
    if number == 0:
      raise PassingError('no answer to one')
except InputError as error:
  print(error.status, error)
"""


@pytest.mark.slow
def test_all_wait_for_one_and_hear_what_it_meets():
  """As for the lock of an owner that has died, and with the exit status of what it meets."""
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  running = [
    subprocess.Popen(
      [sys.executable, '-c', PROCESS, str(number), str(port)],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    )
    for number in range(2)
  ]
  for process in running:
    output, problems = process.communicate(timeout=300)
    assert process.returncode == 0, problems
    own = [line for line in output.splitlines() if '[Gloo]' not in line]
    assert own == ['all have come', '75 no answer to one']
