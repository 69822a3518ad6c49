"""Drives a headless Chromium for tests with its DevTools protocol over two pipes."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import select
import shutil
import signal
import tempfile
import time

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
FLAGS = (
  '--headless=new',
  '--remote-debugging-pipe',
  '--no-first-run',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--mute-audio',
  '--hide-scrollbars',
  '--autoplay-policy=no-user-gesture-required',
  '--disable-background-networking',
)
# Virtual key codes, by KeyboardEvent.key.
KEYS = {
  'ArrowLeft': 37,
  'ArrowRight': 39,
  'ArrowUp': 38,
  'ArrowDown': 40,
  'Home': 36,
  'End': 35,
  'Tab': 9,
  'Enter': 13,
  ' ': 32,
}
CHARACTERS = {'Enter': '\r', ' ': ' '}  # what those keys type that type something
PATIENCE = 60.0  # seconds to wait for any answer: machines that run tests are busy


def find():
  """Finds the path of Chromium or Chrome; None where neither is installed."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """Opens one page at a time in a browser of its own.

  `errors` gathers exceptions and console errors, `requests` the addresses that were asked for.
  """

  def __init__(self, width=1400, height=900):
    self.errors, self.requests = [], []
    self._events, self._buffer, self._last, self._session = [], b'', 0, {}
    self._profile = tempfile.TemporaryDirectory(prefix='avjax-browser-', ignore_cleanup_errors=True)
    browser_in, self._out = os.pipe()
    self._in, browser_out = os.pipe()
    # The browser reads from 3 and writes to 4; its ends are first moved clear of these numbers.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (browser_in, browser_out)]
    actions = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    actions += [(os.POSIX_SPAWN_DUP2, end, number) for number, end in enumerate(ends, 3)]
    root = ['--no-sandbox'] if os.geteuid() == 0 else []
    command = [find(), *FLAGS, *root, f'--user-data-dir={self._profile.name}', 'about:blank']
    self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)
    for end in (browser_in, browser_out, *ends):
      os.close(end)
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
    self._session = {'sessionId': attached['sessionId']}
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')
    self.emulate(width, height)

  def call(self, method, **parameters):
    """Sends one command of the protocol and returns its result."""
    self._last += 1
    message = {'id': self._last, 'method': method, 'params': parameters, **self._session}
    os.write(self._out, json.dumps(message).encode() + b'\0')
    answer = self._until(lambda message: message.get('id') == self._last)
    if 'error' in answer:
      raise RuntimeError(f'{method}: {answer["error"]["message"]}')
    return answer['result']

  def _until(self, wanted):
    """Returns the first message for which wanted(message) is true; keeps the events before it."""
    deadline = time.monotonic() + PATIENCE
    while True:
      while b'\0' in self._buffer:
        text, self._buffer = self._buffer.split(b'\0', 1)
        message = json.loads(text)
        self._note(message.get('method'), message.get('params'))
        if wanted(message):
          return message
      patience = max(deadline - time.monotonic(), 0)
      if not select.select([self._in], [], [], patience)[0]:
        raise TimeoutError('the browser does not answer')
      block = os.read(self._in, 1 << 20)
      if not block:
        raise RuntimeError('the browser has ended')
      self._buffer += block

  def _note(self, method, event):
    """Keeps what an event says of errors and requests."""
    if method == 'Runtime.exceptionThrown':
      details = event['exceptionDetails']
      self.errors.append(details.get('exception', {}).get('description') or details['text'])
    elif method == 'Runtime.consoleAPICalled' and event['type'] in ('error', 'warning', 'assert'):
      texts = (str(value.get('value', value.get('description'))) for value in event['args'])
      self.errors.append(' '.join(texts))
    elif method == 'Log.entryAdded' and event['entry']['level'] in ('error', 'warning'):
      self.errors.append(event['entry']['text'])
    elif method == 'Page.javascriptDialogOpening':
      self.errors.append(f'a dialog: {event["message"]}')
    elif method == 'Network.requestWillBeSent':
      self.requests.append(event['request']['url'])

  def open(self, path):
    """Opens a file and waits until it is loaded."""
    self.errors.clear()
    self.requests.clear()
    self.call('Page.navigate', url=pathlib.Path(path).resolve().as_uri())
    self.wait('document.readyState === "complete" && location.protocol === "file:"')

  def evaluate(self, expression):
    """Returns the value of a JavaScript expression; waits for it where it is a promise."""
    answer = self.call(
      'Runtime.evaluate',
      expression=expression,
      awaitPromise=True,
      returnByValue=True,
      userGesture=True,
    )
    if 'exceptionDetails' in answer:
      details = answer['exceptionDetails']
      raise RuntimeError(details.get('exception', {}).get('description', details['text']))
    return answer['result'].get('value')

  def wait(self, expression):
    """Waits until a JavaScript expression is true."""
    deadline = time.monotonic() + PATIENCE
    while not self.evaluate(expression):
      if time.monotonic() > deadline:
        raise TimeoutError(f'this has not become true: {expression}')
      time.sleep(0.05)

  def key(self, name, shift=False):
    """Presses and releases a key, named as in KeyboardEvent.key."""
    event = {
      'key': name,
      'code': 'Space' if name == ' ' else name,
      'windowsVirtualKeyCode': KEYS[name],
      'modifiers': 8 if shift else 0,
    }
    text = {'text': CHARACTERS[name]} if name in CHARACTERS else {}
    self.call('Input.dispatchKeyEvent', type='keyDown', **event, **text)
    self.call('Input.dispatchKeyEvent', type='keyUp', **event)

  def drag(self, places, touch=False):
    """Moves a pressed pointer over places; one place is a click.

    places: [(x, y), ...] in CSS pixels. touch: whether a finger is the pointer, or a mouse.
    """
    for i, (x, y) in enumerate(places):
      if touch:
        kind = 'touchMove' if i else 'touchStart'
        self.call('Input.dispatchTouchEvent', type=kind, touchPoints=[{'x': x, 'y': y}])
      else:
        kind = 'mouseMoved' if i else 'mousePressed'
        self.call(
          'Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', buttons=1, clickCount=1
        )
    if touch:
      self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
    else:
      x, y = places[-1]
      self.call(
        'Input.dispatchMouseEvent', type='mouseReleased', x=x, y=y, button='left', clickCount=1
      )

  def emulate(self, width, height=900, *, dark=False, still=False, ratio=1, phone=False):
    """Emulates a screen and what its owner prefers.

    Args:
      width: of the viewport, in CSS pixels.
      height: of the viewport.
      dark: whether the dark colour scheme is preferred.
      still: whether reduced motion is preferred.
      ratio: device pixels to a CSS pixel.
      phone: whether it is a phone, with touch.
    """
    self.call(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=ratio,
      mobile=phone,
    )
    self.call('Emulation.setTouchEmulationEnabled', enabled=phone)
    self.call(
      'Emulation.setEmulatedMedia',
      features=[
        {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'},
        {'name': 'prefers-reduced-motion', 'value': 'reduce' if still else 'no-preference'},
      ],
    )
    self.evaluate(
      'new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))'
    )

  def screenshot(self):
    """Returns the whole page as the bytes of a PNG file."""
    size = self.call('Page.getLayoutMetrics')['cssContentSize']
    clip = {'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1}
    picture = self.call(
      'Page.captureScreenshot', format='png', clip=clip, captureBeyondViewport=True
    )
    return base64.b64decode(picture['data'])

  def close(self):
    """Ends the browser and removes what it wrote."""
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._pid, signal.SIGKILL)
    os.waitpid(self._pid, 0)
    os.close(self._in)
    os.close(self._out)
    self._profile.cleanup()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()
