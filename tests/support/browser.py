"""A headless Chromium for tests, driven by its DevTools protocol over two pipes. Needs no package."""

import base64
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
FLAGS = ('--headless=new', '--remote-debugging-pipe', '--no-first-run', '--disable-gpu', '--disable-dev-shm-usage', '--mute-audio',
         '--hide-scrollbars', '--autoplay-policy=no-user-gesture-required', '--disable-background-networking')
KEYS = {'ArrowLeft': 37, 'ArrowRight': 39, 'ArrowUp': 38, 'ArrowDown': 40, 'Home': 36, 'End': 35, 'Tab': 9, 'Enter': 13, ' ': 32}
TYPES = {'Enter': '\r', ' ': ' '}  # keys that also give a character
PATIENCE = 60.0  # seconds for any answer: machines that run tests are busy


def find():
  """The path of Chromium or Chrome; None where there is none."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page. `errors` gathers its exceptions and console errors, `requests` the addresses that it asked for."""

  def __init__(self, width=1400, height=900):
    self.errors, self.requests = [], []
    self._events, self._buffer, self._last, self._session = [], b'', 0, {}
    self._profile = tempfile.TemporaryDirectory(prefix='avjax-browser-', ignore_cleanup_errors=True)
    theirs_in, self._out = os.pipe()
    self._in, theirs_out = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]  # clear of 3 and 4, where they go
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    root = ['--no-sandbox'] if os.geteuid() == 0 else []
    self._pid = os.posix_spawn(
        find(), [find(), *FLAGS, *root, f'--user-data-dir={self._profile.name}', 'about:blank'], os.environ,
        file_actions=[*quiet, (os.POSIX_SPAWN_DUP2, high[0], 3), (os.POSIX_SPAWN_DUP2, high[1], 4)], setpgroup=0)
    for end in (theirs_in, theirs_out, *high):
      os.close(end)
    target = self.call('Target.createTarget', url='about:blank')['targetId']
    self._session = {'sessionId': self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']}
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self.call(f'{domain}.enable')
    self.emulate(width, height)

  def call(self, method, **parameters):
    """The result of one command of the protocol."""
    self._last += 1
    message = {'id': self._last, 'method': method, 'params': parameters, **self._session}
    os.write(self._out, json.dumps(message).encode() + b'\0')
    answer = self._until(lambda message: message.get('id') == self._last)
    if 'error' in answer:
      raise RuntimeError(f'{method}: {answer["error"]["message"]}')
    return answer['result']

  def _until(self, wanted):
    """The first message that is wanted; keeps note of the events before it."""
    deadline = time.monotonic() + PATIENCE
    while True:
      while b'\0' in self._buffer:
        text, self._buffer = self._buffer.split(b'\0', 1)
        message = json.loads(text)
        self._note(message.get('method'), message.get('params'))
        if wanted(message):
          return message
      if not select.select([self._in], [], [], max(deadline - time.monotonic(), 0))[0]:
        raise TimeoutError('the browser does not answer')
      block = os.read(self._in, 1 << 20)
      if not block:
        raise RuntimeError('the browser has ended')
      self._buffer += block

  def _note(self, method, event):
    if method == 'Runtime.exceptionThrown':
      details = event['exceptionDetails']
      self.errors.append(details.get('exception', {}).get('description') or details['text'])
    elif method == 'Runtime.consoleAPICalled' and event['type'] in ('error', 'warning', 'assert'):
      self.errors.append(' '.join(str(value.get('value', value.get('description'))) for value in event['args']))
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
    """The value of a JavaScript expression, waiting for it if it is a promise."""
    answer = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True, userGesture=True)
    if 'exceptionDetails' in answer:
      raise RuntimeError(answer['exceptionDetails'].get('exception', {}).get('description', answer['exceptionDetails']['text']))
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
    event = {'key': name, 'code': 'Space' if name == ' ' else name, 'windowsVirtualKeyCode': KEYS[name], 'modifiers': 8 if shift else 0}
    text = {'text': TYPES[name]} if name in TYPES else {}
    self.call('Input.dispatchKeyEvent', type='keyDown', **event, **text)
    self.call('Input.dispatchKeyEvent', type='keyUp', **event)

  def drag(self, places, touch=False):
    """Moves a pressed pointer, mouse or finger, over places, [(x, y), ...] in CSS pixels; one place is a click."""
    kinds = ['Pressed', *['Moved'] * (len(places) - 1)]
    for kind, (x, y) in zip(kinds, places):
      if touch:
        self.call('Input.dispatchTouchEvent', type={'Pressed': 'touchStart', 'Moved': 'touchMove'}[kind], touchPoints=[{'x': x, 'y': y}])
      else:
        self.call('Input.dispatchMouseEvent', type=f'mouse{kind}', x=x, y=y, button='left', buttons=1, clickCount=1)
    x, y = places[-1]
    if touch:
      self.call('Input.dispatchTouchEvent', type='touchEnd', touchPoints=[])
    else:
      self.call('Input.dispatchMouseEvent', type='mouseReleased', x=x, y=y, button='left', clickCount=1)

  def emulate(self, width, height=900, dark=False, still=False, ratio=1, phone=False):
    """Sets the viewport in CSS pixels and device pixels to each, the colour scheme, reduced motion, and whether there is touch."""
    self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=ratio, mobile=phone)
    self.call('Emulation.setTouchEmulationEnabled', enabled=phone)
    self.call('Emulation.setEmulatedMedia', features=[
        {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'},
        {'name': 'prefers-reduced-motion', 'value': 'reduce' if still else 'no-preference'}])
    self.evaluate('new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))')

  def screenshot(self):
    """PNG bytes of the whole page."""
    size = self.call('Page.getLayoutMetrics')['cssContentSize']
    clip = {'x': 0, 'y': 0, 'width': size['width'], 'height': size['height'], 'scale': 1}
    return base64.b64decode(self.call('Page.captureScreenshot', format='png', clip=clip, captureBeyondViewport=True)['data'])

  def close(self):
    """Ends the browser and removes what it wrote."""
    try:
      os.killpg(self._pid, signal.SIGKILL)
    except ProcessLookupError:
      pass
    os.waitpid(self._pid, 0)
    os.close(self._in)
    os.close(self._out)
    self._profile.cleanup()

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self.close()
