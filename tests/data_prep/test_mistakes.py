"""Tests how mistakes are put into words, and that a command prints each in a line of its own."""

import multiprocessing
import pickle
import re

import pytest

from avjax import errors
from avjax.errors import InputError
from avjax.files.mistakes import Mistakes, counted
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
  assert counted(1, many) == f'1 {one}' and counted(1200, many) == f'1,200 {many}'


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


def test_a_line_names_as_many_places_as_it_has_room_for(capsys):
  """It has at most 200 characters, unless the first place takes more."""

  def said(*places):
    mistakes = Mistakes()
    for place in places:
      mistakes.add('rows have no time', place, '; write one')
    with pytest.raises(InputError) as caught:
      mistakes.raise_if_any()
    errors.print_error(caught.value)
    return capsys.readouterr().err.removesuffix('\n')

  first = 'a' * 150
  assert said('a', 'b') == 'error: 2 rows have no time: a, b; write one'
  full = f'error: 2 rows have no time: {first}, {"b" * 9}; write one'
  assert said(first, 'b' * 9) == full and len(full) == 200
  for place in (first, 2 * first):
    assert said(place, 'b' * 10, 'c') == (
      f'error: 3 rows have no time: {place}, ... and 2 more; write one'
    )
  for width in (4, 8, 60):
    line = said(*(f'{k:0{width}}' for k in range(1234)))
    found = re.fullmatch(
      r'error: 1,234 rows have no time: (.*), ... and (\S+) more; write one', line
    )
    assert found[2] == f'{1234 - len(found[1].split(", ")):,}'
    assert 200 - len(', ') - width < len(line) <= 200


@pytest.mark.slow
def test_no_worker_is_left_after_a_success():
  with parallel.ordered(abs, range(-3, 0), 2, 'number') as found:
    assert list(found) == [3, 2, 1]
    assert multiprocessing.active_children()
  assert not multiprocessing.active_children()
