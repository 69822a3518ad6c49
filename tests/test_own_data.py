"""Runs every command of docs/own_data.md, in small sizes, on the mini set in the plain layout."""

import csv
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
# What is appended to a command of the page, so that it takes seconds.
SMALLER = {
  'python -m data_prep.mini': '--videos 17 --seconds 6',
  'python -m data_prep.build': '--length 40 --stride 40 --face 24',
  'python -m avjax.main': '--config.schedule.max_epochs=2 --config.data.length=40 '
  '--config.data.stride=40',
}


def commands():
  """Returns the commands of the page, in order."""
  blocks = re.findall(r'^```\n(.*?)^```', PAGE, re.M | re.S)
  return [line for block in blocks for line in block.splitlines() if line.startswith('python ')]


def call(command, folder):
  """Runs a command of the page in a folder, in its small size; returns what it prints."""
  words = command.replace('configs/finetune.py', f'{ROOT}/configs/finetune.py:mini')
  words = shlex.split(f'{words} {SMALLER.get(" ".join(command.split()[:3]), "")}')
  done = subprocess.run(
    [sys.executable, *words[1:]],
    cwd=folder,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, f'{command}\n{done.stdout}{done.stderr}'
  return done.stdout


@pytest.mark.slow
def test_every_command_of_the_page(tmp_path):
  mini, dry, build, train, *rest = commands()
  assert [' '.join(command.split()[:3]) for command in rest] == [
    'python -m avjax.evaluate',
    'python -m avjax.evaluate',
    'python -m avjax.export',
    'python -m avjax.predict',
    'python -m avjax.predict',
  ]
  call(mini, tmp_path)
  said = call(dry, tmp_path)
  assert 'nothing has been written' in said and not (tmp_path / 'records').exists()
  call(build, tmp_path)
  sheets = {path.stem for path in (tmp_path / 'records' / 'contact_sheets').iterdir()}
  with open(tmp_path / 'myset' / 'splits.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert sheets == {row['name'] for row in rows}

  # A model to start from: what the same system learned in one epoch, on the same clips.
  start = train.replace('finetune.py', 'grjca.py').replace('--workdir=run', '--workdir=start')
  start = start.replace('configs/grjca.py', f'{ROOT}/configs/grjca.py:mini')
  call(start.replace(' --config.init.model=MODEL', ''), tmp_path)
  call(train.replace('MODEL', 'start'), tmp_path)
  assert 'start' in (tmp_path / 'run' / 'versions.json').read_text()

  lines = [f'{row["subject"]},{("a", "b")[n % 2]}' for n, row in enumerate(rows)]
  (tmp_path / 'groups.csv').write_text('\n'.join(['subject,site', *dict.fromkeys(lines)]) + '\n')
  shutil.copy(next((tmp_path / 'myset' / 'videos').glob('*.mp4')), tmp_path / 'clip.mp4')
  for command in rest:
    call(command, tmp_path)
  found = json.loads((tmp_path / 'run' / 'results_validation.json').read_text())
  assert set(found['valence']['groups']['site']) == {'a', 'b'}
  for path in ('results.tex', 'run/report.html', 'run/results_test.json', 'out/clip.html'):
    assert (tmp_path / path).stat().st_size > 60, path
  assert {path.name for path in (tmp_path / 'out_for_others').iterdir()} >= {
    'clip.csv',
    'clip.parquet',
    'clip.eaf',
    'clip_tsconf.xml',
    'clip.vtt',
  }
