"""Runs `make demo`: GRJCA learns valence and arousal of subjects that are not in training."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_demo(tmp_path):
  # Without the tests' XLA_FLAGS, so that it is as fast as for a person.
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  makefile = (ROOT / 'Makefile').read_text()
  recipe = re.search(r'^demo: install\n((?:\t.*\n)+)', makefile, re.M).group(1)
  for line in recipe.splitlines():
    command = (
      line.strip().lstrip('@').replace('$(DEMO)', str(tmp_path)).replace('$(RUN)', sys.executable)
    )
    done = subprocess.run(
      command.split(), cwd=ROOT, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
  rows = [json.loads(row) for row in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert {row['stage'] for row in rows} == {1, 2, 3}
  results = json.loads((tmp_path / 'run' / 'results_validation.json').read_text())
  for target in ('valence', 'arousal'):
    assert results[target]['ccc'] >= 0.7
    printed = re.search(rf'^{target} +(\S+) ', done.stdout, re.M)
    assert float(printed.group(1)) == pytest.approx(results[target]['ccc'], abs=5e-4)
