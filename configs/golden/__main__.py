"""Renews the golden configs: python -m configs.golden

golden/NAME.json holds what configs/NAME.py resolves to with each argument of ARGUMENTS, one key per
line. A diff of these files shows which settings of which systems a change touches.
"""

import importlib
import json
import pathlib

from configs.finetune import SYSTEMS

FOLDER = pathlib.Path(__file__).parent
CONFIGS = sorted([*SYSTEMS, 'finetune'])
ARGUMENTS = ('', 'mini', 'protocol=author')


def resolve(name):
  """Returns the text of golden/NAME.json: {argument: {key: value}} of the config."""
  get_config = importlib.import_module(f'configs.{name}').get_config
  found = {}
  for argument in ARGUMENTS:
    settings = dict(leaves(get_config(argument).to_dict()))
    lines = [f'  {json.dumps(key)}: {json.dumps(value)}' for key, value in settings.items()]
    found[argument] = '{\n' + ',\n'.join(lines) + '\n }'
  parts = [f' {json.dumps(argument)}: {text}' for argument, text in found.items()]
  return '{\n' + ',\n'.join(parts) + '\n}\n'


def leaves(value, key=''):
  """Yields (key, value) of a nested dict, keys joined by dots; an empty dict is a value."""
  if isinstance(value, dict) and value:
    for name, inner in sorted(value.items()):
      yield from leaves(inner, f'{key}.{name}' if key else name)
  else:
    yield key, value


def main():
  for path in FOLDER.glob('*.json'):
    path.unlink()
  for name in CONFIGS:
    (FOLDER / f'{name}.json').write_text(resolve(name))


if __name__ == '__main__':
  main()
