"""Tests what texts of strangers can do in the pages, tables and lines that avjax writes."""

import base64
import csv
import hashlib
import json
import logging
import re
import shutil
import stat
import types
import urllib.parse

import numpy as np
import pytest
from browser import Browser
from fault.harness import call, made_run, one_line
from official_set import tone, write_video
from pages import in_browser, softmax
from tiny import get_config

from avjax import errors
from avjax.evaluation import protocol
from avjax.evaluation.results import score_in_detail
from avjax.inference import outputs
from avjax.inference.prediction import VideoPrediction
from avjax.reports import clip_page, run_report
from avjax.training import progress

pytestmark = pytest.mark.attack('texts in pages, tables, logs and on a terminal')

SCRIPTS = [
  '<script>window.hacked = 1</script>',
  '<img src=x onerror="window.hacked = 1">',
  '"><svg onload="window.hacked = 1">',
  "'><a href='javascript:window.hacked = 1'>x</a>",
  '</style><style>* { display: none }</style>',
  '{{ 7 * 7 }}{% include "/etc/passwd" %}',
  '</title><base href="https://example.org/">',
]
# What a person would see on a terminal that obeys: a cursor moved, a title set, letters turned.
ESCAPES = ['\x1b[2J', '\x1b]0;title\x07', '\x9b31m', '\u202egnp.exe', 'a\rb', '\x08\x08', '\u2028']
FORMULAS = [
  "=cmd|' /C calc'!A0",
  'a,=1+1',
  'a;=1+1',
  'a, +1+1',
  'a","=1+1',
  'a;@SUM(1)',
  '-1+1',
  'a|=1+1',
]


def report(folder, text):
  """Returns the text of a report in which all that a stranger can write is `text`."""
  folder.mkdir()
  rng, config = np.random.default_rng(0), get_config('target=joint')
  with config.ignore_type():
    config.fold, config.system = text, text
  labels = rng.uniform(-1, 1, (20, 2))
  there = np.ones(20, bool)
  series = types.SimpleNamespace(
    frames=np.arange(20) + 1,
    times=np.arange(20) / 25,
    prediction=np.clip(labels + rng.normal(size=(20, 2)), -1, 1),
    labels=labels,
    annotated=there,
    face_present=there,
    audio_present=there,
    gates={text: softmax(rng.normal(size=(20, 3)))},
  )
  results = {'partition': text, 'fold': text, 'best_epoch': 1}
  results |= score_in_detail({text: series}, config.targets, {})
  line = {'step': 1, 'rate': 1.0, 'train_loss': 1.0, 'event': ''}
  rows = [{**line, 'epoch': e, 'stage': 1 + e} for e in range(3)]
  rows = [row | {f'validation_ccc_{name}': 0.1 for name in config.targets} for row in rows]
  (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  (folder / 'versions.json').write_text(json.dumps({text: text}))
  has_input = np.logical_or
  run_report.write(folder, config, results, {text: series}, parameter_count=1, has_input=has_input)
  return (folder / 'report.html').read_text()


def prediction(text):
  n = 12
  return VideoPrediction(
    frames=np.arange(n) + 1,
    times=np.arange(n) / 25,
    predictions={'valence': np.zeros(n), 'arousal': np.zeros(n)},
    face_found=np.ones(n, bool),
    audio_present=np.ones(n, bool),
    boxes=np.zeros((n, 4)),
    gates={text: np.full((n, 2), 0.5)},
    notes=[text],
    speed={},
  )


@pytest.fixture(scope='module')
def film(tmp_path_factory):
  path = tmp_path_factory.mktemp('film') / 'clip.mp4'
  write_video(path, 12, tone(12))
  return path


def page(folder, film, text):
  clip_page.write(folder / 'page.html', text, film, prediction(text))
  return (folder / 'page.html').read_text()


def test_no_text_becomes_html(tmp_path, film, record):
  """The elements and attributes of a page are the same whatever the texts are."""

  def skeleton(html):
    # Long films and scripts aside: names of elements and of their attributes, in order.
    html = re.sub(r'(<script[^>]*>).*?(</script>)', r'\1\2', html, flags=re.DOTALL)
    return [re.sub(r'="[^"]*"', '', tag) for tag in re.findall(r'<[^>]*>', html)]

  plain = skeleton(report(tmp_path / 'plain', 'name')), skeleton(page(tmp_path, film, 'name'))
  for i, text in enumerate(SCRIPTS):
    found = report(tmp_path / str(i), text), page(tmp_path, film, text)
    assert tuple(map(skeleton, found)) == plain, text
    assert '49' not in re.findall(r'<title>.*?</title>', found[0])[0]
  record('scripts and tags in texts of pages: inputs, held', [2 * len(SCRIPTS)] * 2)


def scripts(html):
  """Returns the scripts of a page that a browser would run."""
  return re.findall(r'<script>(.*?)</script>', html, flags=re.DOTALL)


def test_pages_allow_their_own_scripts_alone(tmp_path, film):
  for html in (report(tmp_path / 'run', 'a'), page(tmp_path, film, 'a')):
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]*)"', html)[1]
    rules = dict(rule.split(' ', 1) for rule in re.split(r';\s+', policy))
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts(html))
    wanted = ' '.join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    assert rules['script-src'] == wanted and wanted
    for name in ('default-src', 'base-uri', 'form-action'):
      assert rules[name] == "'none'"


