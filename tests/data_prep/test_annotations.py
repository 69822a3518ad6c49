import numpy as np
import pytest

from avjax.errors import InputError
from data_prep.sources.annotations import read_annotation


def write(path, text):
  path = path / '102.txt'
  path.write_bytes(text.encode() if isinstance(text, str) else text)
  return path


def test_a_frame_counts_only_where_both_values_do(tmp_path):
  path = write(
    tmp_path, '\ufeffvalence,arousal\r\n0.25,-1\r\n-5,-5\r\n-5,0.5\r\n1, 0\r\n0.1,-5.0\r\n\r\n'
  )
  va, annotated = read_annotation(path)
  np.testing.assert_array_equal(annotated, [True, False, False, True, False])
  np.testing.assert_array_equal(va, [[0.25, -1], [0, 0], [0, 0], [1, 0], [0, 0]])
  assert va.dtype == np.float32 and annotated.dtype == bool


@pytest.mark.parametrize(
  'rows, words',
  [
    ('0,0\nnan,0', r'line 3 \(frame 2\).*not a finite number'),
    ('0,inf', r'line 2 \(frame 1\).*not a finite number'),
    ('0,0\n0,0\nhappy,0', r'line 4 \(frame 3\): expected two numbers'),
    ('0,0,0', r'line 2 \(frame 1\): expected two numbers'),
    ('0', r'line 2 \(frame 1\): expected two numbers'),
    ('0,0\n\n0,0', r'line 3 \(frame 2\): expected two numbers'),
    ('0,0\n0.5,1.01', r'line 3 \(frame 2\): 1.01 is outside .*--tolerate out_of_range'),
    ('-6,0', r'line 2 \(frame 1\): -6 is outside'),
  ],
)
def test_bad_rows_are_named(tmp_path, rows, words):
  with pytest.raises(InputError, match=f'102.txt, {words}'):
    read_annotation(write(tmp_path, f'valence,arousal\n{rows}\n'))


@pytest.mark.parametrize(
  'text', ['', '0.1,0.2\n', 'arousal,valence\n0,0\n', 'valence arousal\n0,0\n']
)
def test_another_header_is_refused(tmp_path, text):
  with pytest.raises(InputError, match="line 1: expected the header 'valence,arousal'"):
    read_annotation(write(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
  with pytest.raises(InputError, match='cannot be read as text'):
    read_annotation(write(tmp_path, b'\xff\xff\x00\x01'))
  with pytest.raises(InputError, match='cannot be read as text'):
    read_annotation(tmp_path / 'missing.txt')


def test_out_of_range_can_count_as_not_annotated(tmp_path):
  path = write(tmp_path, 'valence,arousal\n0,0\n2,0\n-5,0\n')
  np.testing.assert_array_equal(
    read_annotation(path, ignore_out_of_range=True)[1], [True, False, False]
  )
  with pytest.raises(InputError):
    read_annotation(write(tmp_path, 'valence,arousal\nnan,0\n'), ignore_out_of_range=True)
