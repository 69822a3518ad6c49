"""Published weights in: python -m avjax.pretrained ir50 --source res50_ir_0.887.pth --output ir50.safetensors

Also the weights that a run starts from, `config.init`.
"""

import argparse
import collections
import pathlib
import sys

from absl import logging as absl_logging

import avjax
from avjax import command_line, errors, files
from avjax.errors import InputError
from avjax.weights import files as weight_files
from avjax.weights import name_maps
from avjax.weights.convert import convert, format_names, shapes_of, shapes_of_model


def main(argv):
  """Converts weights that others have published into a safetensors file for config.init."""
  parser = argparse.ArgumentParser(prog='python -m avjax.pretrained', description=main.__doc__)
  parser.add_argument('architecture', choices=('ir50', 'resnet50', 'vggish', 'model'),
                      help="a tower, or `model`: a whole model that was trained with the predecessors' code, which takes "
                           'its sizes from --config and --config.KEY=VALUE')
  parser.add_argument('--source', required=True, help='.pth, .pt or .safetensors file, or TensorFlow checkpoint')
  parser.add_argument('--output', required=True, help='.safetensors file to write')
  parser.add_argument('--config', help='of a whole model: configs/rjca_author.py or configs/lfan.py')
  parser.add_argument('--licence', help='of the weights, to be kept with them; by default what is known of the architecture')
  arguments, overrides = parser.parse_known_args(argv[1:])
  absl_logging.set_verbosity(absl_logging.ERROR)
  if (arguments.architecture == 'model') != bool(arguments.config):
    raise InputError('`model` needs --config, such as configs/lfan.py; a tower takes none')
  unknown = [word for word in overrides if not (arguments.config and word.startswith(command_line.OVERRIDE))]
  if unknown:
    raise InputError(f'unexpected argument {unknown[0]!r}')
  output = pathlib.Path(arguments.output)
  files.check_free(output)

  if arguments.architecture == 'model':
    config = command_line.read_flags(['pretrained', f'--config={arguments.config}', *overrides])[0].config
    system, shapes = name_maps.of_model(config), shapes_of_model(config)
    source = weight_files.read_published(arguments.source)
  else:
    source = weight_files.read_published(arguments.source)
    tensorflow = arguments.architecture == 'vggish' and any(name.startswith('vggish/') for name in source)
    system = name_maps.TOWERS[arguments.architecture + ('_tensorflow' if tensorflow else '')]
    shapes = shapes_of(arguments.architecture)
  try:
    converted = convert(source, shapes, system)
  except InputError as error:
    raise InputError(f'{arguments.source} does not hold {arguments.architecture}: {error}') from error
  if converted.mismatches:
    print('\n'.join(sorted(converted.mismatches)))
    kinds = collections.Counter(line.split()[0] for line in sorted(converted.mismatches))
    raise InputError(f'{arguments.source} does not hold {arguments.architecture}: '
                     f'{", ".join(f"{n} {kind}" for kind, n in kinds.items())}; each is listed above')
  metadata = {'architecture': arguments.architecture, 'source': pathlib.Path(arguments.source).name,
              'source_sha256': weight_files.sha256_of_file(arguments.source), 'licence': arguments.licence or system.licence,
              'avjax': avjax.__version__}
  weight_files.save(output, converted.arrays, metadata)
  weight_files.load(output)  # what was written can be read
  count = sum(x.size for x in converted.arrays.values())
  print(f'{output}: {arguments.architecture}, {len(converted.arrays)} arrays, {count:,} numbers')
  for name in ('source', 'source_sha256', 'licence'):
    print(f'{name:<14}{metadata[name]}')
  for name in format_names(converted.left_out):
    print(f'left out      {name}')
  fresh = len(shapes) - len(converted.arrays)
  if fresh:
    print(f'not in it     {fresh} arrays of the projection to 512 features, which start from random values')


if __name__ == '__main__':
  errors.run_command(main, sys.argv)

