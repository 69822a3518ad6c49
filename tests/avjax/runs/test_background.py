"""Tests that an epoch is saved while the next one is trained, and that no error of it is lost."""

import threading

import pytest

from avjax.errors import InputError
from avjax.runs.background import Background


def test_one_job_after_another():
  order, go = [], threading.Event()
  with Background() as background:
    background.begin(lambda: (go.wait(60), order.append('first')))
    background.check()  # does not wait
    assert not order
    threading.Timer(0.1, go.set).start()
    background.begin(lambda: order.append('second'))
    assert order[0] == 'first'
    background.wait()
    assert order == ['first', 'second']
    go.clear()
    background.begin(lambda: (go.wait(0.1), order.append('third')))
  assert order[-1] == 'third'


def fail():
  raise InputError('the disk is full')


@pytest.mark.parametrize('how', ['check', 'wait', 'begin', 'end'])
def test_its_error_is_raised_once(how):
  done = []

  def act(background):
    background.pool.submit(int).result()  # the job has ended
    if how == 'begin':
      background.begin(lambda: done.append(True))
    elif how != 'end':
      getattr(background, how)()

  with pytest.raises(InputError, match='disk is full'), Background() as background:
    background.begin(fail)
    act(background)
  background.wait()
  assert not done


def test_another_error_goes_first(caplog):
  with pytest.raises(ZeroDivisionError), Background() as background:
    background.begin(fail)
    raise ZeroDivisionError
  assert [record.getMessage() for record in caplog.records] == [
    'what was still to be saved is not: the disk is full'
  ]
