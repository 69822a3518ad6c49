"""Finds out on which platforms the packages of constraints.txt can be installed from wheels.

python -m benchmarks.platforms

It asks uv to resolve setup.cfg for each platform and version of Python, which downloads metadata
only, and writes docs/platforms.json and the block `platforms` of docs/installing.md. That a
platform resolves does not mean that anything was run there.
"""

import configparser
import json
import os
import pathlib
import re
import subprocess
import sys

from benchmarks.pages import fill

ROOT = pathlib.Path(__file__).parents[1]
PYTHONS = ('3.11', '3.12', '3.13', '3.14')
# The name that uv has for a platform, and the oldest macOS that wheels may ask for.
PLATFORMS = {
  'Linux, x86-64': ('x86_64-manylinux_2_28', None),
  'Linux, arm64': ('aarch64-manylinux_2_28', None),
  'Windows, x86-64': ('x86_64-pc-windows-msvc', None),
  'macOS 14 or later, arm64': ('aarch64-apple-darwin', '14.0'),
  'macOS 13, arm64': ('aarch64-apple-darwin', '13.0'),
  'macOS 14 or later, x86-64': ('x86_64-apple-darwin', '14.0'),
}


def resolve(platform, macos, python):
  """Returns the version of JAX that would be installed, or the package that has no wheel there."""
  settings = configparser.ConfigParser()
  settings.read(ROOT / 'setup.cfg')
  command = [sys.executable, '-m', 'uv', 'pip', 'compile', '--no-header', '--no-annotate']
  # promise, which tensorflow-datasets needs, is plain Python and has no wheel anywhere.
  command += ['--only-binary', ':all:', '--no-binary', 'promise']
  command += ['--python-platform', platform, '--python-version', python]
  environment = {**os.environ, 'UV_PYTHON_DOWNLOADS': 'never'}
  if macos:
    environment['MACOSX_DEPLOYMENT_TARGET'] = macos
  found = subprocess.run(
    [*command, '--constraint', 'constraints.txt', '-'],
    cwd=ROOT,
    env=environment,
    input=settings['options']['install_requires'],
    capture_output=True,
    text=True,
  )
  if found.returncode == 0:
    return {'jax': re.search(r'^jax==(\S+)', found.stdout, re.MULTILINE)[1]}
  missing = re.search(
    r'Because ([a-z-]+)(?:\{[^}]*\})?==\S+ has no (?:usable )?wheels', found.stderr
  )
  if not missing:
    raise RuntimeError(found.stderr)
  return {'missing': missing[1]}


def table(found):
  """Formats the content of docs/platforms.json as a Markdown table."""
  lines = ['| | ' + ' | '.join(f'Python {python}' for python in PYTHONS) + ' |']
  lines.append('|---' * (len(PYTHONS) + 1) + '|')
  for name, results in found.items():
    cells = [
      f'jax {result["jax"]}' if 'jax' in result else f'no: {result["missing"]}'
      for result in results.values()
    ]
    lines.append(f'| {name} | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines)


def main():
  found = {
    name: {python: resolve(*platform, python) for python in PYTHONS}
    for name, platform in PLATFORMS.items()
  }
  (ROOT / 'docs' / 'platforms.json').write_text(json.dumps(found, indent=1) + '\n')
  page = ROOT / 'docs' / 'installing.md'
  page.write_text(fill(page.read_text(), 'platforms', table(found)))
  print(table(found))


if __name__ == '__main__':
  main()