@in_browser
def test_a_script_that_got_into_a_page_does_not_run(tmp_path, film):
  """Should a text get through in spite of all, the policy stops it; the page itself works."""
  html = {'report': report(tmp_path / 'run', 'a'), 'page': page(tmp_path, film, 'a')}
  intruder = (
    '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 1">'
    '<base href="https://example.org/"><button id="b" onclick="window.hacked = 1">b</button>'
  )
  with Browser() as chromium:
    for name, text in html.items():
      (tmp_path / f'{name}.html').write_text(text.replace('<main', intruder + '<main', 1))
      chromium.open(tmp_path / f'{name}.html')
      chromium.evaluate('document.getElementById("b").click()')
      assert chromium.evaluate('window.hacked === undefined')
      assert chromium.evaluate('document.baseURI.startsWith("file:")')
    assert chromium.evaluate('document.getElementById("valence").textContent') == '+0.000'


@pytest.mark.parametrize('text', FORMULAS)
def test_no_name_becomes_a_formula(tmp_path, text):
  """Spreadsheets take a cell for a formula if it begins with one of = + - @."""
  name = tmp_path / f'{text.replace("/", "_")}.mp4'
  outputs.write_csv(prediction(text), name, tmp_path / 'out.csv')
  comment = (tmp_path / 'out.csv').read_text().splitlines()[0]
  for delimiter in ',;|\t':
    for quoted in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
      (cells,) = csv.reader([comment], delimiter=delimiter, quoting=quoted)
      assert not [cell for cell in cells if cell.strip(' "')[:1] in tuple('=+-@')]
  assert text in urllib.parse.unquote(comment)  # the name can be read back


@pytest.mark.parametrize('text', ESCAPES)
def test_nothing_moves_the_cursor(text, capsys):
  errors.print_error(errors.InputError(f'a{text}b cannot be read'))
  line = capsys.readouterr().err
  assert line.endswith(' cannot be read\n') and line[:-1].isprintable()
  entry = logging.LogRecord('avjax', logging.INFO, '', 0, '%s\nand %s', (text, text), None)
  assert errors.make_record_visible(entry)
  assert all(line.isprintable() for line in entry.getMessage().split('\n'))


@pytest.mark.parametrize('name', [*ESCAPES, *SCRIPTS, 'a | 0.999 |\n| valence'])
def test_a_run_s_name_is_text_in_a_table_of_runs(name):
  """The names are those of folders that may be a stranger's; `evaluate --runs` prints them."""
  scores = {'fold': 0, 'ccc': 0.5, 'pcc': 0.5, 'rmse': 0.5, 'best_epoch': 0}
  summary = {'valence': {'runs': {'fold0_joint': scores, name: scores}, 'best': 'fold0_joint'}}
  summary['valence'] |= {'mean': {}, 'spread': {}}
  *_, plain, line, _ = lines = protocol.table(summary).split('\n')
  assert plain.startswith('| valence | fold0_joint (best) | 0 |') and len(lines) == 5
  assert line.count('|') == 8 and line.isprintable() and '<' not in line


def test_the_log_of_a_run_is_printable(tmp_path):
  progress.start_logging(tmp_path / 'train.log')
  logging.getLogger('avjax').info('from %s', ESCAPES[0])
  assert (tmp_path / 'train.log').read_text().endswith('from \\x1b[2J\n')


@pytest.mark.slow
def test_a_film_with_a_name_of_escapes(film, tmp_path):
  """The command, its lines and its files; only the person may see the face in the page."""
  name = tmp_path / '\x1b[31m=1+1;<b>.mp4'
  shutil.copy(film, name)
  run, out = made_run(tmp_path / 'run', get_config()), tmp_path / 'out'
  done = call(name, '--run', run, '--output', out, '--overlay', module='avjax.predict')
  assert done.returncode == 0, done.stderr
  assert all(line.isprintable() for line in done.stdout.splitlines())
  for ending in ('.html', '_overlay.mp4'):
    mode = stat.S_IMODE((out / f'{name.stem}{ending}').stat().st_mode)
    assert mode == 0o600
  done = call(name, '--run', run, '--output', out, module='avjax.predict')
  assert done.returncode == 2 and one_line(done.stderr) and done.stderr[:-1].isprintable()
