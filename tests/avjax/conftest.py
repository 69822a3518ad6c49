"""What the tests of pages share."""

import pytest

import browser


@pytest.fixture(scope='module')
def chromium():
  with browser.Browser() as opened:
    yield opened
    assert not opened.errors
