"""Opens one browser for the tests of each page."""

import browser
import pytest


@pytest.fixture(scope='module')
def chromium():
  with browser.Browser() as opened:
    yield opened
    assert not opened.errors
