"""Tests how mistakes are put into words, and that a command prints each in a line of its own."""

import multiprocessing
import pickle

import pytest

from avjax import errors
from avjax.errors import InputError, Mistakes
from data_prep import parallel


@pytest.mark.parametrize(
  'many, one',
  [
    ('rows have no number', 'row has no number'),
    ('files of labels have no video', 'file of labels has no video'),
    ('entries do not end as ratings do', 'entry does not end as ratings do'),
    ('annotations of valence overlap', 'annotation of valence overlaps'),
    ('names begin with no partition', 'name begins with no partition'),
    ('clips have no labels and are not in it', 'clip has no labels and is not in it'),
  ],
)
def test_one_thing_is_counted_as_one(many, one):
  assert errors.counted(1, many) == f'1 {one}' and errors.counted(1200, many) == f'1,200 {many}'


def test_each_mistake_is_a_line_of_its_own_and_stays_one(capsys):
  mistakes = Mistakes()
  mistakes.raise_if_any()
  mistakes.add('rows have no time', 'a\nerror: b', '; write one')
  with mistakes.caught():
    mistakes.add('clips have no split', 'c')
    mistakes.raise_if_any()
  with mistakes.caught():
    raise InputError('d has no header')
  with pytest.raises(InputError) as caught:
    mistakes.raise_if_any()
  errors.print_error(pickle.loads(pickle.dumps(caught.value)))
  assert capsys.readouterr().err.splitlines() == [
    'error: 1 row has no time: a error: b; write one',
    'error: 1 clip has no split: c',
    'error: d has no header',
  ]


@pytest.mark.slow
def test_no_worker_is_left_after_a_success():
  with parallel.ordered(abs, range(-3, 0), 2, 'number') as found:
    assert list(found) == [3, 2, 1]
    assert multiprocessing.active_children()
  assert not multiprocessing.active_children()
