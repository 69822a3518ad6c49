"""Tests that names and metadata of other people's files do nothing to a terminal or a log."""

import io
import logging
import os
import pty
import subprocess
import sys

import pytest
from tqdm import tqdm

from avjax import errors
from avjax.training import progress

pytestmark = pytest.mark.attack('texts in pages, tables, logs and on a terminal')

# Clears the line, sets the title of the window, turns the direction of what follows, goes back.
HOSTILE = '\x1b[2K\x1b]0;title\x07\u202e\u2066\x9b31m\x7f\x00'
SHOWN = r'\x1b[2K\x1b]0;title\x07\u202e\u2066\x9b31m\x7f\x00'


@pytest.fixture
def stream():
  return errors.VisibleStream(io.StringIO())


def test_characters_that_do_not_print_are_shown(stream):
  print(f'a {HOSTILE} b\n\tc', file=stream)
  assert stream.getvalue() == f'a {SHOWN} b\n\tc\n'
  print('\x1b[A\x1b[Ab', file=stream)
  assert stream.getvalue().endswith('\n\\x1b[A\\x1b[Ab\n')
  print('é 映像 😀 −', file=stream)
  assert stream.getvalue().endswith('\né 映像 😀 −\n')


def test_bars_are_drawn_as_without_it(stream):
  def draw(file):
    always = {'file': file, 'mininterval': 0, 'miniters': 1, 'bar_format': '{desc} {bar} {n}'}
    with tqdm(total=2, desc='one', **always) as one, tqdm(total=2, desc='two', **always) as two:
      one.update()
      two.update()
      tqdm.write('a line', file=file)

  draw(stream)
  assert '\x1b[A' in stream.getvalue() and '\\x1b' not in stream.getvalue()
  with tqdm(total=2, desc=f'a {HOSTILE}', file=stream, mininterval=0) as bar:
    bar.update()
  assert f'\ra {SHOWN}: ' in stream.getvalue() and '\x1b]' not in stream.getvalue()


def test_an_error_is_one_visible_line(capsys):
  errors.print_error(errors.InputError(f'{HOSTILE}\r\nerror: all is well\u2028x'))
  assert capsys.readouterr().err == f'error: {SHOWN} error: all is well x\n'


def test_a_line_is_written_in_one_piece(monkeypatch):
  """So that the lines of several processes do not mix, where Python does not buffer them either."""
  pieces, handler = [], progress.TerminalHandler()
  stream = io.StringIO()
  stream.write = lambda text: pieces.append(text) or len(text)
  monkeypatch.setattr('sys.stderr', stream)
  errors.print_error(errors.InputError('a', 'b'))
  handler.emit(logging.makeLogRecord({'msg': 'c'}))
  assert [piece for piece in pieces if piece] == ['error: a\n', 'error: b\n', 'c\n']


def test_a_log_has_one_visible_line_for_each_record(tmp_path, capsys):
  progress.start_logging(tmp_path / 'train.log')
  try:
    progress.logger.info('continues from %s', f'{HOSTILE}\nresumed')
    progress.logger.warning(f'100% {HOSTILE}')
  finally:
    for handler in list(progress.logger.handlers):
      progress.logger.removeHandler(handler)
      handler.close()
    progress.logger.propagate = True
    progress.logger.setLevel(logging.NOTSET)
  expected = [rf'continues from {SHOWN}\nresumed', f'100% {SHOWN}']
  lines = (tmp_path / 'train.log').read_text(encoding='utf-8').splitlines()
  assert [line.split(' ', 2)[2] for line in lines] == expected
  assert capsys.readouterr().err.splitlines() == expected


@pytest.mark.parametrize(
  'words, message',
  [
    (['a', '--template', 'b', 'c\x1b[31m'], r'unrecognized arguments: c\x1b[31m'),
    (['a\x1b[31m', '--template', 'b\x1b[8m'], r'error: b\x1b[8m cannot be read as text'),
  ],
)
def test_a_command_on_a_terminal(words, message, tmp_path):
  """Also where another than us prints: here argparse, with a name that a shell's * has found."""
  terminal, end = pty.openpty()
  root = os.path.dirname(os.path.dirname(errors.__file__))
  environment = {**os.environ, 'PYTHONPATH': root}
  command = [sys.executable, '-m', 'avjax.submission', *words]
  done = subprocess.run(command, env=environment, cwd=tmp_path, stdout=end, stderr=end)
  os.close(end)
  printed = os.read(terminal, 1 << 16).decode()
  os.close(terminal)
  assert done.returncode == 2 and message in printed and '\x1b' not in printed
